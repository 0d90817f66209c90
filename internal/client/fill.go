package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"backendai"
	"backendai/internal/archive"
)

// FolderUpload is many things that are to go into a folder.
type FolderUpload struct {
	Folder   string
	Dir      string // in the folder
	Sources  []archive.Source
	Chunk    int64
	Tries    int
	Progress func(name string, more int64) // as FileUpload's
}

// UploadResult is what became of an upload of many things.
type UploadResult struct {
	Files int   // that were sent
	Bytes int64 // of them
	There int   // files that were there already, of the same size and time
}

// UploadAll puts files and directories into a folder. To our server small files
// go as one stream and large ones in parts, and what is there already, with the
// same size and time, is not sent again.
func (c *Client) UploadAll(ctx context.Context, up FolderUpload) (result UploadResult, err error) {
	if up.Progress == nil {
		up.Progress = func(string, int64) {}
	}
	if up.Tries == 0 {
		up.Tries = DefaultTries
	}
	g, err := c.ask(ctx, up.Folder, "request-upload-archive", object{"path": up.Dir})
	if backendai.CodeOf(err) == backendai.CodeURLNotFound {
		return c.uploadEach(ctx, up)
	}
	if err != nil {
		return result, err
	}
	f := &filling{c: c, FolderUpload: up, grant: g}
	err = persist(ctx, up.Tries, f.progress, func() error { return f.run(ctx) })
	return f.result, err
}

// filling is an upload of many things on its way.
type filling struct {
	FolderUpload

	c     *Client
	grant grant

	mu      sync.Mutex // guards the result, which several files add to
	result  UploadResult
	counted atomic.Int64 // bytes that Progress was told of
	best    int64        // the most that a try has found there
}

// report tells of progress.
func (f *filling) report(name string, more int64) {
	f.counted.Add(more)
	f.Progress(name, more)
}

// progress tells whether the last try found more there than those before.
func (f *filling) progress() bool {
	now := f.counted.Load()
	moved := now > f.best
	f.best = max(f.best, now)
	return moved
}

// run sends what is not there yet. What an earlier try has sent counts as there.
func (f *filling) run(ctx context.Context) error {
	f.report("", -f.counted.Load())
	f.result = UploadResult{}
	same, err := f.same(ctx)
	if statusOf(err) == http.StatusUnauthorized {
		if f.grant, err = f.c.ask(ctx, f.Folder, "request-upload-archive", object{"path": f.Dir}); err == nil {
			same, err = f.same(ctx)
		}
	}
	if err != nil {
		return err
	}
	var small, middle, large []archive.Source
	for i, s := range f.Sources {
		switch {
		case same[i]:
			f.result.There++
			f.report(s.Name, s.Size)
		case !s.Mode.IsRegular() || s.Size <= smallFile:
			small = append(small, s)
		case s.Size <= partSize:
			middle = append(middle, s)
		default:
			large = append(large, s)
		}
	}
	if err := f.stream(ctx, small); err != nil {
		return err
	}
	g, working := errgroup.WithContext(ctx)
	each(working, g, workers, len(middle), func(i int) error { return f.file(working, middle[i]) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, s := range large {
		if err := f.file(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// same asks which of the files are there as they are here.
func (f *filling) same(ctx context.Context) (map[int]bool, error) {
	var numbers []int // of the lines: those of files
	lines, write := io.Pipe()
	for i, s := range f.Sources {
		if s.Mode.IsRegular() {
			numbers = append(numbers, i)
		}
	}
	same := map[int]bool{}
	if len(numbers) == 0 {
		return same, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		out := bufio.NewWriterSize(write, 64<<10)
		for _, i := range numbers {
			s := f.Sources[i]
			fmt.Fprintf(out, "%d %d %s\x00", s.Size, s.Modified.Unix(), s.Name)
		}
		_ = write.CloseWithError(out.Flush()) // the reader gets it
		return nil
	})
	g.Go(func() error {
		defer lines.Close()
		resp, err := f.c.storage(ctx, http.MethodPost, f.c.address(f.grant, "", "/compare", nil), lines, -1, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answers := bufio.NewScanner(resp.Body)
		for answers.Scan() {
			if answers.Text() == "end" {
				return nil
			}
			n, err := strconv.Atoi(answers.Text())
			if err != nil || n < 0 || n >= len(numbers) {
				return backendai.Errorf(backendai.CodeInternal, "the storage's list of files is not what was asked for")
			}
			same[numbers[n]] = true
		}
		return f.c.broken(ctx, resp.Request.URL, errors.Join(answers.Err(), io.ErrUnexpectedEOF))
	})
	return same, g.Wait()
}

// stream sends small files, directories and links.
func (f *filling) stream(ctx context.Context, sources []archive.Source) error {
	if len(sources) == 0 {
		return nil
	}
	body, write := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	var sent int64 // of this try
	var lost error // why the stream was broken off on this side
	g.Go(func() error {
		out := bufio.NewWriterSize(write, 256<<10)
		w := archive.NewWriter(out)
		for _, s := range sources {
			n, err := w.Add(s)
			sent += n
			f.report(s.Name, n)
			if err != nil {
				if _, local := errors.AsType[*fs.PathError](err); local {
					lost = err
				}
				_ = write.CloseWithError(err)
				return nil
			}
		}
		_ = write.CloseWithError(errors.Join(w.Close(), out.Flush()))
		return nil
	})
	var filled struct{ Files, Bytes int64 }
	g.Go(func() error {
		defer body.Close()
		resp, err := f.c.storage(ctx, http.MethodPost, f.c.address(f.grant, "", "", nil), body, -1, http.Header{"Content-Type": {archive.MediaType}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return f.c.decode(ctx, resp, &filled)
	})
	err := g.Wait()
	if lost != nil {
		err = backendai.Errorf(backendai.CodeInvalidParams, "a file went away while it was sent: %w", lost).WithHint("run the command again")
	}
	if err != nil {
		return err // what of it has arrived, the next try finds
	}
	for _, s := range sources {
		if !s.Mode.IsDir() {
			f.result.Files++
		}
	}
	f.result.Bytes += sent
	return nil
}

// file sends a large file.
func (f *filling) file(ctx context.Context, s archive.Source) error {
	file, err := os.Open(s.Path)
	if err != nil {
		return backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be read: %w", s.Path, err)
	}
	defer file.Close()
	err = f.c.UploadFile(ctx, FileUpload{
		Folder: f.Folder, Path: join(f.Dir, s.Name), File: file, Chunk: f.Chunk, Tries: f.Tries, Progress: func(n int64) { f.report(s.Name, n) },
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Files++
	f.result.Bytes += s.Size
	return nil
}

func join(dir, name string) string {
	return strings.TrimPrefix(strings.TrimSuffix(dir, "/")+"/"+name, "./")
}

// uploadEach sends one file after another to a server that takes no streams.
func (c *Client) uploadEach(ctx context.Context, up FolderUpload) (result UploadResult, err error) {
	dirs := []string{}
	for _, s := range up.Sources {
		if s.Mode.IsDir() {
			dirs = append(dirs, join(up.Dir, s.Name))
		}
	}
	slices.Sort(dirs)
	if len(dirs) > 0 {
		if _, err := c.MakeFolderDirs(ctx, up.Folder, dirs, true, true); err != nil {
			return result, err
		}
	}
	f := &filling{c: c, FolderUpload: up}
	for _, s := range up.Sources {
		switch {
		case s.Mode.IsRegular():
			if err := f.file(ctx, s); err != nil {
				return f.result, err
			}
		case s.Mode&fs.ModeSymlink != 0:
			return f.result, backendai.Errorf(backendai.CodeNotImplemented, "this server takes no links such as %s", s.Path).WithHint("leave it out")
		}
	}
	return f.result, nil
}
