package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
)

// owners makes the user namespaces that idmapped mounts need, one for each
// owner of folders on the host, and keeps them.
type owners struct {
	mu         sync.Mutex
	namespaces map[[2]uint32]*os.File // by uid and gid on the host
}

// namespace returns the user namespace that shows an owner as the session's user.
func (o *owners) namespace(uid, gid uint32) (*os.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := [2]uint32{uid, gid}
	if f, ok := o.namespaces[key]; ok {
		return f, nil
	}
	f, err := mapOwner(int(uid), int(gid))
	if err != nil {
		return nil, err
	}
	if o.namespaces == nil {
		o.namespaces = map[[2]uint32]*os.File{}
	}
	o.namespaces[key] = f
	return f, nil
}

// close gives up the namespaces; mounts keep those that they use.
func (o *owners) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, f := range o.namespaces {
		_ = f.Close() // nothing was written
		delete(o.namespaces, key)
	}
}

// mapOwner makes a user namespace in which uid and gid are the session's user.
// A namespace needs a process to be made: ours stops before its first
// instruction, because it is traced, and is killed.
func mapOwner(uid, gid int) (*os.File, error) {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"backend.ai"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: userID, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: userID, Size: 1}},
			Ptrace:      true,
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make user namespace for owner %d: %w", uid, err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
	killErr := p.Kill()
	for {
		// the first report of a traced process is its stop, not its end
		state, waitErr := p.Wait()
		if waitErr != nil || state.Exited() || state.Sys().(syscall.WaitStatus).Signaled() {
			break
		}
	}
	if err := errors.Join(err, killErr); err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, fmt.Errorf("open user namespace for owner %d: %w", uid, err)
	}
	return f, nil
}

// open opens the directory to mount. By a descriptor it stays the one that was
// checked, whatever the folder's users rename meanwhile.
func open(v engine.Mount) (*os.File, error) {
	root, err := os.OpenRoot(v.Source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(cmp.Or(v.Subpath, "."), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// attach mounts a folder of the host at target as sessions see it: its owner is
// their user, and neither set-user-ID bits nor devices work. Files of anyone
// else belong to nobody.
func (o *owners) attach(v engine.Mount, target string) error {
	source, err := open(v)
	if err != nil {
		return backendai.Errorf(backendai.CodeVFolderFailed, "the folder for %s cannot be mounted: %w", v.Target, err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return backendai.Errorf(backendai.CodeVFolderFailed, "the folder for %s cannot be mounted: %w", v.Target, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return backendai.Errorf(backendai.CodeVFolderFailed, "the source for %s is not a folder", v.Target)
	}
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone mount of %s: %w", v.Source, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if v.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if stat.Uid != userID || stat.Gid != userID {
		namespace, err := o.namespace(stat.Uid, stat.Gid)
		if err != nil {
			return err
		}
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(namespace.Fd())
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if attr.Attr_set&unix.MOUNT_ATTR_IDMAP != 0 && errors.Is(err, unix.EINVAL) {
			return backendai.Errorf(backendai.CodeVFolderFailed, "the file system of the folder for %s cannot map owners", v.Target).
				WithHint("give the folder to uid %d on the host, or keep it on ext4, xfs or btrfs", userID)
		}
		return fmt.Errorf("set attributes of mount of %s: %w", v.Source, err)
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", v.Source, err)
	}
	return nil
}

// attachAll mounts a session's folders below dir and returns them with their
// new sources. Mount points in the home are made as the session's user, who
// would find folders of root there otherwise.
func (o *owners) attachAll(ctx context.Context, folders []engine.Mount, dir, home string) ([]engine.Mount, error) {
	attached := make([]engine.Mount, 0, len(folders))
	for i, v := range folders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !path.IsAbs(v.Target) {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "mount target %q is not absolute", v.Target)
		}
		target := filepath.Join(dir, strconv.Itoa(i))
		if err := o.attach(v, target); err != nil {
			return nil, err
		}
		if inside, ok := strings.CutPrefix(path.Clean(v.Target), homePath+"/"); ok {
			if err := makeInHome(home, inside); err != nil {
				return nil, err
			}
		}
		attached = append(attached, engine.Mount{Source: target, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	return attached, nil
}

// makeInHome makes a folder and its parents in a home whose owner may have left
// any links there.
func makeInHome(home, name string) error {
	root, err := os.OpenRoot(home)
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	defer root.Close()
	made := ""
	for part := range strings.SplitSeq(name, "/") {
		made = path.Join(made, part)
		err := root.Mkdir(made, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = root.Lchown(made, userID, userID)
		}
		if err != nil {
			return backendai.Errorf(backendai.CodeVFolderFailed, "the mount point %s/%s cannot be made: %w", homePath, made, err)
		}
	}
	return nil
}
