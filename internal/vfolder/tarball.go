package vfolder

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"backendai"
	"backendai/internal/archive"
)

// maxNames bounds the names that one request gives, in bytes.
const maxNames = 64 << 20

// inMemory is how large a file may be to be read before its entry is begun, so
// that the entry is right even when the file is being written.
const inMemory = 1 << 20

// eachName visits texts that end in zero bytes.
func eachName(r io.Reader, visit func(n int, text string) error) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxNames))
	lines.Buffer(nil, 2*maxPath+64)
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, 0); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	})
	for n := 0; lines.Scan(); n++ {
		if err := visit(n, lines.Text()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return backendai.Errorf(backendai.CodeInvalidParams, "the names did not arrive whole: %w", err)
	}
	return nil
}

// serveTar writes the tree of a token, or what of it the body names, as a stream.
func (s *Service) serveTar(w http.ResponseWriter, r *http.Request, o *opened) error {
	var names []string
	if r.Method == http.MethodPost {
		err := eachName(steadyBody{http.NewResponseController(w), r.Body}, func(_ int, name string) error {
			clean, err := o.path(cmp.Or(name, "."))
			names = append(names, clean)
			return err
		})
		if err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", archive.MediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(steady{w, http.NewResponseController(w)}, blockSize)
	a := archive.NewWriter(out)
	add := func(n node) error { return addEntry(r.Context(), a, n) }
	if names == nil {
		roots := o.Files
		if len(roots) == 0 {
			roots = []string{o.Path}
		}
		for _, name := range roots {
			if err := o.walk(r.Context(), name, add); err != nil {
				return err
			}
		}
	}
	if err := o.each(r.Context(), names, add); err != nil {
		return err
	}
	return errors.Join(a.Close(), out.Flush())
}

// each visits things by their names, without what is in them. What has gone is
// passed over: whoever asked finds that it did not come.
func (o *opened) each(ctx context.Context, names []string, visit func(node) error) error {
	parents := directories{}
	defer parents.close()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, err := parents.open(o.root, path.Dir(name))
		if err != nil {
			continue
		}
		n, err := look(dir, path.Base(name))
		if err != nil {
			continue
		}
		n.path = name
		if err := visit(n); err != nil {
			return err
		}
	}
	return nil
}

// addEntry writes one thing to a stream. What cannot be in one is left out:
// pipes, sockets, and links that lead out of the folder.
func addEntry(ctx context.Context, a *archive.Writer, n node) error {
	switch {
	case n.mode.IsDir():
		return a.WriteHeader(archive.Header(n.path, n, ""))
	case n.mode&fs.ModeSymlink != 0:
		link, err := readLinkAt(n.parent, n.name)
		if err != nil || archive.CheckLink(n.path, link) != nil {
			return nil
		}
		return a.WriteHeader(archive.Header(n.path, n, link))
	case !n.mode.IsRegular():
		return nil
	}
	f, err := openAt(n.parent, n.name, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	h := archive.Header(n.path, info, "")
	var content io.Reader = contextReader{ctx, f}
	if h.Size <= inMemory {
		all, err := io.ReadAll(io.LimitReader(f, inMemory+1))
		if err != nil {
			return nil
		}
		h.Size, content = int64(len(all)), bytes.NewReader(all)
	}
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	sent, err := io.Copy(a, io.LimitReader(content, h.Size))
	if err == nil && sent < h.Size {
		err = fmt.Errorf("%q became shorter while it was sent", n.path)
	}
	return err
}

// serveZip writes the tree of a token, or the files that it names, as a zip.
func (s *Service) serveZip(w http.ResponseWriter, r *http.Request, o *opened) error {
	name := path.Base(o.Path)
	if o.Path == "." || len(o.Files) > 0 {
		name = o.view.Name
	}
	name = cmp.Or(o.Name, strings.TrimPrefix(name, ".")+".zip")
	attachment(w, name)
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	z := zip.NewWriter(steady{w, http.NewResponseController(w)})
	roots := o.Files
	if len(roots) == 0 {
		roots = []string{o.Path}
	}
	for _, root := range roots {
		above := path.Dir(root)
		err := o.walk(r.Context(), root, func(n node) error {
			n.path = strings.TrimPrefix(n.path, above+"/")
			return addZipped(r.Context(), z, n)
		})
		if err != nil {
			return err
		}
	}
	return z.Close()
}

func addZipped(ctx context.Context, z *zip.Writer, n node) error {
	h, err := zip.FileInfoHeader(n)
	if err != nil {
		return err
	}
	h.Name, h.Method = n.path, zip.Deflate
	var content io.Reader = strings.NewReader("")
	switch {
	case n.mode.IsDir():
		h.Name, h.Method = n.path+"/", zip.Store
	case n.mode&fs.ModeSymlink != 0:
		link, err := readLinkAt(n.parent, n.name)
		if err != nil {
			return nil
		}
		content = strings.NewReader(link)
	case n.mode.IsRegular():
		f, err := openAt(n.parent, n.name, 0)
		if err != nil {
			return nil
		}
		defer f.Close()
		content = contextReader{ctx, f}
	default:
		return nil
	}
	entry, err := z.CreateHeader(h)
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, content)
	return err
}
