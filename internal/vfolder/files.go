package vfolder

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"backendai"
)

// maxList bounds the entries of one directory in a list.
const maxList = 100_000

// File is one entry of a directory.
type File struct {
	Name     string
	Mode     fs.FileMode
	Size     int64
	Modified time.Time
	Changed  time.Time // of its data or its attributes, which is as near to a time of creation as all file systems come
}

// Type is the protocol's name of what the entry is.
func (f File) Type() string {
	switch {
	case f.Mode.IsDir():
		return "DIRECTORY"
	case f.Mode&fs.ModeSymlink != 0:
		return "SYMLINK"
	default:
		return "FILE"
	}
}

// within opens the files of a folder for a caller who has the permission.
func (s *Service) within(ctx context.Context, caller backendai.Caller, ref string, need backendai.Permission, do func(View, *os.Root) error) error {
	v, err := s.usable(ctx, caller, ref, need)
	if err != nil {
		return err
	}
	root, err := s.content(ctx, v)
	if err != nil {
		return err
	}
	defer root.Close()
	return do(v, root)
}

// Files lists a directory by name; of a file it gives the one entry.
func (s *Service) Files(ctx context.Context, caller backendai.Caller, ref, name string) (files []File, err error) {
	clean, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	err = s.within(ctx, caller, ref, backendai.ReadOnly, func(v View, root *os.Root) error {
		info, err := root.Stat(clean)
		if err != nil {
			return explain(v.Name, name, err)
		}
		if !info.IsDir() {
			files = []File{{Name: path.Base(clean), Mode: info.Mode(), Size: info.Size(), Modified: info.ModTime(), Changed: info.ModTime()}}
			return nil
		}
		dir, err := openDir(root, clean)
		if err != nil {
			return explain(v.Name, name, err)
		}
		defer dir.Close()
		if files = list(dir); len(files) > maxList {
			return backendai.Errorf(backendai.CodeInvalidParams, "%q in the folder %q has more than %d entries", clean, v.Name, maxList).
				WithHint("list it from a session that mounts the folder")
		}
		return nil
	})
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return files, err
}

// list reads an open directory, up to one entry more than maxList.
func list(dir *os.File) []File {
	var files []File
	for len(files) <= maxList {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			n, err := look(dir, name)
			if err != nil {
				continue // it has gone meanwhile
			}
			files = append(files, File{Name: name, Mode: n.mode, Size: n.size, Modified: n.modified, Changed: n.changed})
		}
		if err != nil || len(names) == 0 {
			break // the end, or a directory that has gone
		}
	}
	return files
}

// Mkdir makes directories. With parents also those above them; with existOK one
// that is there is as good. Failed tells what is wrong with each that was not made.
func (s *Service) Mkdir(ctx context.Context, caller backendai.Caller, ref string, names []string, parents, existOK bool) (made []string, failed map[string]error, err error) {
	failed = map[string]error{}
	err = s.within(ctx, caller, ref, backendai.ReadWrite, func(v View, root *os.Root) error {
		for _, name := range names {
			if err := mkdir(root, v, name, parents, existOK); err != nil {
				failed[name] = err
				continue
			}
			made = append(made, name)
		}
		return nil
	})
	return made, failed, err
}

func mkdir(root *os.Root, v View, name string, parents, existOK bool) error {
	clean, err := cleanFile(name)
	if err != nil {
		return err
	}
	if parents {
		if err := makeDirs(root, path.Dir(clean)); err != nil {
			return explain(v.Name, name, err)
		}
	}
	err = makeOne(root, clean)
	if errors.Is(err, fs.ErrExist) && existOK {
		if info, statErr := root.Stat(clean); statErr == nil && info.IsDir() {
			return nil
		}
	}
	if err != nil {
		return explain(v.Name, name, err)
	}
	return nil
}

// makeDirs makes a directory and those above it, as far as they are missing.
func makeDirs(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	info, err := root.Stat(name)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDirs(root, path.Dir(name)); err != nil {
		return err
	}
	if err := makeOne(root, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func makeOne(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return own(root, name)
}

// Move gives a file or directory another place in the folder, or moves it into
// the directory of that name. It replaces nothing.
func (s *Service) Move(ctx context.Context, caller backendai.Caller, ref, src, dst string) error {
	from, err := cleanFile(src)
	if err != nil {
		return err
	}
	to, err := cleanPath(dst)
	if err != nil {
		return err
	}
	return s.within(ctx, caller, ref, backendai.ReadWrite, func(v View, root *os.Root) error {
		if _, err := root.Lstat(from); err != nil {
			return explain(v.Name, src, err)
		}
		if info, err := root.Stat(to); err == nil && info.IsDir() {
			to = path.Join(to, path.Base(from))
		}
		if to == from || len(to) > len(from) && to[:len(from)+1] == from+"/" {
			return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be moved into itself", src)
		}
		return explainRename(v.Name, src, to, renameNew(root, from, to))
	})
}

// RenameFile gives a file or directory another name in the same directory.
func (s *Service) RenameFile(ctx context.Context, caller backendai.Caller, ref, target, name string) error {
	from, err := cleanFile(target)
	if err != nil {
		return err
	}
	if name, err = cleanName(name); err != nil {
		return err
	}
	to := path.Join(path.Dir(from), name)
	return s.within(ctx, caller, ref, backendai.ReadWrite, func(v View, root *os.Root) error {
		if _, err := root.Lstat(from); err != nil {
			return explain(v.Name, target, err)
		}
		if to == from {
			return nil
		}
		return explainRename(v.Name, target, to, renameNew(root, from, to))
	})
}

func explainRename(folder, from, to string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return explain(folder, to, err)
	case errors.Is(err, syscall.EINVAL):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be moved into itself", from)
	case errors.Is(err, fs.ErrNotExist):
		return backendai.Errorf(backendai.CodeNotFound, "there is no directory %q in the folder %q, or %q has gone meanwhile", path.Dir(to), folder, from).
			WithHint("make the directory with 'backend.ai vfolder mkdir %s %s'", folder, path.Dir(to))
	default:
		return explain(folder, from, err)
	}
}

// Remove deletes files, and with recursive also directories and what is in them.
func (s *Service) Remove(ctx context.Context, caller backendai.Caller, ref string, names []string, recursive bool) error {
	clean := make([]string, len(names))
	for i, name := range names {
		var err error
		if clean[i], err = cleanFile(name); err != nil {
			return err
		}
	}
	return s.within(ctx, caller, ref, backendai.WriteDelete, func(v View, root *os.Root) error {
		defer s.usage.spoil(v.ID)
		for i, name := range clean {
			info, err := root.Lstat(name)
			if err != nil {
				return explain(v.Name, names[i], err)
			}
			if info.IsDir() && !recursive {
				return backendai.Errorf(backendai.CodeInvalidParams, "%q in the folder %q is a directory", names[i], v.Name).
					WithHint("-r deletes it with all that is in it")
			}
			if err := root.RemoveAll(name); err != nil {
				return explain(v.Name, names[i], err)
			}
		}
		return nil
	})
}

// maxOpenDirs bounds the directories that one request keeps open.
const maxOpenDirs = 64

// directories are open ones by their names, for requests that name many files of
// few directories.
type directories map[string]*os.File

// open opens a directory below a root, unless it is open already.
func (d directories) open(root *os.Root, name string) (*os.File, error) {
	if dir := d[name]; dir != nil {
		return dir, nil
	}
	dir, err := openDir(root, name)
	if err != nil {
		return nil, err
	}
	for other := range d {
		if len(d) < maxOpenDirs {
			break
		}
		d[other].Close()
		delete(d, other)
	}
	d[name] = dir
	return dir, nil
}

func (d directories) close() {
	for _, dir := range d {
		dir.Close()
	}
}
