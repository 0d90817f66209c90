package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"backendai"
	"backendai/internal/archive"
)

// fetchedFile is a file on its way.
type fetchedFile struct {
	d     *fetching
	entry treeEntry

	temp  string // its name aside
	file  *os.File
	tree  *archive.Tree // of what is here
	at    int64         // bytes that are here
	valid string        // what tells its state: an entity tag or a time
	// digest is what the server says of the whole file behind what it sends of it
	// (archive.ReprDigest), if it does.
	digest string
}

// file fetches a large file into a file aside, which has a name of its own for
// each state of the original: it is gone on with when that is the same still.
func (d *fetching) file(ctx context.Context, e treeEntry) error {
	one := &fetchedFile{d: d, entry: e}
	defer one.close()
	var last int64
	for range 3 {
		err := persist(ctx, d.Tries, func() bool { m := one.at > last; last = one.at; return m }, func() error { return one.fetch(ctx) })
		if !errors.Is(err, errBeginAgain) {
			if err == nil {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.result.Files++
				d.result.Bytes += one.at
			}
			return err
		}
	}
	return backendai.Errorf(backendai.CodeVFolderFailed, "%q did not arrive as the server has it, three times", e.Path).
		WithHint("does something write to the file? else look after the network, and the memory of both machines")
}

func (f *fetchedFile) close() {
	if f.file != nil {
		f.file.Close()
	}
}

// address is that of the file, or of what else is asked of it.
func (f *fetchedFile) address(ctx context.Context, sibling string) (string, error) {
	if !f.d.foreign {
		return f.d.c.address(f.d.grant, sibling, "", url.Values{"path": {f.entry.Path}}), nil
	}
	g, err := f.d.c.ask(ctx, f.d.Folder, "request-download", object{"path": f.entry.Path, "file": f.entry.Path, "archive": false})
	if err != nil {
		return "", err
	}
	return f.d.c.address(g, sibling, "", nil), nil
}

func (f *fetchedFile) fetch(ctx context.Context) error {
	if f.file == nil {
		if err := f.begin(ctx); err != nil {
			return err
		}
	}
	if err := f.rest(ctx); err != nil {
		return err
	}
	if !f.d.foreign {
		if err := f.check(ctx); err != nil {
			return err
		}
	}
	return f.finish()
}

// check compares what is here with the hash that came behind it, or that the
// server is asked for: not every proxy lets trailers pass.
func (f *fetchedFile) check(ctx context.Context) error {
	got, err := f.tree.Sum(f.file)
	if err != nil {
		return err
	}
	if f.digest != "" {
		if f.digest != archive.Digest(got) {
			return f.beginAgain()
		}
		return nil
	}
	address, err := f.address(ctx, "checksum")
	if err != nil {
		return err
	}
	var want checksum
	if err := f.d.c.storageJSON(ctx, http.MethodGet, address, &want); err != nil {
		return err
	}
	if want.Hash != hex.EncodeToString(got) || want.Tag != f.valid {
		return f.beginAgain()
	}
	return nil
}

// beginAgain throws away what is here.
func (f *fetchedFile) beginAgain() error {
	f.d.Progress(f.entry.Path, -f.at)
	f.file.Close()
	f.file, f.at, f.digest = nil, 0, ""
	return errors.Join(errBeginAgain, f.d.Root.Remove(f.temp))
}

// begin asks for the state of the file, and takes up what is here of it.
func (f *fetchedFile) begin(ctx context.Context) error {
	address, err := f.address(ctx, "")
	if err != nil {
		return err
	}
	resp, err := f.d.c.storage(ctx, http.MethodHead, address, nil, 0, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	f.valid = cmp.Or(resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"))
	f.entry.Size = resp.ContentLength
	dir := filepath.Dir(filepath.FromSlash(f.entry.Path))
	if err := f.d.Root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	state := f.valid + " " + strconv.FormatInt(f.entry.Size, 10)
	f.temp = filepath.Join(dir, partName(f.entry.Path)+partName(state)+".part")
	if err := f.forget(dir); err != nil {
		return err
	}
	if f.file, err = f.d.Root.OpenFile(f.temp, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	f.tree = archive.NewTree(f.entry.Size)
	if f.at, err = f.tree.Take(0, f.file); err != nil {
		return err
	}
	if f.at > f.entry.Size {
		f.at = 0
		if err := f.file.Truncate(0); err != nil {
			return err
		}
	}
	f.d.Progress(f.entry.Path, f.at)
	return nil
}

// partName is the half of the name of a file aside that stands for a text.
func partName(text string) string {
	sum := sha256.Sum256([]byte(text))
	return ".backend.ai-" + hex.EncodeToString(sum[:8])
}

// forget removes what is here of earlier states of the file.
func (f *fetchedFile) forget(dir string) error {
	folder, err := f.d.Root.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name = filepath.Join(dir, name); strings.HasPrefix(filepath.Base(name), partName(f.entry.Path)) && name != f.temp {
			if err := f.d.Root.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest fetches what is missing.
func (f *fetchedFile) rest(ctx context.Context) error {
	if f.at == f.entry.Size {
		return nil
	}
	address, err := f.address(ctx, "")
	if err != nil {
		return err
	}
	header := http.Header{archive.WantDigest: {archive.TreeName + "=1"}}
	if f.at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", f.at))
		header.Set("If-Range", f.valid)
	}
	resp, err := f.d.c.storage(ctx, http.MethodGet, address, nil, 0, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if valid := cmp.Or(resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")); valid != f.valid || f.at > 0 && resp.StatusCode != http.StatusPartialContent {
		return f.beginAgain() // it is another file now
	}
	err = f.take(resp.Body)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be written: %w", filepath.Join(f.d.Root.Name(), filepath.FromSlash(f.entry.Path)), e.Err)
	}
	if err == nil && f.at < f.entry.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return f.d.c.broken(ctx, resp.Request.URL, err)
	}
	f.digest = resp.Trailer.Get(archive.ReprDigest)
	return nil
}

// takeStep is how much is read, hashed and written at a time: little enough to
// stay near the processor meanwhile.
const takeStep = 256 << 10

// take writes and hashes what comes, as far as it comes.
func (f *fetchedFile) take(body io.Reader) error {
	tree, flushed := f.tree.At(f.at), f.at
	_, err := io.CopyBuffer(writerFunc(func(p []byte) (int, error) {
		if _, err := f.file.WriteAt(p, f.at); err != nil {
			return 0, err
		}
		_, _ = tree.Write(p) // never fails
		f.at += int64(len(p))
		f.d.Progress(f.entry.Path, int64(len(p)))
		if f.at-flushed >= archive.WritebackStep {
			archive.StartWriteback(f.file, flushed, f.at-flushed)
			flushed = f.at
		}
		return len(p), nil
	}), struct{ io.Reader }{body}, make([]byte, takeStep))
	return err
}

type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// finish gives the file its mode, time and name, once it is on the disk.
func (f *fetchedFile) finish() error {
	name := filepath.FromSlash(f.entry.Path)
	err := f.file.Sync()
	if err == nil && f.entry.Mode != 0 {
		err = f.d.Root.Chmod(f.temp, fs.FileMode(f.entry.Mode))
	}
	if err == nil && f.entry.Modified != 0 {
		err = f.d.Root.Chtimes(f.temp, f.entry.time(), f.entry.time())
	}
	if err := errors.Join(err, f.file.Close()); err != nil {
		return err
	}
	f.file = nil
	if info, err := f.d.Root.Lstat(name); err == nil && (info.IsDir() || !f.d.Overwrite) {
		return f.d.exists(f.entry.Path)
	}
	return f.d.Root.Rename(f.temp, name)
}
