package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"backendai"
)

// maxAccountFile bounds what is read of an image's passwd and group.
const maxAccountFile = 1 << 20

// frames are the layers that the engine puts on top of the layers of images: the
// accounts with the session's user, and every folder and file that something is
// mounted on. All sessions of an image share one, which is made for the first.
type frames struct {
	dir string
	mu  sync.Mutex // held while one is made
}

// frameFolders are the folders of a frame with the modes that they have when the
// image has no such folder.
var frameFolders = []struct {
	name string
	mode os.FileMode
}{
	{"etc", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"dev", 0o755}, {"tmp", 0o777 | os.ModeSticky},
	{"home", 0o755}, {"home/work", 0o755}, {"opt", 0o755}, {"opt/kernel", 0o755},
}

// mountedFiles are the empty files of a frame.
var mountedFiles = []string{"etc/hosts", "etc/hostname", "etc/resolv.conf", "opt/kernel/runner"}

// of gives the name and the folder of the frame for an image.
func (f *frames) of(digest string, layers []string) (name, dir string, err error) {
	zone, err := hostZone()
	if err != nil {
		return "", "", err
	}
	sum := sha256.New()
	for _, part := range []string{digest, string(zone)} {
		sum.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	name = hex.EncodeToString(sum.Sum(nil)[:16])
	dir = filepath.Join(f.dir, name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return name, dir, nil
	}
	next := dir + ".next"
	if err := os.RemoveAll(next); err != nil {
		return "", "", fmt.Errorf("remove unfinished frame: %w", err)
	}
	if err := buildFrame(next, layers, zone); err != nil {
		return "", "", errors.Join(err, os.RemoveAll(next))
	}
	if err := os.Rename(next, dir); err != nil {
		return "", "", errors.Join(fmt.Errorf("keep frame: %w", err), os.RemoveAll(next))
	}
	return name, dir, nil
}

// sweep removes the frames that are not in use.
func (f *frames) sweep(used map[string]bool) error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("list frames: %w", err)
	}
	for _, entry := range entries {
		if used[entry.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.dir, entry.Name())); err != nil {
			return fmt.Errorf("remove frame: %w", err)
		}
	}
	return nil
}

// buildFrame makes a frame. The image is a stranger's: whatever its files are,
// nothing outside its root is read.
func buildFrame(dir string, layers []string, zone []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make frame: %w", err)
	}
	// an overlay without an upper layer has two others at least
	empty := dir + "/dev"
	if err := os.Mkdir(empty, 0o755); err != nil {
		return fmt.Errorf("make frame: %w", err)
	}
	image, err := lookInto(append(layers[:len(layers):len(layers)], empty))
	if err != nil {
		return err
	}
	defer image.Close()
	for _, folder := range frameFolders {
		if err := makeLike(image, dir, folder.name, folder.mode); err != nil {
			return fmt.Errorf("make frame: %w", err)
		}
	}
	if err := os.Lchown(filepath.Join(dir, "home/work"), userID, userID); err != nil {
		return fmt.Errorf("make frame: %w", err)
	}
	passwd, err := readSmall(image, "etc/passwd")
	if err != nil {
		return err
	}
	group, err := readSmall(image, "etc/group")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"etc/passwd": mergePasswd(passwd, findShell(image)),
		"etc/group":  mergeGroup(group),
	}
	if len(zone) > 0 {
		files["etc/localtime"] = zone
	}
	for _, name := range mountedFiles {
		files[name] = nil
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("make frame: %w", err)
		}
	}
	return nil
}

// makeLike makes a folder of a frame, with owner and mode of the image's if it
// has one. What is a link or a file there makes way.
func makeLike(image *os.Root, dir, name string, mode os.FileMode) error {
	target := filepath.Join(dir, name)
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	uid, gid := 0, 0
	if info, err := image.Lstat(name); err == nil && info.IsDir() && name != "tmp" {
		mode = info.Mode().Perm() | info.Mode()&os.ModeSticky
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	if err := os.Lchown(target, uid, gid); err != nil {
		return err
	}
	return os.Chmod(target, mode)
}

// lookInto opens the root that layers make up, for reading. It is mounted
// nowhere and ends when it is closed.
func lookInto(layers []string) (*os.Root, error) {
	mount, err := makeOverlay(layers)
	if errors.Is(err, errTextOnly) {
		return lookIntoByText(layers)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount) // the root has its own
	return openMount(mount)
}

func lookIntoByText(layers []string) (*os.Root, error) {
	dir, err := os.MkdirTemp("", "backend.ai-")
	if err != nil {
		return nil, fmt.Errorf("look into image: %w", err)
	}
	defer os.Remove(dir)
	if err := mountOverlayByText(layers, "", "", dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return root, errors.Join(err, unmount(dir))
}

func openMount(mount int) (*os.Root, error) {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(mount))
	if err != nil {
		return nil, fmt.Errorf("look into image: %w", err)
	}
	return root, nil
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

// hostZone reads the host's local time zone; a host without one has none.
func hostZone() ([]byte, error) {
	b, err := os.ReadFile("/etc/localtime")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's time zone: %w", err)
	}
	return b, nil
}
