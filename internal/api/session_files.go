package api

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"backendai"
	"backendai/internal/archive"
	"backendai/internal/session"
)

// The limits of uploads in the protocol's form. Files are kept on disk, because
// a tar tells the length of a file before it.
const (
	maxUploadFiles = 1000
	maxUploadBytes = 1 << 30 // all files of one request together
	maxSparseFile  = 1 << 42 // what a file of a session may claim to be
	silence        = time.Minute
)

// sessionFiles lists a folder of a session (API section 4.3). What is wrong with
// the path stands in the answer.
func (h *Handler) sessionFiles(c *call) error {
	name := c.text(".", "path")
	if err := c.err(); err != nil {
		return err
	}
	type entry struct {
		Mode     string  `json:"mode"`
		Size     int64   `json:"size"`
		Changed  float64 `json:"ctime"`
		Modified float64 `json:"mtime"`
		Accessed float64 `json:"atime"`
		Name     string  `json:"filename"`
	}
	list := []entry{}
	l, err := h.opts.Sessions.ListFiles(c.r.Context(), c.caller, c.path["name"], name)
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code == backendai.CodeInvalidParams {
		return c.json(http.StatusOK, map[string]any{"files": "[]", "errors": e.Title, "abspath": path.Join(home, name)})
	}
	if err != nil {
		return err
	}
	entries := l.Entries
	if l.Self.Type != "directory" {
		entries = []session.FileEntry{l.Self}
	}
	for _, e := range entries {
		list = append(list, entry{entryMode(e), e.Size, seconds(e.Changed), seconds(e.Modified), seconds(e.Accessed), e.Name})
	}
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	faults := ""
	if l.More {
		faults = fmt.Sprintf("only the first %d entries are listed", len(list))
	}
	return c.json(http.StatusOK, map[string]any{"files": string(text), "errors": faults, "abspath": l.Path})
}

// entryMode is the mode of a file in a session as ls writes it.
func entryMode(e session.FileEntry) string {
	kind := map[string]string{"directory": "d", "symlink": "l", "file": "-"}[e.Type]
	if kind == "" {
		kind = "?"
	}
	const rwx = "rwxrwxrwx"
	text := []byte(rwx)
	for i := range rwx {
		if e.Mode&(1<<(8-i)) == 0 {
			text[i] = '-'
		}
	}
	return kind + string(text)
}

// uploadFiles takes files in the protocol's form: parts of a multipart body, whose
// names are percent-encoded paths.
func (h *Handler) uploadFiles(c *call) error {
	// Before any byte is kept: the session must be the caller's.
	if _, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], false); err != nil {
		return err
	}
	_, options, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || options["boundary"] == "" {
		return backendai.Errorf(backendai.CodeInvalidParams, "the body is not multipart/form-data")
	}
	select {
	case h.downloads <- struct{}{}:
		defer func() { <-h.downloads }()
	case <-c.r.Context().Done():
		return c.r.Context().Err()
	}
	spool, err := os.CreateTemp("", "backend.ai-upload-")
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	parts := multipart.NewReader(steadyBody{http.NewResponseController(c.w), http.MaxBytesReader(c.w, c.r.Body, maxUploadBytes)}, options["boundary"])
	if err := spoolTar(spool, parts, h.now()); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	done, err := h.opts.Sessions.Upload(c.r.Context(), c.caller, c.path["name"], ".", spool)
	if err != nil {
		return err
	}
	if len(done.Skipped) > 0 {
		return backendai.Errorf(backendai.CodeInvalidParams, "%q could not be written: %s", done.Skipped[0].Name, done.Skipped[0].Reason).WithData(done.Skipped)
	}
	return c.noContent()
}

// spoolTar writes the parts as a tar. The length in each header is written when
// the part is there.
func spoolTar(spool *os.File, parts *multipart.Reader, now time.Time) error {
	var at int64
	for n := 0; ; n++ {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return uploadFault(err)
		}
		if n == maxUploadFiles {
			return backendai.Errorf(backendai.CodeInvalidParams, "one request carries at most %d files", maxUploadFiles).WithHint("send the rest by another")
		}
		name, err := partName(part.Header.Get("Content-Disposition"))
		if err != nil {
			return err
		}
		// The header takes as many blocks whatever the length is, for it is in PAX form.
		header := func(size int64) ([]byte, error) {
			var b bytes.Buffer
			err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: now.Truncate(time.Second)})
			return b.Bytes(), err
		}
		blank, err := header(0)
		if err != nil {
			return backendai.Errorf(backendai.CodeInvalidParams, "%q is no name of a file: %w", name, err)
		}
		size, err := io.Copy(io.NewOffsetWriter(spool, at+int64(len(blank))), part)
		if err != nil {
			return uploadFault(err)
		}
		full, err := header(size)
		if err == nil && len(full) != len(blank) {
			err = errors.New("its header has another length than expected")
		}
		if err == nil {
			_, err = spool.WriteAt(full, at)
		}
		if err != nil {
			return fmt.Errorf("upload %q: %w", name, err)
		}
		at += int64(len(full)) + (size+511)/512*512
	}
	return spool.Truncate(at + 1024) // two blocks of zeros end a tar
}

func uploadFault(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return backendai.Errorf(backendai.CodeInvalidParams, "one request carries at most %s", backendai.FormatSize(maxUploadBytes)).WithHint("send files by themselves, or use scp or sftp")
	}
	return backendai.Errorf(backendai.CodeBadRequest, "the files did not arrive whole: %w", err).WithHint("send them again")
}

// partName is the path of a part, which clients encode as a whole.
func partName(disposition string) (string, error) {
	_, options, err := mime.ParseMediaType(disposition)
	name := options["filename"]
	if err != nil || name == "" {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "a part of the body has no name of a file")
	}
	if decoded, err := url.PathUnescape(name); err == nil {
		name = decoded
	}
	clean, err := archive.CleanName(strings.TrimPrefix(name, home+"/"))
	if err != nil || clean == "." {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "%q is no path below the session's home", name)
	}
	return clean, nil
}

// steadyBody gives up a body from which nothing comes for a while.
type steadyBody struct {
	rc *http.ResponseController
	io.Reader
}

// Read implements io.Reader.
func (b steadyBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(silence)) // what has no deadlines belongs to a test
	return b.Reader.Read(p)
}

// sendArchive, which is ours, answers with many files of a session as one stream
// with checksums on the way (package archive).
func (h *Handler) sendArchive(c *call) error {
	paths := c.names("path", "files")
	if len(paths) == 0 {
		c.fault("path", "is required")
	}
	if err := c.err(); err != nil {
		return err
	}
	from, err := h.opts.Sessions.Download(c.r.Context(), c.caller, c.path["name"], paths...)
	if err != nil {
		return err
	}
	defer from.Close()
	c.stream(archive.MediaType)
	out := bufio.NewWriterSize(steadyWriter{c.w, http.NewResponseController(c.w)}, 256<<10)
	if err := restream(archive.NewWriter(out), tar.NewReader(from)); err != nil {
		return err // the stream has no end, which tells the client
	}
	return out.Flush()
}

// restream turns the tar of a session into a stream with checksums. What a
// stream cannot have is left out with a note.
func restream(to *archive.Writer, from *tar.Reader) error {
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("read files of the session: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if note := h.PAXRecords[session.NoteKey]; note != "" {
				if err := to.Note(note); err != nil {
					return err
				}
			}
			continue
		}
		if h.Typeflag == tar.TypeGNUSparse || h.Typeflag == tar.TypeCont {
			h.Typeflag = tar.TypeReg
		}
		if why := unfit(h); why != "" {
			if err := to.Note(h.Name + " " + why); err != nil {
				return err
			}
			continue
		}
		plain := &tar.Header{Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o777, ModTime: h.ModTime}
		if err := to.WriteHeader(plain); err != nil {
			return err
		}
		if n, err := io.Copy(to, from); err != nil || n != h.Size {
			return fmt.Errorf("read %q of the session: %w", h.Name, errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
}

// unfit tells why an entry of a session's tar is not passed on.
func unfit(h *tar.Header) string {
	clean, err := archive.CleanName(h.Name)
	switch {
	case err != nil:
		return err.Error()
	case h.Typeflag == tar.TypeSymlink:
		if err := archive.CheckLink(clean, h.Linkname); err != nil {
			return err.Error()
		}
	case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
		return "is neither a file nor a directory nor a link"
	case h.Size > maxSparseFile:
		return "claims to be larger than " + backendai.FormatSize(maxSparseFile)
	}
	return ""
}

// steadyWriter gives up an answer of which nothing is taken for a while.
type steadyWriter struct {
	io.Writer

	rc *http.ResponseController
}

// Write implements io.Writer.
func (w steadyWriter) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(silence)) // what has no deadlines belongs to a test
	return w.Writer.Write(p)
}

// takeArchive, which is ours, unpacks such a stream below a folder of a session.
func (h *Handler) takeArchive(c *call) error {
	folder := c.text(".", "path")
	if err := c.err(); err != nil {
		return err
	}
	// Before any byte is taken: the session must be the caller's.
	if _, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], false); err != nil {
		return err
	}
	body := &stoppableBody{rc: http.NewResponseController(c.w), body: c.r.Body}
	r, w := io.Pipe()
	sum := sha256.New()
	sent := make(chan error, 1)
	go func() {
		err := unstream(io.MultiWriter(w, sum), archive.NewReader(body, func() error { return nil }))
		_ = w.CloseWithError(err) // nil is the end
		sent <- err
	}()
	done, err := h.opts.Sessions.Upload(c.r.Context(), c.caller, c.path["name"], folder, r)
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		body.stop()
	}
	if broken := <-sent; broken != nil && (err == nil || !errors.Is(broken, io.ErrClosedPipe)) {
		return streamFault(broken)
	}
	if err != nil {
		return err
	}
	if string(done.SHA256) != string(sum.Sum(nil)) {
		return backendai.Errorf(backendai.CodeInternal, "the files did not arrive in the session as they were sent").WithHint("send them again")
	}
	skipped := make([]string, 0, len(done.Skipped))
	for _, s := range done.Skipped {
		skipped = append(skipped, s.Name+": "+s.Reason)
	}
	if done.More > 0 {
		skipped = append(skipped, fmt.Sprintf("and %d more", done.More))
	}
	return c.json(http.StatusOK, map[string]any{"files": done.Files + done.Links, "folders": done.Folders, "bytes": done.Bytes, "skipped": skipped})
}

// stoppableBody is a steadyBody that can be stopped while it waits for bytes.
type stoppableBody struct {
	rc   *http.ResponseController
	body io.Reader

	mu      sync.Mutex // held while deadlines are set
	stopped bool
}

// Read implements io.Reader.
func (b *stoppableBody) Read(p []byte) (int, error) {
	if !b.extend() {
		return 0, io.ErrClosedPipe
	}
	n, err := b.body.Read(p)
	if err != nil && !b.extend() {
		err = io.ErrClosedPipe
	}
	return n, err
}

// extend sets a new deadline, unless the body was stopped.
func (b *stoppableBody) extend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		_ = b.rc.SetReadDeadline(time.Now().Add(silence)) // what has no deadlines belongs to a test
	}
	return !b.stopped
}

func (b *stoppableBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	_ = b.rc.SetReadDeadline(time.Unix(1, 0))
}

// unstream turns a stream with checksums into a plain tar.
func unstream(to io.Writer, from *archive.Reader) error {
	out := bufio.NewWriterSize(to, 256<<10)
	t := tar.NewWriter(out)
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(t.Close(), out.Flush())
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(t, from); err != nil {
			return err
		}
	}
}

// streamFault explains why a stream was not taken to its end.
func streamFault(err error) error {
	if e, ok := errors.AsType[*archive.EntryError](err); ok {
		return backendai.Errorf(backendai.CodeInvalidParams, "the archive is refused: %q %s", e.Name, e.Reason)
	}
	return backendai.Errorf(backendai.CodeBadRequest, "the files did not arrive whole: %w", err).WithHint("send them again")
}
