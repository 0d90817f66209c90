package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"backendai"
)

// maxAccountFile bounds what is read of an image's passwd and group.
const maxAccountFile = 1 << 20

// mountOverlay puts the image's layers, topmost first, and a fresh layer on top
// of them at target. The fresh layer is volatile: it is never synced to disk,
// which costs up to half a second at unmounting, because it never outlives a
// container.
func mountOverlay(layers []string, layer, target string) error {
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make overlay folder: %w", err)
		}
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlayfs: %w", err)
	}
	defer unix.Close(fd)
	for _, dir := range layers {
		err := unix.FsconfigSetString(fd, "lowerdir+", dir)
		if errors.Is(err, unix.EINVAL) {
			return mountOverlayByText(layers, upper, work, target) // Linux before 6.8
		}
		if err != nil {
			return fmt.Errorf("add layer %s: %w", dir, err)
		}
	}
	for _, option := range [][2]string{{"upperdir", upper}, {"workdir", work}} {
		if err := unix.FsconfigSetString(fd, option[0], option[1]); err != nil {
			return fmt.Errorf("set overlay %s: %w", option[0], err)
		}
	}
	if err := unix.FsconfigSetFlag(fd, "volatile"); err != nil {
		return fmt.Errorf("set overlay volatile: %w", err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("make overlay of %d layers: %w", len(layers), err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(mount)
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// mountOverlayByText is for kernels that take all layers in one line only,
// which has at most a page.
func mountOverlayByText(layers []string, upper, work, target string) error {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	lower := make([]string, len(layers))
	for i, dir := range layers {
		lower[i] = escape.Replace(dir)
	}
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + escape.Replace(upper) +
		",workdir=" + escape.Replace(work) + ",volatile"
	if len(options) >= os.Getpagesize() {
		return backendai.Errorf(backendai.CodeCreationFailed, "the image has too many layers (%d) for this kernel", len(layers)).
			WithHint("use Linux 6.8 or newer, or squash the image")
	}
	if err := unix.Mount("overlay", target, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// identity is what a session's /etc says of it and its surroundings.
type identity struct {
	hostname string
	address  string // on the session's network; "" without one
	resolver resolver
	zone     []byte // the host's localtime
}

// writeEtc prepares the files in /etc of a mounted root. The image is a
// stranger's: whatever its /etc is, nothing outside the root is touched.
func writeEtc(rootfs string, who identity) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	if err := root.Mkdir("etc", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make etc: %w", err)
	}
	passwd, err := readSmall(root, "etc/passwd")
	if err != nil {
		return err
	}
	group, err := readSmall(root, "etc/group")
	if err != nil {
		return err
	}
	address := who.address
	if address == "" {
		address = "127.0.0.1"
	}
	files := map[string][]byte{
		"etc/passwd":      mergePasswd(passwd, findShell(root)),
		"etc/group":       mergeGroup(group),
		"etc/hostname":    []byte(who.hostname + "\n"),
		"etc/hosts":       []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + address + "\t" + who.hostname + "\n"),
		"etc/resolv.conf": []byte(who.resolver.file()),
	}
	if len(who.zone) > 0 {
		files["etc/localtime"] = who.zone
	}
	for name, content := range files {
		if err := replace(root, name, content); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file anew: what the image has under the name, be it a link,
// makes way.
func replace(root *os.Root, name string, content []byte) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the image's %s: %w", name, err)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), f.Close())
	}
	return f.Close()
}

// readSmall reads a regular file of the image; one that is missing, or is
// nothing that could be read, is empty.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccountFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the image's %s: %w", name, err)
	}
	if len(b) > maxAccountFile {
		return nil, backendai.Errorf(backendai.CodeCreationFailed, "the image's /%s is larger than %d bytes", name, maxAccountFile)
	}
	return b, nil
}

// findShell names the image's best shell. Links may lead out of the root's
// reach by absolute targets, so only the name itself is looked at.
func findShell(root *os.Root) string {
	for _, shell := range []string{"bin/bash", "usr/bin/bash", "bin/ash", "bin/sh"} {
		if _, err := root.Lstat(shell); err == nil {
			return "/" + shell
		}
	}
	return "/bin/sh"
}

// makeHome makes a session's home unless it is there.
func makeHome(dir string) (existed bool, err error) {
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, fs.ErrExist):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("make home: %w", err)
	}
	if err := os.Lchown(dir, userID, userID); err != nil {
		return false, fmt.Errorf("give home to its user: %w", err)
	}
	return false, nil
}

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
