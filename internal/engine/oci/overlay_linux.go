package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"backendai"
)

// mountOverlay puts layers, topmost first, and a fresh layer on top of them at
// target. The fresh layer is volatile: it is never synced to disk, which costs
// up to half a second at unmounting, because it never outlives a container.
func mountOverlay(layers []string, layer, target string) error {
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make overlay folder: %w", err)
		}
	}
	var mount int
	err := asUser(func() (err error) {
		mount, err = makeOverlay(layers, "upperdir", upper, "workdir", work)
		return err
	})
	if errors.Is(err, errTextOnly) {
		return asUser(func() error { return mountOverlayByText(layers, upper, work, target) })
	}
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// errTextOnly tells that the kernel takes all layers in one text only.
var errTextOnly = errors.New("layers cannot be given one by one")

// takesLayers tells whether the kernel takes layers one by one. An older one
// takes the option for a strange one of its own, and complains in its log.
var takesLayers = sync.OnceValue(func() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(name.Release[:]), 6, 8)
})

// atLeast tells whether a kernel's release, such as 6.1.0-56-amd64, is a version
// or a later one.
func atLeast(release string, major, minor int) bool {
	var is [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &is[0], &is[1]); n != len(is) {
		return false
	}
	return is[0] > major || is[0] == major && is[1] >= minor
}

// makeOverlay makes an overlay that is mounted nowhere yet. The options come in
// pairs; an upper layer is volatile.
func makeOverlay(layers []string, options ...string) (mount int, err error) {
	if !takesLayers() {
		return -1, errTextOnly
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlayfs: %w", err)
	}
	defer unix.Close(fd)
	for _, dir := range layers {
		if err := unix.FsconfigSetString(fd, "lowerdir+", dir); err != nil {
			return -1, fmt.Errorf("add layer %s: %w", dir, err)
		}
	}
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(fd, options[i], options[i+1]); err != nil {
			return -1, fmt.Errorf("set overlay %s: %w", options[i], err)
		}
	}
	if len(options) > 0 {
		if err := unix.FsconfigSetFlag(fd, "volatile"); err != nil {
			return -1, fmt.Errorf("set overlay volatile: %w", err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return -1, fmt.Errorf("make overlay of %d layers: %w", len(layers), err)
	}
	mount, err = unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return mount, nil
}

// mountOverlayByText is for kernels that take all layers in one line only,
// which has at most a page. Without an upper folder the overlay is read-only.
func mountOverlayByText(layers []string, upper, work, target string) error {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	lower := make([]string, len(layers))
	for i, dir := range layers {
		lower[i] = escape.Replace(dir)
	}
	options := "lowerdir=" + strings.Join(lower, ":")
	if upper != "" {
		options += ",upperdir=" + escape.Replace(upper) + ",workdir=" + escape.Replace(work) + ",volatile"
	}
	if len(options) >= os.Getpagesize() {
		return backendai.Errorf(backendai.CodeCreationFailed, "the image has too many layers (%d) for this kernel", len(layers)).
			WithHint("use Linux 6.8 or newer, or squash the image")
	}
	if err := unix.Mount("overlay", target, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// asUser runs f on a thread whose file system user is the session's, with all
// capabilities of root. An overlay writes as whoever mounted it, and root, by its
// number alone, may use the blocks that a file system reserves for it: sessions
// must not be able to fill a disk to the last one.
func asUser(f func() error) error {
	runtime.LockOSThread() // ends with the goroutine unless unlocked below
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var rights [2]unix.CapUserData
	if err := unix.Capget(&header, &rights[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	setfsuid(userID)
	err := unix.Capset(&header, &rights[0]) // the change of user took some
	if err == nil {
		err = f()
	}
	setfsuid(0)
	if restored := unix.Capset(&header, &rights[0]); restored != nil {
		return errors.Join(err, fmt.Errorf("take back capabilities: %w", restored))
	}
	runtime.UnlockOSThread()
	return err
}

// setfsuid changes the user of this thread's file accesses, which for root never
// fails.
func setfsuid(uid uintptr) { _, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uid, 0, 0) }

// unmount removes whatever is mounted at dir; nothing mounted is no error. The
// mount goes lazily, so that no stray process can keep a session from ending.
func unmount(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}
