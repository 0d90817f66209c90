package vfolder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep directories may be nested below a folder: each level
// costs a descriptor while a tree is walked.
const maxDepth = 512

// walk visits what is below an open directory, each directory before what is in
// it, and follows no link, whatever happens to the names meanwhile. What
// vanishes on the way, or cannot be read, is passed over.
func walk(ctx context.Context, dir *os.File, visit func(node) error) error {
	return walkBelow(ctx, dir, "", 0, visit)
}

func walkBelow(ctx context.Context, dir *os.File, below string, depth int, visit func(node) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%q: directories are nested more than %d deep", shorten(below), maxDepth)
	}
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, statErr := look(dir, name)
			if statErr != nil {
				continue
			}
			n.path = path.Join(below, name)
			if err := visit(n); err != nil {
				if errors.Is(err, fs.SkipDir) {
					continue
				}
				return err
			}
			if !n.mode.IsDir() {
				continue
			}
			sub, openErr := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
			if openErr != nil {
				continue
			}
			err := walkBelow(ctx, sub, n.path, depth+1, visit)
			sub.Close()
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return nil // the directory vanished, or its file system is ill; what was seen counts
		}
	}
}

// look describes a name in an open directory; a link is not followed.
func look(dir *os.File, name string) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return node{}, err
	}
	return node{
		name: name, parent: dir, mode: fileMode(st.Mode), size: st.Size, inode: st.Ino, links: uint64(st.Nlink), //nolint:unconvert // not 64 bits on every architecture
		modified: time.Unix(st.Mtim.Unix()), changed: time.Unix(st.Ctim.Unix()),
	}, nil
}

func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	return mode
}

// openAt opens a name in an open directory; it follows no link and waits for no
// other end of a pipe.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// renameAt moves a name from one open directory to another and replaces what is
// there. Neither name is followed when it is a link.
func renameAt(from *os.File, name string, to *os.File, target string) error {
	if err := unix.Renameat(int(from.Fd()), name, int(to.Fd()), target); err != nil {
		return &os.LinkError{Op: "renameat", Old: name, New: target, Err: err}
	}
	return nil
}

// readLinkAt gives the target of a link in an open directory.
func readLinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlinkat", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// freeSpace is how many bytes a file system has left for others than root. In a
// folder it would be what the folder's quota has left, so it is asked of a host.
func freeSpace(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("ask the file system of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// openDir opens a directory below a root, and nothing that would block.
func openDir(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// openFile opens a regular file below a root, also when something that would
// block has just taken its place.
func openFile(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// renameNew moves a name below a root to another place where nothing is yet.
func renameNew(root *os.Root, from, to string) error {
	source, err := openDir(root, path.Dir(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openDir(root, path.Dir(to))
	if err != nil {
		return err
	}
	defer target.Close()
	err = unix.Renameat2(int(source.Fd()), path.Base(from), int(target.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system does not know the flag, or a directory goes into itself.
		if _, statErr := look(target, path.Base(to)); statErr == nil {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
		}
		return renameAt(source, path.Base(from), target, path.Base(to))
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// bootID tells one start of the machine from another.
var bootID = sync.OnceValue(func() []byte {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it all starts look the same
	sum := sha256.Sum256(text)
	return sum[:16]
})

// unsyncable tells whether a directory's file system cannot put it on the disk
// by itself, which network file systems need not.
func unsyncable(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP)
}

// createAt makes a file that nobody else can reach yet.
func createAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dress gives a file its owner, mode and time.
func dress(dir *os.File, name string, f *os.File, mode fs.FileMode, at time.Time) error {
	fd := int(f.Fd())
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, contentID, contentID); err != nil {
			return &fs.PathError{Op: "fchown", Path: name, Err: err}
		}
	}
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return &fs.PathError{Op: "fchmod", Path: name, Err: err}
	}
	return timesAt(dir, name, at)
}

func timesAt(dir *os.File, name string, at time.Time) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	if err := unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

// symlinkAt makes a link with its owner and time.
func symlinkAt(target string, dir *os.File, name string, at time.Time) error {
	if err := unix.Symlinkat(target, int(dir.Fd()), name); err != nil {
		return &os.LinkError{Op: "symlinkat", Old: target, New: name, Err: err}
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchownat(int(dir.Fd()), name, contentID, contentID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "fchownat", Path: name, Err: err}
		}
	}
	return timesAt(dir, name, at)
}

// syncAll has everything on the disk that was written to a file system.
func syncAll(dir *os.File) error { return unix.Syncfs(int(dir.Fd())) }

// topOfTrees is FS_TOPDIR_FL of linux/fs.h.
const topOfTrees = 0x20000

// spread has ext4 put what is below each directory of a directory somewhere else
// on the disk. Near files that were deleted in the last minutes ext4 takes long to
// make new ones: it looks at each of them again, every time. Other file systems
// have no such thing, and need none.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topOfTrees)
	}
}
