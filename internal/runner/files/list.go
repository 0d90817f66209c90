package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"
	"unicode/utf8"

	"backendai/internal/control"
)

// List finds a path and tells of it: itself first, with the absolute path as
// its name, then, of a folder, what is in it, in no order, at most
// [control.MaxEntries]; more tells that there are others. It ends early when
// yield returns an error, which it gives back.
func List(home, name string, yield func(control.Entry) error) (more bool, err error) {
	root, clean, info, err := find(home, name)
	if err != nil {
		return false, err
	}
	defer root.Close()
	self := describe(path.Join(filepath.ToSlash(home), clean), info)
	if !info.IsDir() {
		return false, yield(self)
	}
	below, err := root.OpenRoot(clean)
	if err != nil {
		return false, explain(name, err)
	}
	defer below.Close()
	folder, err := below.Open(".")
	if err != nil {
		return false, explain(name, err)
	}
	defer folder.Close()
	if err := yield(self); err != nil {
		return false, err
	}
	for count := 0; ; {
		entries, err := folder.ReadDir(batch)
		for _, e := range entries {
			info, err := below.Lstat(e.Name())
			if err != nil {
				continue // gone
			}
			if count++; count > control.MaxEntries {
				return true, nil
			}
			entry := describe(e.Name(), info)
			if info.Mode()&fs.ModeSymlink != 0 {
				entry.Target, _ = below.Readlink(e.Name()) // gone, too, or as it is
			}
			if err := yield(entry); err != nil {
				return false, err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || err == nil && len(entries) == 0:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("list %q: %w", name, reason(err))
		}
	}
}

// describe is what is told of a file.
func describe(name string, info fs.FileInfo) control.Entry {
	e := control.Entry{
		Name: name, Type: control.TypeOther, Size: info.Size(), Mode: uint32(info.Mode().Perm()), Modified: info.ModTime().UTC(),
	}
	if !utf8.ValidString(name) {
		e.Raw = []byte(name)
	}
	switch {
	case info.Mode().IsRegular():
		e.Type = control.TypeFile
	case info.IsDir():
		e.Type = control.TypeFolder
	case info.Mode()&fs.ModeSymlink != 0:
		e.Type = control.TypeLink
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		e.Mode = s.Mode & 0o7777
		e.Changed = time.Unix(s.Ctim.Unix()).UTC()
		e.Accessed = time.Unix(s.Atim.Unix()).UTC()
	}
	return e
}

// Sum is the SHA-256 of the first length bytes of a regular file, or of all of
// it when length is negative or beyond its end; size is how many bytes that were.
func Sum(ctx context.Context, home, name string, length int64) (sum []byte, size int64, err error) {
	f, _, err := Read(home, name, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	content := io.Reader(contextReader{ctx, f})
	if length >= 0 {
		content = io.LimitReader(content, length)
	}
	h := sha256.New()
	if size, err = io.CopyBuffer(h, content, make([]byte, bufferSize)); err != nil {
		return nil, 0, explain(name, err)
	}
	return h.Sum(nil), size, nil
}

// Read opens a regular file at an offset and tells of it. The caller closes it.
func Read(home, name string, offset int64) (*os.File, control.Entry, error) {
	root, clean, _, err := find(home, name)
	if err != nil {
		return nil, control.Entry{}, err
	}
	defer root.Close()
	f, info, err := openFile(root, clean)
	if err != nil {
		return nil, control.Entry{}, explain(name, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, control.Entry{}, errors.Join(explain(name, err), f.Close())
	}
	return f, describe(path.Base(filepath.ToSlash(clean)), info), nil
}
