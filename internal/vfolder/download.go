package vfolder

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"backendai"
	"backendai/internal/archive"
)

// maxTokenFiles bounds the names in a token, in bytes: it travels in an address.
const maxTokenFiles = 8 << 10

// DownloadRequest is what is to be fetched.
type DownloadRequest struct {
	Path    string
	Archive bool     // a directory, or a file, as an archive
	Files   []string // instead of Path: several things in one archive
	Name    string   // of the archive
}

// RequestDownload gives a token to fetch a file or an archive.
func (s *Service) RequestDownload(ctx context.Context, caller backendai.Caller, ref string, req DownloadRequest) (token string, err error) {
	c := claims{Op: opDownload, User: caller.User.ID, Key: caller.Keypair.AccessKey, Archive: req.Archive || len(req.Files) > 0, Name: req.Name}
	if c.Path, err = cleanPath(req.Path); err != nil {
		return "", err
	}
	size := 0
	for _, name := range req.Files {
		clean, err := cleanFile(name)
		if err != nil {
			return "", err
		}
		c.Files = append(c.Files, clean)
		size += len(clean)
	}
	if size > maxTokenFiles {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "the names of %d files are too much for one archive", len(req.Files)).
			WithHint("ask for the directory that they are in")
	}
	if c.Name != "" {
		if c.Name, err = cleanName(c.Name); err != nil {
			return "", err
		}
	}
	err = s.within(ctx, caller, ref, backendai.ReadOnly, func(v View, root *os.Root) error {
		c.Volume, c.Folder = v.Host, v.Hex()
		names := c.Files
		if len(names) == 0 {
			names = []string{c.Path}
		}
		for _, name := range names {
			info, err := root.Stat(name)
			if err != nil {
				return explain(v.Name, name, err)
			}
			if info.IsDir() && !c.Archive {
				return backendai.Errorf(backendai.CodeInvalidParams, "%q in the folder %q is a directory", name, v.Name).
					WithHint("a directory goes as an archive")
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.sign(c)
}

// opened is a download on its way.
type opened struct {
	claims

	view View
	root *os.Root
}

// open checks a token for downloads. The caller closes the root.
func (s *Service) open(ctx context.Context, token string) (*opened, error) {
	c, err := s.verify(token, opDownload)
	if err != nil {
		return nil, err
	}
	v, err := s.holder(ctx, c, backendai.ReadOnly)
	if err != nil {
		return nil, err
	}
	root, err := s.content(ctx, v)
	if err != nil {
		return nil, err
	}
	return &opened{c, v, root}, nil
}

// path is what of the token's tree a request is for.
func (o *opened) path(below string) (string, error) {
	if below == "" || !o.Archive {
		return o.Path, nil
	}
	clean, err := cleanPath(below)
	if err != nil {
		return "", err
	}
	if o.Path != "." && clean != o.Path && !strings.HasPrefix(clean, o.Path+"/") || len(o.Files) > 0 {
		return "", backendai.Errorf(backendai.CodeForbidden, "the token of this address is not for %q", shorten(clean))
	}
	return clean, nil
}

// ServeDownload answers with the file of a token, or with a part of it; of a
// token for a tree it gives an archive, or the file that the query names "path".
// The archive is a zip, or with "format=tar" the stream of package archive, of
// what the body of a POST names (each name ends in a zero byte) or of all. A file
// is followed by its hash when the request has "Want-Repr-Digest: xxh64-tree=1".
func (s *Service) ServeDownload(w http.ResponseWriter, r *http.Request, token string) error {
	o, err := s.open(r.Context(), token)
	if err != nil {
		return err
	}
	defer o.root.Close()
	q := r.URL.Query()
	below := q.Get("path")
	switch {
	case o.Archive && below == "" && q.Get("format") == "tar":
		return s.serveTar(w, r, o)
	case o.Archive && below == "":
		return s.serveZip(w, r, o)
	}
	name, err := o.path(below)
	if err != nil {
		return err
	}
	f, info, err := openFile(o.root, name)
	if err != nil {
		return explain(o.view.Name, name, err)
	}
	defer f.Close()
	attachment(w, path.Base(name))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", tag(info))
	w.Header().Set("Cache-Control", "no-store")
	out := steady{w, http.NewResponseController(w)}
	if !wantsTree(r) {
		http.ServeContent(out, r, "", info.ModTime(), f)
		return nil
	}
	hashed, answer := newPassing(f, info.Size()), &trailing{steady: out}
	http.ServeContent(answer, r, "", info.ModTime(), hashed)
	if answer.announced {
		w.Header().Set(archive.ReprDigest, hashed.digest(r.Context(), info))
		out.extend()
	}
	return nil
}

// tag tells one state of a file from another.
func tag(info fs.FileInfo) string {
	return fmt.Sprintf(`"%x-%x"`, info.Size(), info.ModTime().UnixNano())
}

// attachment tells a browser to keep what it gets as a file of that name.
func attachment(w http.ResponseWriter, name string) {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	value := mime.FormatMediaType("attachment", map[string]string{"filename": plain})
	w.Header().Set("Content-Disposition", value+"; filename*=UTF-8''"+url.PathEscape(name))
}

// steady writes an answer that may be as long as it likes, as long as its
// reader takes a bit of it now and then. A plain file goes by the kernel.
type steady struct {
	http.ResponseWriter

	rc *http.ResponseController
}

// steadyStep is how much must go within the time of silence.
const steadyStep = 4 << 20

func (w steady) extend() { _ = w.rc.SetWriteDeadline(time.Now().Add(silence)) } // what has no deadlines belongs to a test

// Write implements io.Writer.
func (w steady) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w steady) ReadFrom(r io.Reader) (n int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: 1 << 62}
	}
	if _, ok := limited.R.(*os.File); !ok {
		block := blocks.Get().([]byte) //nolint:forcetypeassert // the pool has nothing else
		defer blocks.Put(block)        //nolint:staticcheck // its header is small against what it holds
		return io.CopyBuffer(struct{ io.Writer }{w}, limited, block)
	}
	for limited.N > 0 {
		w.extend()
		step := min(limited.N, steadyStep)
		got, err := io.Copy(w.ResponseWriter, &io.LimitedReader{R: limited.R, N: step})
		n += got
		limited.N -= got
		if err != nil || got < step {
			return n, err
		}
	}
	return n, nil
}

// Unwrap lets http.ResponseController reach the connection.
func (w steady) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Checksum is the hash of a file (archive.Tree), with what tells its state.
type Checksum struct {
	Hash string `json:"xxh64-tree"` // hexadecimal
	Size int64  `json:"size"`
	Tag  string `json:"etag"`
}

// Checksum hashes the file of a token, or the one below its tree that is named.
func (s *Service) Checksum(ctx context.Context, token, below string) (Checksum, error) {
	o, err := s.open(ctx, token)
	if err != nil {
		return Checksum{}, err
	}
	defer o.root.Close()
	name, err := o.path(below)
	if err != nil {
		return Checksum{}, err
	}
	f, info, err := openFile(o.root, name)
	if err != nil {
		return Checksum{}, explain(o.view.Name, name, err)
	}
	defer f.Close()
	tree := archive.NewTree(info.Size())
	n, err := tree.Take(0, contextReader{ctx, io.LimitReader(f, info.Size())})
	if err != nil {
		return Checksum{}, err
	}
	sum, err := tree.Sum(f)
	return Checksum{hex.EncodeToString(sum), n, tag(info)}, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it is read for the length of one call
	io.Reader
}

// Read implements io.Reader.
func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// Entry is one thing of a tree.
type Entry struct {
	Path     string `json:"path"` // in the folder
	Raw      []byte `json:"raw,omitempty"`
	Type     string `json:"type"`
	Size     int64  `json:"size"`
	Mode     uint32 `json:"mode"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
	Link     string `json:"link,omitempty"`
}

// Tree visits everything below the path of a token, that included, each
// directory before what is in it.
func (s *Service) Tree(ctx context.Context, token string, visit func(Entry) error) error {
	o, err := s.open(ctx, token)
	if err != nil {
		return err
	}
	defer o.root.Close()
	return o.walk(ctx, o.Path, func(n node) error { return visit(entryOf(n)) })
}

func entryOf(n node) Entry {
	e := Entry{Path: n.path, Type: File{Mode: n.mode}.Type(), Size: n.size, Mode: uint32(n.mode.Perm()), Modified: n.modified.UnixNano()}
	if !n.mode.IsDir() && !n.mode.IsRegular() && n.mode&fs.ModeSymlink == 0 {
		e.Type = "SPECIAL"
	}
	if n.mode&fs.ModeSymlink != 0 {
		e.Link, _ = readLinkAt(n.parent, n.name) // empty when it has gone
	}
	if strings.ToValidUTF8(n.path, "") != n.path {
		e.Raw = []byte(n.path)
	}
	return e
}

// walk visits a path and what is below it.
func (o *opened) walk(ctx context.Context, name string, visit func(node) error) error {
	parent, err := openDir(o.root, path.Dir(name))
	if err != nil {
		return explain(o.view.Name, name, err)
	}
	defer parent.Close()
	if name != "." {
		n, err := look(parent, path.Base(name))
		if err != nil {
			return explain(o.view.Name, name, err)
		}
		n.path = name
		if err := visit(n); err != nil || !n.mode.IsDir() {
			return err
		}
	}
	dir, err := openDir(o.root, name)
	if err != nil {
		return explain(o.view.Name, name, err)
	}
	defer dir.Close()
	return walk(ctx, dir, func(n node) error {
		n.path = path.Join(name, n.path)
		return visit(n)
	})
}

// Same reads lines of a size, a time in seconds since 1970 and a path, each
// ending in a zero byte, and visits the numbers (from 0) of those that are in
// the directory of the token as told. It needs a token to put files there.
func (s *Service) Same(ctx context.Context, token string, lines io.Reader, visit func(n int) error) error {
	c, err := s.verify(token, opFill)
	if err != nil {
		return err
	}
	v, err := s.holder(ctx, c, backendai.ReadWrite)
	if err != nil {
		return err
	}
	content, err := s.content(ctx, v)
	if err != nil {
		return err
	}
	defer content.Close()
	root, err := content.OpenRoot(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explain(v.Name, c.Path, err)
	}
	defer root.Close()
	parents := directories{}
	defer parents.close()
	return eachName(lines, func(i int, line string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		size, rest, _ := strings.Cut(line, " ")
		at, name, _ := strings.Cut(rest, " ")
		clean, err := cleanFile(name)
		if err != nil {
			return err
		}
		dir, err := parents.open(root, path.Dir(clean))
		if err != nil {
			return nil
		}
		n, err := look(dir, path.Base(clean))
		if err != nil || !n.mode.IsRegular() || strconv.FormatInt(n.size, 10) != size || strconv.FormatInt(n.modified.Unix(), 10) != at {
			return nil
		}
		return visit(i)
	})
}
