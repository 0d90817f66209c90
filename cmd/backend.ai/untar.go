package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// untar unpacks an archive that comes out of a session below root. Files,
// folders and symbolic links are made; other things are refused, and so is
// every path that leaves root, be it through a link.
func untar(root *os.Root, archive io.Reader) error {
	// Modes and times of folders are set last, for what is in them to be made.
	type folder struct {
		name string
		mode fs.FileMode
		at   time.Time
	}
	var folders []folder
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if !filepath.IsLocal(filepath.FromSlash(path.Clean(h.Name))) {
			return fmt.Errorf("the archive has the path %q, which leads out of the folder", h.Name)
		}
		name := filepath.FromSlash(path.Clean(h.Name))
		mode := h.FileInfo().Mode().Perm()
		if err := makeParents(root, name); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = makeFolder(root, name)
			folders = append(folders, folder{name, mode, h.ModTime})
		case tar.TypeReg:
			err = writeFile(root, name, mode, h.ModTime, r)
		case tar.TypeSymlink:
			if !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(h.Name), h.Linkname))) || path.IsAbs(h.Linkname) {
				return fmt.Errorf("the archive has the link %q, which leads out of the folder", h.Name)
			}
			if err = remove(root, name); err == nil {
				err = root.Symlink(filepath.FromSlash(h.Linkname), name)
			}
		default:
			return fmt.Errorf("the archive has %q, which is neither a file nor a folder nor a link", h.Name)
		}
		if err != nil {
			return err
		}
	}
	for i := len(folders) - 1; i >= 0; i-- {
		f := folders[i]
		if err := errors.Join(root.Chmod(f.name, f.mode), root.Chtimes(f.name, f.at, f.at)); err != nil {
			return err
		}
	}
	return nil
}

func makeParents(root *os.Root, name string) error {
	parent := filepath.Dir(name)
	if parent == "." {
		return nil
	}
	if err := root.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return nil
}

func makeFolder(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	err := root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, statErr := root.Lstat(name); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// writeFile makes a file anew, so that a link of its name is not followed and
// its content is never readable by more than its mode allows.
func writeFile(root *os.Root, name string, mode fs.FileMode, at time.Time, content io.Reader) error {
	if err := remove(root, name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode&0o700|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close(), root.Chmod(name, mode), root.Chtimes(name, at, at))
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
