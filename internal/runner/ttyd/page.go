package ttyd

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// pageFiles is the built page: each file is there only as NAME.gz.
//
//go:embed all:page
var pageFiles embed.FS

// asset is a file of the page.
type asset struct {
	zipped []byte
	kind   string // media type
	etag   string
}

// kinds are the media types of the page's files. What the image says of them,
// in files that package mime would read, could break the page.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func loadPage() map[string]asset {
	page := map[string]asset{}
	names, _ := fs.Glob(pageFiles, "page/*.gz") // the pattern is right
	for _, file := range names {
		data, err := pageFiles.ReadFile(file)
		if err != nil {
			continue // an embedded file can be read
		}
		name := strings.TrimSuffix(path.Base(file), ".gz")
		sum := sha256.Sum256(data)
		page[name] = asset{zipped: data, kind: kinds[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	return page
}

const notBuilt = "The terminal's page is not part of this build: its sources in web/ were not compiled.\n" +
	"Build with `make build`. The terminal itself works: any client of ttyd's protocol can connect to /ws.\n"

// servePage answers with a file of the page, compressed as it lies there if
// the browser can read that.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "index.html"
	}
	page := s.page()
	a, ok := page[name]
	if !ok {
		if len(page) == 0 && name == "index.html" {
			http.Error(w, notBuilt, http.StatusServiceUnavailable)
			return
		}
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("ETag", a.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(a.zipped)
		return
	}
	plain, err := gzip.NewReader(bytes.NewReader(a.zipped))
	if err != nil {
		http.Error(w, "the page is damaged", http.StatusInternalServerError)
		return
	}
	_, _ = io.Copy(w, plain) //nolint:gosec // our own file
}
