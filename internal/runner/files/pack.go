package files

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/control"
)

// Archive is paths below the home, ready to be written as a tar.
type Archive struct {
	root  *os.Root
	items []item
}

// item is one path that was asked for.
type item struct {
	path string // below the root
	name string // what the entries' names begin with
	info fs.FileInfo
}

// Open finds paths, which are relative to the home or absolute and below it,
// and refuses what leaves the home, also by a link. The caller closes it.
func Open(home string, names ...string) (*Archive, error) {
	a := &Archive{}
	taken := map[string]bool{}
	for _, name := range names {
		root, clean, info, err := find(home, name)
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		if a.root == nil {
			a.root = root
		} else if err := root.Close(); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		base := path.Base(filepath.ToSlash(clean))
		if clean == "." {
			base = path.Base(filepath.ToSlash(home))
		}
		switch {
		case !info.Mode().IsRegular() && !info.IsDir():
			err = backendai.Errorf(backendai.CodeInvalidParams, "%q is neither a file nor a folder", name)
		case taken[base]:
			err = backendai.Errorf(backendai.CodeInvalidParams, "two of the paths end in %q", base).
				WithHint("one archive can hold only one of them: ask for each by itself")
		}
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		taken[base] = true
		a.items = append(a.items, item{path: clean, name: base, info: info})
	}
	return a, nil
}

// Close lets go of the home.
func (a *Archive) Close() error {
	if a.root == nil {
		return nil
	}
	return a.root.Close()
}

// Write writes the tar: each path, followed by what is below it. Links stay
// links, holes stay holes, modes and times are kept. What is neither file,
// folder nor link is left out, and so is what vanishes or may not be read on
// the way: a global header with the record [control.PAXSkipped] tells each.
func (a *Archive) Write(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, bufferSize)
	p := &packer{ctx: ctx, out: out, tar: tar.NewWriter(out), buffer: make([]byte, bufferSize)}
	for _, i := range a.items {
		if err := p.add(a.root, i.path, i.name, i.info, 0); err != nil {
			return err
		}
	}
	if more := p.skipped - control.MaxSkipped; more > 0 {
		if err := p.tell(fmt.Sprintf("and %d more", more)); err != nil {
			return err
		}
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// packer writes one archive.
type packer struct {
	ctx     context.Context //nolint:containedctx // of the one call that makes and ends the packer
	out     io.Writer       // where tar writes
	tar     *tar.Writer
	buffer  []byte
	skipped int
}

// add packs what has the name file in a folder.
func (p *packer) add(in *os.Root, file, name string, info fs.FileInfo, depth int) error {
	switch {
	case p.ctx.Err() != nil:
		return p.ctx.Err()
	case depth > maxDepth:
		return p.skip(name, fmt.Errorf("folders are nested more than %d deep", maxDepth))
	case info.IsDir():
		return p.addFolder(in, file, name, info, depth)
	case info.Mode().IsRegular():
		return p.addFile(in, file, name)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := in.Readlink(file)
		if err != nil {
			return p.skip(name, err)
		}
		h := header(name, info)
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return p.tar.WriteHeader(h)
	default:
		return p.skip(name, errors.New("it is "+kind(info.Mode())))
	}
}

func (p *packer) addFolder(in *os.Root, file, name string, info fs.FileInfo, depth int) error {
	h := header(name+"/", info)
	h.Typeflag = tar.TypeDir
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	below, err := in.OpenRoot(file)
	if err != nil {
		return p.skip(name, err)
	}
	defer below.Close()
	folder, err := below.Open(".")
	if err != nil {
		return p.skip(name, err)
	}
	defer folder.Close()
	for {
		entries, err := folder.ReadDir(batch)
		for _, e := range entries {
			info, err := below.Lstat(e.Name())
			if err == nil {
				err = p.add(below, e.Name(), name+"/"+e.Name(), info, depth+1)
			} else {
				err = p.skip(name+"/"+e.Name(), err)
			}
			if err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || err == nil && len(entries) == 0:
			return nil
		case err != nil:
			return p.skip(name, err)
		}
	}
}

func (p *packer) addFile(in *os.Root, file, name string) error {
	f, info, err := openFile(in, file)
	if err != nil {
		return p.skip(name, err)
	}
	defer f.Close()
	if parts := segments(f, info); parts != nil {
		return p.addSparse(f, name, info, parts)
	}
	h := header(name, info)
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	return p.copy(f, name, h.Size)
}

// copy moves n bytes of f. What it has become too short for is filled up, since
// its size is told already.
func (p *packer) copy(f io.Reader, name string, n int64) error {
	done, err := io.CopyBuffer(plainWriter{p.tar}, io.LimitReader(contextReader{p.ctx, f}, n), p.buffer)
	if err == nil {
		_, err = io.CopyBuffer(plainWriter{p.tar}, io.LimitReader(zeros{}, n-done), p.buffer)
	}
	if err != nil {
		return fmt.Errorf("archive %q: %w", name, err)
	}
	return nil
}

// skip goes on without what the filesystem does not give, and tells.
func (p *packer) skip(name string, why error) error {
	if p.skipped++; p.skipped > control.MaxSkipped {
		return nil
	}
	if errors.Is(why, fs.ErrNotExist) {
		why = errors.New("it vanished")
	}
	return p.tell(name + ": " + reason(why).Error())
}

func (p *packer) tell(text string) error {
	return p.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{control.PAXSkipped: text},
	})
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

// plainWriter has no ReadFrom, so that the buffer at hand is used.
type plainWriter struct{ io.Writer }

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // as of its packer
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
