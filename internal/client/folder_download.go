package client

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

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
