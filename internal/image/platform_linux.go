package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"golang.org/x/sys/unix"
)

// newSnapshotter opens the folders that layers are unpacked into.
func newSnapshotter(root string) (snapshots.Snapshotter, error) {
	return overlay.NewSnapshotter(root, overlay.WithUpperdirLabel)
}

// convertWhiteout turns an archive's whiteouts into overlayfs's.
func convertWhiteout(hdr *tar.Header, path string) (bool, error) {
	return archive.OverlayConvertWhiteout(hdr, path)
}

// syncFiles writes out the filesystem that holds path, so that what the
// database says of an image also holds after a power failure.
func syncFiles(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// mountScratch mounts a filesystem on dir for work that is thrown away: in
// memory when there is enough, else dir itself. Either way it is a mount of its
// own, so that unmountScratch also takes away what is mounted below it before
// anything is deleted there.
func mountScratch(dir string) error {
	const (
		enough = 6 << 30 // bytes of available memory below which the disk serves
		most   = "size=5g,mode=0755"
	)
	if availableMemory() >= enough && unix.Mount("tmpfs", dir, "tmpfs", 0, most) == nil {
		return nil
	}
	return unix.Mount(dir, dir, "", unix.MS_BIND, "")
}

// unmountScratch undoes mountScratch; it is no error when nothing is mounted.
func unmountScratch(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err == unix.EINVAL || err == unix.ENOENT || err == unix.EPERM && os.Geteuid() != 0 {
		return nil
	}
	return err
}

// availableMemory is what the kernel says can be used without swapping, in
// bytes; 0 when it does not say.
func availableMemory() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// freeSpace is how many bytes the filesystem of path has left for root.
func freeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bfree) * st.Bsize, nil
}

// outOfSpace tells whether err is a full disk or quota.
func outOfSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// processGroup lets a command start in a process group of its own.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// signalGroup signals a process started with processGroup and its descendants.
func signalGroup(p *os.Process, sig syscall.Signal) error { return unix.Kill(-p.Pid, sig) }

// lockFolder opens a folder and locks it against other processes and other
// openings of this one, until it is closed; a lock that is taken is waited for,
// or is an error.
func lockFolder(dir string, wait bool) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
	}
}
