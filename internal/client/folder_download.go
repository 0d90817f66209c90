package client

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/readahead"
	"golang.org/x/sync/errgroup"

	"backendai"
	"backendai/internal/archive"
)

// FolderDownload is what is to be fetched from a folder.
type FolderDownload struct {
	Folder    string
	Path      string   // a file or directory in the folder
	Root      *os.Root // where it goes, under its path in the folder
	Overwrite bool     // replaces files that are there
	Tries     int      // 0 is DefaultTries
	// Total is told of the bytes to come before any of them.
	Total    func(bytes int64)
	Progress func(name string, more int64) // as FileUpload's
}

// DownloadResult is what became of a download.
type DownloadResult struct {
	Files   int
	Bytes   int64
	There   int // files that were here already, of the same size and time
	Skipped []archive.Skipped
}

// treeEntry is one thing in a folder.
type treeEntry struct {
	Path     string `json:"path"`
	Raw      []byte `json:"raw"` // the path, when it is not UTF-8
	Type     string `json:"type"`
	Size     int64  `json:"size"`
	Mode     uint32 `json:"mode"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
	Link     string `json:"link"`
	End      bool   `json:"end"` // the last line, which is no entry
}

func (e treeEntry) time() time.Time { return time.Unix(0, e.Modified) }

// DownloadAll fetches a file, or a directory and what is below it. Each file
// appears when all of it is here and its hash is that of the server's; what was
// broken off goes on when the same is asked for again.
func (c *Client) DownloadAll(ctx context.Context, down FolderDownload) (DownloadResult, error) {
	d := &fetching{c: c, FolderDownload: down}
	d.Tries = cmp.Or(d.Tries, DefaultTries)
	if d.Progress == nil {
		d.Progress = func(string, int64) {}
	}
	if d.Total == nil {
		d.Total = func(int64) {}
	}
	var err error
	if d.grant, err = c.ask(ctx, d.Folder, "request-download", object{"path": d.Path, "file": d.Path, "archive": true}); err != nil {
		return DownloadResult{}, err
	}
	entries, err := d.tree(ctx)
	if status := statusOf(err); status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		d.foreign = true
		entries, err = d.list(ctx, d.Path)
	}
	if err != nil {
		return DownloadResult{}, err
	}
	err = d.fetch(ctx, entries)
	return d.result, err
}

// fetching is a download on its way.
type fetching struct {
	FolderDownload

	c       *Client
	grant   grant
	foreign bool // the server is not ours

	mu     sync.Mutex // guards the result, which several files add to
	result DownloadResult
}

// tree lists what is below the path.
func (d *fetching) tree(ctx context.Context) (entries []treeEntry, err error) {
	err = persist(ctx, d.Tries, nil, func() error {
		entries = nil
		resp, err := d.c.storage(ctx, http.MethodGet, d.c.address(d.grant, "tree", "", nil), nil, 0, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		lines := json.NewDecoder(bufio.NewReader(resp.Body))
		for {
			var e treeEntry
			if err := lines.Decode(&e); err != nil {
				return d.c.broken(ctx, resp.Request.URL, err)
			}
			if e.End {
				return nil
			}
			if e.Raw != nil {
				e.Path = string(e.Raw)
			}
			entries = append(entries, e)
		}
	})
	return entries, err
}

// list is tree for servers that only list directories.
func (d *fetching) list(ctx context.Context, name string) ([]treeEntry, error) {
	files, err := d.c.FolderFiles(ctx, d.Folder, name)
	if err != nil && name == d.Path {
		return []treeEntry{{Path: name, Type: "FILE", Mode: 0o644}}, nil // a file is not listed
	}
	if err != nil {
		return nil, err
	}
	entries := []treeEntry{{Path: name, Type: "DIRECTORY", Mode: 0o755}}
	for _, f := range files {
		below := join(name, f.Name)
		if f.Type == "DIRECTORY" {
			more, err := d.list(ctx, below)
			if err != nil {
				return nil, err
			}
			entries = append(entries, more...)
			continue
		}
		size, _ := f.Size.Int64() // the download itself tells it again
		entries = append(entries, treeEntry{Path: below, Type: f.Type, Size: size, Mode: 0o644})
	}
	return entries, nil
}

// fetch brings what is not here yet: small things as one stream, large files by
// themselves, several at a time.
func (d *fetching) fetch(ctx context.Context, entries []treeEntry) error {
	var small, large, folders []treeEntry
	var total int64
	for _, e := range entries {
		if e.Path == "." {
			continue
		}
		clean, err := archive.CleanName(e.Path)
		if err != nil || !filepath.IsLocal(filepath.FromSlash(clean)) {
			d.skip(e.Path, "is no name of a file here")
			continue
		}
		e.Path = clean
		here, err := d.here(e)
		switch {
		case err != nil:
			return err
		case here:
			d.result.There++
			continue
		case e.Type == "DIRECTORY":
			folders = append(folders, e)
		case e.Type == "SYMLINK" && !d.foreign:
			if err := archive.CheckLink(e.Path, e.Link); err != nil {
				d.skip(e.Path, err.Error())
			} else {
				small = append(small, e)
			}
		case e.Type != "FILE" && !d.foreign:
			d.skip(e.Path, "is neither a file nor a directory nor a link")
		case e.Size > smallFile || d.foreign:
			large = append(large, e)
			total += e.Size
		default:
			small = append(small, e)
			total += e.Size
		}
	}
	d.Total(total)
	for _, e := range folders {
		if err := d.Root.MkdirAll(filepath.FromSlash(e.Path), 0o755); err != nil {
			return err
		}
	}
	if err := d.stream(ctx, small); err != nil {
		return err
	}
	g, working := errgroup.WithContext(ctx)
	each(working, g, workers, len(large), func(i int) error { return d.file(working, large[i]) })
	if err := g.Wait(); err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		e := folders[i]
		name := filepath.FromSlash(e.Path)
		err := d.Root.Chmod(name, fs.FileMode(e.Mode)|0o700)
		if err == nil && !d.foreign {
			err = d.Root.Chtimes(name, e.time(), e.time())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *fetching) skip(name, why string) {
	d.result.Skipped = append(d.result.Skipped, archive.Skipped{Path: name, Reason: why})
}

// here tells whether something is here already as it is there. Another thing in
// its place is an error, unless it may be replaced.
func (d *fetching) here(e treeEntry) (bool, error) {
	info, err := d.Root.Lstat(filepath.FromSlash(e.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if e.Type == "DIRECTORY" && info.IsDir() {
		return false, nil
	}
	if e.Type == "FILE" && info.Mode().IsRegular() && info.Size() == e.Size && info.ModTime().Unix() == e.time().Unix() && !d.foreign {
		return true, nil
	}
	if e.Type == "SYMLINK" && info.Mode()&fs.ModeSymlink != 0 {
		if link, err := d.Root.Readlink(filepath.FromSlash(e.Path)); err == nil && filepath.ToSlash(link) == e.Link {
			return true, nil
		}
	}
	if d.Overwrite && !info.IsDir() && e.Type != "DIRECTORY" {
		return false, nil
	}
	return false, d.exists(e.Path)
}

func (d *fetching) exists(name string) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "%s is there already", filepath.Join(d.Root.Name(), filepath.FromSlash(name))).
		WithHint("--overwrite replaces files that are there")
}

// stream fetches small files and links. What came before the connection broke
// is not asked for again.
func (d *fetching) stream(ctx context.Context, entries []treeEntry) error {
	missing := make(map[string]bool, len(entries))
	for _, e := range entries {
		missing[e.Path] = true
	}
	moved := false
	err := persist(ctx, d.Tries, func() bool { m := moved; moved = false; return m }, func() error {
		if len(missing) == 0 {
			return nil
		}
		var names strings.Builder
		for _, e := range entries {
			if missing[e.Path] {
				names.WriteString(e.Path + "\x00")
			}
		}
		address := d.c.address(d.grant, "", "", url.Values{"format": {"tar"}})
		resp, err := d.c.storage(ctx, http.MethodPost, address, strings.NewReader(names.String()), int64(names.Len()), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var seen int64
		err = archive.Unpack(d.Root, bufio.NewReaderSize(resp.Body, 256<<10), archive.UnpackOptions{
			Overwrite: d.Overwrite, Seen: func(n int64) { seen += n; d.Progress("", n) },
			Placed: func(h *tar.Header) {
				delete(missing, h.Name)
				moved = true
				d.result.Files++
				d.result.Bytes += h.Size
				seen -= h.Size
			},
		})
		d.Progress("", -seen)
		return d.unpacked(ctx, resp.Request.URL, err)
	})
	for _, e := range entries {
		if err == nil && missing[e.Path] {
			d.skip(e.Path, "went away before it was sent")
		}
	}
	return err
}

// unpacked explains why a stream was not unpacked to its end.
func (d *fetching) unpacked(ctx context.Context, from *url.URL, err error) error {
	if _, ok := errors.AsType[*archive.EntryError](err); ok {
		return backendai.Errorf(backendai.CodeInternal, "the server's archive is refused: %w", err)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		if errors.Is(err, archive.ErrExists) {
			return d.exists(e.Path)
		}
		return backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be written: %w", filepath.Join(d.Root.Name(), e.Path), e.Err)
	}
	if err != nil {
		return d.c.broken(ctx, from, err)
	}
	return nil
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

// fetchedFile is a file on its way.
type fetchedFile struct {
	d     *fetching
	entry treeEntry

	temp  string // its name aside
	file  *os.File
	hash  hash.Hash
	at    int64  // bytes that are here
	valid string // what tells its state: an entity tag or a time
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
	// The server hashes while it sends.
	g, working := errgroup.WithContext(ctx)
	var want checksum
	if !f.d.foreign {
		g.Go(func() error {
			address, err := f.address(working, "checksum")
			if err != nil {
				return err
			}
			return f.d.c.storageJSON(working, http.MethodGet, address, &want)
		})
	}
	g.Go(func() error { return f.rest(working) })
	if err := g.Wait(); err != nil {
		return err
	}
	if got := hex.EncodeToString(f.hash.Sum(nil)); !f.d.foreign && (want.Hash != got || want.Tag != f.valid) {
		f.d.Progress(f.entry.Path, -f.at)
		f.file.Close()
		f.file, f.at = nil, 0
		return errors.Join(errBeginAgain, f.d.Root.Remove(f.temp))
	}
	return f.finish()
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
	f.hash = archive.NewHash()
	if f.at, err = archive.HashAll(f.hash, f.file); err != nil {
		return err
	}
	if f.at > f.entry.Size {
		f.at = 0
		f.hash.Reset()
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
	header := http.Header{}
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
		// It is another file now: what is here of the old one is worth nothing.
		f.d.Progress(f.entry.Path, -f.at)
		f.file.Close()
		f.file, f.at = nil, 0
		return errors.Join(errBeginAgain, f.d.Root.Remove(f.temp))
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
	return nil
}

// The network is read so many pieces, of so many bytes, ahead of the disk.
const (
	aheadPieces = 4
	aheadSize   = 256 << 10
)

// take writes and hashes what comes, as far as it comes, and closes body.
func (f *fetchedFile) take(body io.ReadCloser) error {
	ahead, err := readahead.NewReaderSize(body, aheadPieces, aheadSize)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	defer ahead.Close()
	defer body.Close() // before, or what reads it would be waited for
	flushed := f.at
	_, err = io.Copy(writerFunc(func(p []byte) (int, error) {
		if _, err := f.file.WriteAt(p, f.at); err != nil {
			return 0, err
		}
		f.hash.Write(p)
		f.at += int64(len(p))
		f.d.Progress(f.entry.Path, int64(len(p)))
		if f.at-flushed >= archive.WritebackStep {
			archive.StartWriteback(f.file, flushed, f.at-flushed)
			flushed = f.at
		}
		return len(p), nil
	}), ahead)
	if errors.Is(err, io.EOF) {
		return nil // whether that is all the caller knows
	}
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
