package vfolder

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"backendai/internal/archive"
)

// wantsTree tells whether a request asks for the hash of the whole file and can
// have it: HTTP/1.0, which some proxies speak, has no trailers.
func wantsTree(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) && strings.HasPrefix(r.Header.Get(archive.WantDigest), archive.TreeName+"=")
}

// passing is a file whose bytes are hashed as they are read.
type passing struct {
	file *os.File
	tree *archive.Tree
	hash io.Writer
}

func newPassing(f *os.File, size int64) *passing {
	tree := archive.NewTree(size)
	return &passing{f, tree, tree.At(0)}
}

// Read implements io.Reader.
func (p *passing) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	_, _ = p.hash.Write(b[:n]) // never fails
	return n, err
}

// Seek implements io.Seeker.
func (p *passing) Seek(offset int64, whence int) (int64, error) {
	at, err := p.file.Seek(offset, whence)
	p.hash = p.tree.At(at)
	return at, err
}

// digest is the value of archive.ReprDigest, or empty when the file is not any more what
// it was when it was opened. What has not been sent is read.
func (p *passing) digest(ctx context.Context, opened fs.FileInfo) string {
	sum, err := p.tree.Sum(contextReaderAt{ctx, p.file})
	if err != nil {
		return ""
	}
	if now, err := p.file.Stat(); err != nil || tag(now) != tag(opened) {
		return ""
	}
	return archive.Digest(sum)
}

// contextReaderAt ends with its context.
type contextReaderAt struct {
	ctx context.Context //nolint:containedctx // it is read for the length of one call
	io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (r contextReaderAt) ReadAt(p []byte, at int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.ReaderAt.ReadAt(p, at)
}

// trailing is an answer that announces a digest. Trailers need an answer in
// chunks, without a length before it (RFC 9112, section 7.1.2).
type trailing struct {
	steady

	announced bool
}

// WriteHeader implements http.ResponseWriter.
func (w *trailing) WriteHeader(status int) {
	if status == http.StatusOK || status == http.StatusPartialContent {
		w.announced = true
		w.Header().Del("Content-Length")
		w.Header().Set("Trailer", archive.ReprDigest)
	}
	w.steady.WriteHeader(status)
}
