// Package files reads the session's files for transfers: always below the
// home, whatever links a user has put there.
package files

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"backendai"
)

// maxDepth bounds how deep folders may be nested.
const maxDepth = 256

// batch is how many entries of a folder are held in memory.
const batch = 256

// Archive is one path below the home, ready to be written as a tar.
type Archive struct {
	root *os.Root
	path string // below the root
	name string // what the entries' names begin with
	info fs.FileInfo
}

// Open finds a path, which is relative to the home or absolute and below it,
// and refuses what leaves the home, also by a link. The caller closes it.
func Open(home, name string) (*Archive, error) {
	clean := name
	if filepath.IsAbs(clean) {
		rel, err := filepath.Rel(home, clean)
		if err != nil {
			return nil, outside(name)
		}
		clean = rel
	}
	clean = filepath.Clean(clean)
	if !filepath.IsLocal(clean) {
		return nil, outside(name)
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	info, err := root.Stat(clean)
	if err != nil {
		root.Close()
		return nil, explain(name, err)
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		root.Close()
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "%q is neither a file nor a folder", name)
	}
	base := path.Base(filepath.ToSlash(clean))
	if clean == "." {
		base = path.Base(filepath.ToSlash(home))
	}
	return &Archive{root: root, path: clean, name: base, info: info}, nil
}

func outside(name string) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "%q is outside of the session's home", name).
		WithHint("paths are relative to the home")
}

// explain makes an error of the filesystem one for people.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return backendai.Errorf(backendai.CodeInvalidParams, "no such file: %q", name).
			WithHint("paths are relative to the session's home")
	case errors.Is(err, fs.ErrPermission):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q may not be read by the session's user", name)
	case errors.Is(err, syscall.ELOOP):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q is a link in a circle", name)
	case strings.Contains(err.Error(), "path escapes from parent"): // os.Root has no value for it
		return outside(name)
	default:
		return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be read: %w", name, err)
	}
}

// Close lets go of the home.
func (a *Archive) Close() error { return a.root.Close() }

// Write writes the tar: the path itself, followed by what is below it. Links
// stay links; what is neither file, folder nor link is left out, and so is what
// vanishes or may not be read on the way. Modes and times are kept.
func (a *Archive) Write(ctx context.Context, w io.Writer) error {
	t := tar.NewWriter(w)
	if err := a.add(ctx, t, a.path, a.name, a.info, 0); err != nil {
		return err
	}
	return t.Close()
}

func (a *Archive) add(ctx context.Context, t *tar.Writer, file, name string, info fs.FileInfo, depth int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case depth > maxDepth:
		return fmt.Errorf("archive %q: folders are nested more than %d deep", name, maxDepth)
	case info.IsDir():
		return a.addFolder(ctx, t, file, name, info, depth)
	case info.Mode().IsRegular():
		return a.addFile(t, file, name)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := a.root.Readlink(file)
		if err != nil {
			return skip(err)
		}
		h := header(name, info)
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return t.WriteHeader(h)
	default:
		return nil
	}
}

func (a *Archive) addFolder(ctx context.Context, t *tar.Writer, file, name string, info fs.FileInfo, depth int) error {
	h := header(name+"/", info)
	h.Typeflag = tar.TypeDir
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	folder, err := a.root.Open(file)
	if err != nil {
		return skip(err)
	}
	defer folder.Close()
	for {
		entries, err := folder.ReadDir(batch)
		for _, e := range entries {
			below := path.Join(file, e.Name())
			info, err := a.root.Lstat(below)
			if err != nil {
				continue
			}
			if err := a.add(ctx, t, below, name+"/"+e.Name(), info, depth+1); err != nil {
				return err
			}
		}
		if err != nil || len(entries) == 0 {
			return nil // the end, or a folder that vanished
		}
	}
}

func (a *Archive) addFile(t *tar.Writer, file, name string) error {
	// Not blocking: a FIFO may have taken the file's place since it was looked at.
	f, err := a.root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return skip(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return skip(err)
	}
	h := header(name, info)
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(t, f, h.Size)
	if errors.Is(err, io.EOF) {
		// It has become shorter; the header's size is told already.
		_, err = io.CopyN(t, zeros{}, h.Size-n)
	}
	if err != nil {
		return fmt.Errorf("archive %q: %w", name, err)
	}
	return nil
}

// skip lets an archive go on without what the filesystem does not give.
func skip(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil
	}
	return err
}

// header has what all entries have. Whole seconds keep it in the oldest format,
// which every reader knows.
func header(name string, info fs.FileInfo) *tar.Header {
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(s.Uid), int(s.Gid)
	}
	return h
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
