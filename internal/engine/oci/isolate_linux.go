package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"backendai"
)

// isolatedEnv tells the program that it was executed again in the mount
// namespace named by the value.
const isolatedEnv = "BACKENDAI_MOUNT_NAMESPACE"

// Isolate puts this process into a mount namespace of its own, by executing the
// program once more, and makes it the parent of its sessions when their own
// parent ends. Session mounts then vanish with the server instead of leaking,
// while running containers keep theirs; mounts of the host still arrive. On a
// host with cgroup v1 it also hides the hierarchies that sessions do not need, and
// the unified one, with which crun refuses to work. Call it first in main; it needs
// root, and does nothing more when called again.
func Isolate() error {
	here, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read mount namespace: %w", err)
	}
	if os.Getenv(isolatedEnv) == here {
		if err := os.Unsetenv(isolatedEnv); err != nil {
			return fmt.Errorf("clean environment: %w", err)
		}
		return becomeSubreaper()
	}
	if isolated, err := alreadyIsolated(); err != nil || isolated {
		return err
	}
	if os.Geteuid() != 0 {
		return backendai.Errorf(backendai.CodeForbidden, "the native engine needs root").
			WithHint("run the server as root")
	}
	runtime.LockOSThread() // exec replaces this thread's namespace for the whole process
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := trimCgroups(); err != nil {
		return err
	}
	here, err = os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read mount namespace: %w", err)
	}
	env := append(os.Environ(), isolatedEnv+"="+here)
	// the link and not its target: an upgrade may have replaced the file
	if err := unix.Exec("/proc/self/exe", os.Args, env); err != nil {
		return fmt.Errorf("execute again: %w", err)
	}
	return nil // not reached
}

// alreadyIsolated tells whether an earlier call did its work: then this process
// is a subreaper, which nothing else makes it.
func alreadyIsolated() (bool, error) {
	var flag int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&flag)), 0, 0, 0); err != nil {
		return false, fmt.Errorf("read subreaper flag: %w", err)
	}
	return flag != 0, nil
}

func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// usedHierarchies are those of cgroup v1 that sessions get cgroups in: limits,
// and systemd's, by whose account they would be part of the server otherwise.
var usedHierarchies = []string{"cpu", "cpuacct", "memory", "pids", "devices", "systemd"}

// trimCgroups leaves only these of the hierarchies of cgroup v1, since runtimes
// make a cgroup in each that they find. With them goes the half of cgroup v2 of
// a hybrid host.
func trimCgroups() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return nil // cgroup v2 alone, or what inspect will complain about
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return fmt.Errorf("find cgroups: %w", err)
	}
	kept, links := map[string]int{}, map[string]string{}
	defer func() {
		for _, fd := range kept {
			_ = unix.Close(fd)
		}
	}()
	for _, e := range entries {
		// names such as "cpu,cpuacct" are mounts, "cpu" then is a link to them
		path := filepath.Join(cgroupRoot, e.Name())
		used := slices.ContainsFunc(strings.Split(e.Name(), ","), func(c string) bool { return slices.Contains(usedHierarchies, c) })
		if !used {
			// crun goes by the folders that there are, runc by the mounts
			if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("hide cgroups: %w", err)
			}
			continue
		}
		if e.IsDir() {
			kept[e.Name()], err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		} else {
			links[e.Name()], err = os.Readlink(path)
		}
		if err != nil {
			return fmt.Errorf("find cgroups: %w", err)
		}
	}
	if err := unix.Mount("cgroups", cgroupRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("hide cgroups: %w", err)
	}
	for name, fd := range kept {
		point := filepath.Join(cgroupRoot, name)
		if err := os.Mkdir(point, 0o755); err != nil {
			return fmt.Errorf("show cgroups: %w", err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), point, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show cgroups: %w", err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(cgroupRoot, name)); err != nil {
			return fmt.Errorf("show cgroups: %w", err)
		}
	}
	if err := unix.Mount("", cgroupRoot, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("show cgroups: %w", err)
	}
	return nil
}
