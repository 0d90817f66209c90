package client

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"backendai"
	"backendai/internal/archive"
)

// SessionFile is one entry of a folder in a session.
type SessionFile struct {
	Name     string      `json:"filename"`
	Size     json.Number `json:"size"`
	Modified json.Number `json:"mtime"` // seconds since 1970
	Mode     string      `json:"mode"`
}

// SessionFiles lists a folder of a session. What is wrong with the path is an error.
func (c *Client) SessionFiles(ctx context.Context, ref, path string) (files []SessionFile, abspath string, err error) {
	var answer struct {
		Files   string `json:"files"`
		Errors  string `json:"errors"`
		AbsPath string `json:"abspath"`
	}
	k := call{method: http.MethodGet, path: []string{"session", ref, "files"}, query: url.Values{"path": {path}}, json: object{"path": path}}
	if err := c.read(ctx, k, &answer); err != nil {
		return nil, "", err
	}
	if answer.Files != "" {
		if err := json.Unmarshal([]byte(answer.Files), &files); err != nil {
			return nil, "", backendai.Errorf(backendai.CodeInternal, "the server's list of files is not what the protocol says: %w", err)
		}
	}
	if answer.Errors != "" {
		err = backendai.Errorf(backendai.CodeInvalidParams, "%s", strings.TrimSpace(answer.Errors))
	}
	slices.SortFunc(files, func(a, b SessionFile) int { return strings.Compare(a.Name, b.Name) })
	return files, answer.AbsPath, err
}

// SessionTransfer is things on their way to or from the home of a session.
type SessionTransfer struct {
	Session  string
	Dir      string           // in the session, for uploads
	Sources  []archive.Source // of uploads
	Paths    []string         // of downloads
	Root     *os.Root         // of downloads
	Progress func(name string, more int64)
}

// TransferResult is what became of a transfer.
type TransferResult struct {
	Files   int
	Bytes   int64
	Skipped []string // what was left out, and why
}

// UploadToSession puts files and directories below a folder of a session's home,
// as the session's user.
func (c *Client) UploadToSession(ctx context.Context, t SessionTransfer) (TransferResult, error) {
	result, err := c.streamToSession(ctx, t)
	if backendai.CodeOf(err) == backendai.CodeURLNotFound {
		return c.postToSession(ctx, t)
	}
	return result, err
}

// streamToSession sends one stream to our server.
func (c *Client) streamToSession(ctx context.Context, t SessionTransfer) (result TransferResult, err error) {
	body, write := io.Pipe()
	var lost error // why the stream was broken off on this side
	g, working := errgroup.WithContext(ctx)
	g.Go(func() error {
		out := bufio.NewWriterSize(write, 256<<10)
		w := archive.NewWriter(out)
		for _, s := range t.Sources {
			n, err := w.AddCounted(s, func(n int64) { t.Progress(s.Name, n) })
			result.Bytes += n
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
	var answer struct {
		Files   int      `json:"files"`
		Skipped []string `json:"skipped"`
	}
	g.Go(func() error {
		defer body.Close()
		k := call{method: http.MethodPost, path: []string{"session", t.Session, "archive"}, query: url.Values{"path": {t.Dir}}, body: body}
		return c.read(working, k, &answer)
	})
	err = g.Wait()
	if lost != nil {
		return result, backendai.Errorf(backendai.CodeInvalidParams, "a file went away while it was sent: %w", lost)
	}
	result.Files, result.Skipped = answer.Files, answer.Skipped
	return result, err
}

// What servers of other kinds take of files in one request.
const (
	foreignFiles = 20
	foreignBytes = 1 << 20
)

// postToSession sends files in the protocol's form to a server that takes no streams.
func (c *Client) postToSession(ctx context.Context, t SessionTransfer) (result TransferResult, err error) {
	var files []archive.Source
	for _, s := range t.Sources {
		switch {
		case s.Mode.IsDir():
		case !s.Mode.IsRegular():
			result.Skipped = append(result.Skipped, s.Path+" is a link, which this server does not take")
		case s.Size >= foreignBytes:
			return result, backendai.Errorf(backendai.CodeInvalidParams, "%s is too large: this server takes files of less than %s", s.Path, backendai.FormatSize(foreignBytes)).
				WithHint("use scp or sftp, or a folder")
		default:
			files = append(files, s)
		}
	}
	for some := range slices.Chunk(files, foreignFiles) {
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		for _, s := range some {
			content, err := os.ReadFile(s.Path)
			if err != nil {
				return result, backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be read: %w", s.Path, err)
			}
			header := textproto.MIMEHeader{
				"Content-Disposition": {`form-data; name="src"; filename="` + url.PathEscape(join(t.Dir, s.Name)) + `"`}, "Content-Type": {"application/octet-stream"},
			}
			part, err := m.CreatePart(header)
			if err != nil {
				return result, err
			}
			_, _ = part.Write(content) // into memory
		}
		if err := m.Close(); err != nil {
			return result, err
		}
		k := call{method: http.MethodPost, path: []string{"session", t.Session, "upload"}, body: &body, media: m.FormDataContentType()}
		if err := c.read(ctx, k, nil); err != nil {
			return result, err
		}
		for _, s := range some {
			result.Files++
			result.Bytes += s.Size
			t.Progress(s.Name, s.Size)
		}
	}
	return result, nil
}

// DownloadFromSession fetches paths below a session's home into a directory, each
// under its last part. Files that are there are replaced.
func (c *Client) DownloadFromSession(ctx context.Context, t SessionTransfer) (TransferResult, error) {
	var result TransferResult
	resp, err := c.do(ctx, call{method: http.MethodGet, path: []string{"session", t.Session, "archive"}, query: url.Values{"path": t.Paths}})
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	err = archive.Unpack(t.Root, bufio.NewReaderSize(resp.Body, 256<<10), archive.UnpackOptions{
		Overwrite: true,
		Seen:      func(n int64) { t.Progress("", n) },
		Noted:     func(text string) { result.Skipped = append(result.Skipped, text) },
		Placed: func(h *tar.Header) {
			if h.Typeflag != tar.TypeDir {
				result.Files++
				result.Bytes += h.Size
			}
		},
	})
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return result, backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be written: %w", filepath.Join(t.Root.Name(), e.Path), e.Err)
	}
	if err != nil && ctx.Err() == nil {
		err = backendai.Errorf(backendai.CodeUnavailable, "the download from session %s broke off: %w", t.Session, err).WithHint("try again")
	}
	return result, err
}
