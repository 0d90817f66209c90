package api

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"

	"backendai"
)

// The limits of downloads. Archives are held in memory, because the answer
// tells their lengths and a missing file must be known before it begins.
const (
	maxDownloadFiles = 5
	maxDownloadBytes = 16 << 20 // all archives of one request together
	maxDownloads     = 4        // at once
)

// download answers with one uncompressed tar per path (API section 4.3).
func (h *Handler) download(c *call) error {
	files := c.texts("files", "file")
	if len(files) == 0 {
		c.fault("files", "is required")
	}
	if len(files) > maxDownloadFiles {
		c.fault("files", "has more than %d paths", maxDownloadFiles)
	}
	if err := c.err(); err != nil {
		return err
	}
	select {
	case h.downloads <- struct{}{}:
		defer func() { <-h.downloads }()
	case <-c.r.Context().Done():
		return c.r.Context().Err()
	}
	left := int64(maxDownloadBytes)
	archives := make([][]byte, len(files))
	for i, name := range files {
		var err error
		if archives[i], err = h.archive(c, name, left); err != nil {
			return err
		}
		left -= int64(len(archives[i]))
	}
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for _, archive := range archives {
		part, err := m.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"application/octet-stream"}, "Content-Encoding": {"identity"}, "Content-Length": {strconv.Itoa(len(archive))},
		})
		if err != nil {
			return fmt.Errorf("write download: %w", err)
		}
		_, _ = part.Write(archive) // into memory
	}
	if err := m.Close(); err != nil {
		return fmt.Errorf("write download: %w", err)
	}
	c.w.Header().Set("Content-Type", "multipart/mixed; boundary="+m.Boundary())
	return c.body(http.StatusOK, body.Bytes())
}

// archive reads the tar of one path, of at most limit bytes.
func (h *Handler) archive(c *call, name string, limit int64) ([]byte, error) {
	r, err := h.opts.Sessions.Download(c.r.Context(), c.caller, c.path["name"], name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	archive, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("download %q: %w", name, err)
	}
	if int64(len(archive)) > limit {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "%q is too large to download", name).
			WithHint("one request carries at most %s; use scp or sftp for more", backendai.FormatSize(maxDownloadBytes))
	}
	return archive, nil
}

// downloadSingle answers with the bytes of one regular file.
func (h *Handler) downloadSingle(c *call) error {
	name := c.required("file", "files")
	if err := c.err(); err != nil {
		return err
	}
	f, err := h.opts.Sessions.OpenFile(c.r.Context(), c.caller, c.path["name"], name)
	if err != nil {
		return err
	}
	defer f.Close()
	c.w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	c.stream("application/octet-stream")
	_, err = io.Copy(steadyWriter{c.w, http.NewResponseController(c.w)}, f)
	return err
}
