package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	"backendai/internal/vfolder"
)

// storageBase is the path of the storage endpoints, which are open to whoever
// holds a token of theirs (API section 7.3). Tokens travel in the query, which
// no log has.
const storageBase = "/storage"

// storageURL is the address of a storage endpoint as the client reaches this
// server. What proxies say counts if the configuration trusts them.
func (h *Handler) storageURL(c *call, name string) string {
	u := url.URL{Scheme: "http", Host: c.r.Host, Path: path.Join(storageBase, name)}
	if c.r.TLS != nil {
		u.Scheme = "https"
	}
	if h.trusts(c.r.RemoteAddr) {
		first := func(header string) string {
			text, _, _ := strings.Cut(c.r.Header.Get(header), ",")
			return strings.TrimSpace(text)
		}
		if proto := first("X-Forwarded-Proto"); proto == "http" || proto == "https" {
			u.Scheme = proto
		}
		if host := first("X-Forwarded-Host"); host != "" {
			u.Host = host
		}
	}
	return u.String()
}

// trusts tells whether an address is that of a trusted proxy.
func (h *Handler) trusts(remote string) bool {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	for _, p := range h.opts.Proxies {
		if p.Contains(at.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// partData is a part of an upload on the wire of our own client.
type partData struct {
	ID       string `json:"id"`
	Position int64  `json:"position"`
	Length   int64  `json:"length"`
	Offset   int64  `json:"offset"`
}

// requestUpload begins to take a file. The keys resume, mode and modified, and
// the answer's upload, are ours.
func (h *Handler) requestUpload(c *call) error {
	req := vfolder.UploadRequest{Path: c.required("path"), Size: int64(c.integer(-1, 0, 1<<62, "size")), Resume: c.text("", "resume")}
	if req.Size < 0 && c.err() == nil {
		c.fault("size", "is required")
	}
	req.Mode = fs.FileMode(c.integer(0, 0, 0o777, "mode"))
	if at := c.integer(0, -1<<62, 1<<62, "modified"); at != 0 {
		req.Modified = time.Unix(0, int64(at))
	}
	if err := c.err(); err != nil {
		return err
	}
	u, err := h.opts.Folders.RequestUpload(c.r.Context(), c.caller, c.path["folder"], req)
	if err != nil {
		return err
	}
	parts := make([]partData, 0, len(u.Parts))
	for _, p := range u.Parts {
		parts = append(parts, partData(p))
	}
	return c.json(http.StatusOK, map[string]any{
		"token": u.Token, "url": h.storageURL(c, "upload"), "upload": map[string]any{"id": u.ID, "parts": parts},
	})
}

// requestFill, which is ours, asks to put many files into a directory by one stream.
func (h *Handler) requestFill(c *call) error {
	dir := c.text(".", "path")
	if err := c.err(); err != nil {
		return err
	}
	token, err := h.opts.Folders.RequestFill(c.r.Context(), c.caller, c.path["folder"], dir)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"token": token, "url": h.storageURL(c, "upload-archive")})
}

func (h *Handler) requestDownload(c *call) error {
	return h.giveDownload(c, "download", vfolder.DownloadRequest{Path: c.required("path", "file"), Archive: c.flag(false, "archive")})
}

func (h *Handler) requestDownloadArchive(c *call) error {
	req := vfolder.DownloadRequest{Files: c.names("files"), Name: c.text("", "filename"), Archive: true}
	if len(req.Files) == 0 {
		c.fault("files", "is required")
	}
	return h.giveDownload(c, "download-archive", req)
}

func (h *Handler) giveDownload(c *call, endpoint string, req vfolder.DownloadRequest) error {
	if err := c.err(); err != nil {
		return err
	}
	token, err := h.opts.Folders.RequestDownload(c.r.Context(), c.caller, c.path["folder"], req)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"token": token, "url": h.storageURL(c, endpoint)})
}

// token is what the address of a storage endpoint allows.
func (c *call) token() string { return c.r.URL.Query().Get("token") }

func (h *Handler) storageStatus(c *call) error {
	return c.json(http.StatusOK, map[string]any{"status": "ok", "type": "client-facing", "storage-proxy": h.opts.Version})
}

func (h *Handler) storageUpload(c *call) error {
	return h.opts.Folders.ServeUpload(c.w, c.r, c.token(), c.path["part"])
}

func (h *Handler) storageDownload(c *call) error {
	return h.opts.Folders.ServeDownload(c.w, c.r, c.token())
}

func (h *Handler) storageFill(c *call) error {
	filled, err := h.opts.Folders.ServeFill(c.w, c.r, c.token())
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, filled)
}

// namesTime is how long the names of files may take to arrive.
const namesTime = 5 * time.Minute

// storageSame answers with the numbers of the files that need not be sent, one a line.
func (h *Handler) storageSame(c *call) error {
	rc := http.NewResponseController(c.w)
	_ = rc.EnableFullDuplex() // HTTP/1 ends the body with the first byte of the answer otherwise
	_ = rc.SetReadDeadline(time.Now().Add(namesTime))
	lines := c.lines("text/plain; charset=utf-8", "end")
	err := h.opts.Folders.Same(c.r.Context(), c.token(), c.r.Body, func(n int) error {
		_, err := fmt.Fprintln(lines, n)
		return err
	})
	if err != nil {
		return err
	}
	return lines.end()
}

// storageTree answers with everything below the path of the token, one JSON a line.
func (h *Handler) storageTree(c *call) error {
	lines := c.lines("application/x-ndjson", `{"end":true}`)
	to := json.NewEncoder(lines)
	if err := h.opts.Folders.Tree(c.r.Context(), c.token(), func(e vfolder.Entry) error { return to.Encode(e) }); err != nil {
		return err
	}
	return lines.end()
}

func (h *Handler) storageChecksum(c *call) error {
	sum, err := h.opts.Folders.Checksum(c.r.Context(), c.token(), c.r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, sum)
}

// space asks a storage host how full it is, but not for long.
func (h *Handler) space(c *call, host string) (free, total int64, err error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), spaceTime)
	defer cancel()
	return h.opts.Folders.Space(ctx, host)
}

// lineStream is an answer of many lines. It begins when there is something to
// send, so that what fails at once is a problem, and its last line tells that it
// is whole.
type lineStream struct {
	c    *call
	last string
	buf  []byte
}

// lineStep is how many bytes are sent at a time.
const lineStep = 64 << 10

func (c *call) lines(contentType, last string) *lineStream {
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Cache-Control", "no-store")
	return &lineStream{c: c, last: last}
}

// Write implements io.Writer.
func (l *lineStream) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if len(l.buf) < lineStep {
		return len(p), nil
	}
	return len(p), l.flush()
}

func (l *lineStream) flush() error {
	_ = http.NewResponseController(l.c.w).SetWriteDeadline(time.Now().Add(answerTime)) // what has no deadlines belongs to a test
	_, err := l.c.w.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

func (l *lineStream) end() error {
	l.buf = append(l.buf, l.last...)
	l.buf = append(l.buf, '\n')
	return l.flush()
}
