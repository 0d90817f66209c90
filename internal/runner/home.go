package runner

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"backendai/internal/control"
)

// writeFiles writes files below the home. None goes outside, and no link is
// followed: a link in the place of a file is replaced, one in the place of a
// folder is an error. All are tried; the errors are joined.
func writeFiles(home string, files []control.File) error {
	root, err := os.OpenRoot(home)
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	defer root.Close()
	var errs []error
	for _, f := range files {
		if err := writeFile(root, f); err != nil {
			errs = append(errs, fmt.Errorf("write %q: %w", f.Path, err))
		}
	}
	return errors.Join(errs...)
}

func writeFile(root *os.Root, f control.File) error {
	name := filepath.Clean(f.Path)
	if !filepath.IsLocal(name) || name == "." {
		return errors.New("it is not below the home")
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	// Beside the place and then over it, so that nobody sees half a file.
	temp := path.Join(path.Dir(name), "."+rand.Text())
	out, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Data)
	if err == nil {
		err = out.Chmod(fs.FileMode(f.Mode).Perm())
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}

// makeFolders makes a folder and those above it, through no link.
func makeFolders(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if err := makeFolders(root, path.Dir(dir)); err != nil {
		return err
	}
	mode := fs.FileMode(0o755)
	if path.Base(dir) == ".ssh" {
		mode = 0o700
	}
	if err := root.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is not a folder", dir)
	}
	return nil
}
