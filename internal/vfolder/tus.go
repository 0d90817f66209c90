package vfolder

import (
	"context"
	"crypto/sha1" //nolint:gosec // tus 1.0 demands it of servers with checksums
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"
	xslog "golang.org/x/exp/slog"

	"backendai"
	"backendai/internal/archive"
)

// UploadBase is the path of uploads below the address of the server.
const UploadBase = "/storage/upload/"

const (
	silence    = time.Minute // without a byte, after which an upload's connection is given up
	answerTime = time.Minute // to take an answer
	blockSize  = 256 << 10
)

// statusChecksum is what tus answers when a checksum does not fit.
const statusChecksum = 460

var (
	errChecksum = handler.NewError("ERR_CHECKSUM_MISMATCH", "the bytes that arrived do not have the checksum that was sent", statusChecksum)
	errTreeSum  = handler.NewError("ERR_INVALID_CHECKSUM", "the checksum of a whole file, and of nothing else, is of the form xxh64-tree BASE64", http.StatusBadRequest)
	errBadPart  = handler.NewError("ERR_INVALID_PART", "a partial upload needs the metadata position, must lie in the file and must not overlap another", http.StatusBadRequest)
	errParts    = handler.NewError("ERR_INVALID_CONCAT", "the partial uploads are not the whole file in its order", http.StatusBadRequest)
	errSize     = handler.NewError("ERR_INVALID_UPLOAD_LENGTH", "the upload has another length than it was asked for with", http.StatusBadRequest)
)

// newTus makes the handler of the protocol on top of our uploads.
func (s *Service) newTus() (http.Handler, error) {
	composer := handler.NewStoreComposer()
	composer.UseCore(tusStore{})
	composer.UseTerminater(tusStore{})
	composer.UseConcater(tusStore{})
	s.locks.UseIn(composer)
	// The handler's own log has every request, with more of it than a log should.
	quiet := xslog.New(xslog.NewTextHandler(io.Discard, &xslog.HandlerOptions{Level: xslog.Level(100)}))
	h, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer: composer, BasePath: UploadBase, DisableDownload: true, Logger: quiet, NetworkTimeout: silence,
		// What must be finished when a client goes away is finished on a context of its own.
		GracefulRequestCompletionTimeout: time.Millisecond,
	})
	if err != nil {
		return nil, fmt.Errorf("make upload handler: %w", err)
	}
	return h.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			h.PostFile(w, r)
		case http.MethodHead:
			h.HeadFile(w, r)
		case http.MethodPatch:
			h.PatchFile(w, r)
		case http.MethodDelete:
			h.DelFile(w, r)
		}
	})), nil
}

// ServeUpload answers a request of tus 1.0 for the upload of the token, or for
// the named part of it. An error has not been answered yet.
func (s *Service) ServeUpload(w http.ResponseWriter, r *http.Request, token, part string) error {
	call := &tusCall{service: s}
	reply := &tusReply{ResponseWriter: w, call: call, options: r.Method == http.MethodOptions}
	if !reply.options {
		if err := call.open(r, token); err != nil {
			return err
		}
	}
	r = r.WithContext(context.WithValue(r.Context(), tusKey{}, call))
	target := *r.URL
	target.Path, target.RawPath, r.URL = part, "", &target
	if call.upload != nil {
		r.URL.Path = strings.TrimSuffix(call.upload.id+"/"+part, "/")
	}
	if r.Header.Get("Tus-Resumable") == "" {
		r.Header.Set("Tus-Resumable", "1.0.0") // clients of one version do not always say so
	}
	s.tus.ServeHTTP(reply, r)
	// The handler's deadlines are not for what comes next on the connection.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	return call.err
}

type tusKey struct{}

// tusCall is one request on its way through the handler, which hands its
// context to the store.
type tusCall struct {
	service *Service
	view    View
	upload  *upload
	sum     checksum
	err     error // of the service; the handler's answer is held back
}

// open finds the upload of a token.
func (c *tusCall) open(r *http.Request, token string) error {
	s := c.service
	claims, err := s.verify(token, opUpload)
	if err != nil {
		return err
	}
	if c.view, err = s.holder(r.Context(), claims, backendai.ReadWrite); err != nil {
		return err
	}
	dir, err := s.folderDir(r.Context(), c.view.VFolder)
	if err != nil {
		return err
	}
	if c.upload, err = s.load(r.Context(), c.view, filepath.Join(dir, stagingDir), claims.Session); err != nil {
		return err
	}
	into := "."
	if dir := r.URL.Query().Get("dst_dir"); dir != "" {
		if into, err = cleanPath(dir); err != nil {
			return err
		}
	}
	c.upload.mu.Lock()
	c.upload.into = into
	turn := c.upload.meta.Turn
	c.upload.active = s.now()
	c.upload.mu.Unlock()
	if turn != claims.Turn {
		return backendai.Errorf(backendai.CodeVFolderFailed, "%q is being uploaded by another program that began later", claims.Path).
			WithHint("let it finish")
	}
	c.sum, err = parseChecksum(r.Header.Get("Upload-Checksum"))
	return err
}

// fail remembers an error of the service, which the API answers with.
func (c *tusCall) fail(err error) error {
	if _, ok := errors.AsType[handler.Error](err); ok {
		return err
	}
	c.err = err
	return handler.NewError("ERR_STORAGE", "", http.StatusInternalServerError)
}

// tusReply holds the handler's answer back when the service has failed.
type tusReply struct {
	http.ResponseWriter

	call    *tusCall
	options bool
}

// WriteHeader implements http.ResponseWriter.
func (w *tusReply) WriteHeader(status int) {
	if w.call.err != nil {
		for _, name := range []string{"Content-Length", "Content-Type"} {
			w.Header().Del(name)
		}
		return
	}
	if w.options {
		w.Header().Set("Tus-Extension", w.Header().Get("Tus-Extension")+",checksum")
		w.Header().Set("Tus-Checksum-Algorithm", "sha256,sha1,"+archive.HashName)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *tusReply) Write(p []byte) (int, error) {
	if w.call.err != nil {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *tusReply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// checksum is what a client says of the bytes that it sends.
type checksum struct {
	name string // "" when it says nothing
	want []byte
}

func parseChecksum(header string) (checksum, error) {
	if header == "" {
		return checksum{}, nil
	}
	name, text, _ := strings.Cut(header, " ")
	want, err := base64.StdEncoding.DecodeString(text)
	c := checksum{strings.ToLower(name), want}
	if err != nil || len(want) == 0 || len(want) != c.size() {
		return checksum{}, backendai.Errorf(backendai.CodeInvalidParams, "the checksum %q is not understood", shorten(header)).
			WithHint("it has the form: sha256 BASE64")
	}
	return c, nil
}

// size is that of the sum in bytes, 0 for a hash that is not known.
func (c checksum) size() int {
	if c.name == archive.TreeName {
		return archive.NewHash().Size()
	}
	if h := c.new(); h != nil {
		return h.Size()
	}
	return 0
}

// new is nil for what is not the hash of bytes that are sent at once.
func (c checksum) new() hash.Hash {
	switch c.name {
	case archive.HashName:
		return archive.NewHash()
	case "sha256":
		return sha256.New()
	case "sha1":
		return sha1.New() //nolint:gosec // see the import
	default:
		return nil
	}
}

func (c checksum) fits(sum []byte) bool { return subtle.ConstantTimeCompare(c.want, sum) == 1 }

// tusStore is the handler's view of uploads; which one, the request's context says.
type tusStore struct{}

func callOf(ctx context.Context) *tusCall {
	c, _ := ctx.Value(tusKey{}).(*tusCall)
	return c
}

// NewUpload implements handler.DataStore. The upload itself was made when its
// token was: this makes its parts.
func (tusStore) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	c := callOf(ctx)
	u := c.upload
	if !info.IsPartial {
		if info.Size != u.meta.Size || info.SizeIsDeferred {
			return nil, errSize
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		return &tusUpload{c, u.parts[""]}, nil
	}
	position, err := strconv.ParseInt(info.MetaData["position"], 10, 64)
	if err != nil || position < 0 || info.Size <= 0 || info.SizeIsDeferred || position > u.meta.Size-info.Size {
		return nil, errBadPart
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	id := "p" + strconv.FormatInt(position, 10)
	for other, p := range u.parts {
		switch {
		case other == "":
		case other == id && p.Length == info.Size:
			return &tusUpload{c, p}, nil
		case position < p.Position+p.Length && p.Position < position+info.Size:
			return nil, errBadPart
		}
	}
	if len(u.parts) > maxParts || u.done {
		return nil, errBadPart
	}
	if err := u.addPart(id, position, info.Size); err != nil {
		return nil, c.fail(fullDisk(c.view.Name, err))
	}
	return &tusUpload{c, u.parts[id]}, nil
}

// GetUpload implements handler.DataStore.
func (tusStore) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	c := callOf(ctx)
	name, part, _ := strings.Cut(id, "/")
	c.upload.mu.Lock()
	defer c.upload.mu.Unlock()
	p := c.upload.parts[part]
	if name != c.upload.id || p == nil || c.upload.done {
		return nil, handler.ErrNotFound
	}
	return &tusUpload{c, p}, nil
}

// AsTerminatableUpload implements handler.TerminaterDataStore.
func (tusStore) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload {
	return u.(*tusUpload) //nolint:forcetypeassert // the handler gives back what it got
}

// AsConcatableUpload implements handler.ConcaterDataStore.
func (tusStore) AsConcatableUpload(u handler.Upload) handler.ConcatableUpload {
	return u.(*tusUpload) //nolint:forcetypeassert // the handler gives back what it got
}

// tusUpload is a part of an upload, or all of it.
type tusUpload struct {
	call *tusCall
	part *part
}

func (t *tusUpload) whole() bool { return t.part.ID == "" }

func (t *tusUpload) state() Part {
	t.call.upload.mu.Lock()
	defer t.call.upload.mu.Unlock()
	return t.part.Part
}

// GetInfo implements handler.Upload.
func (t *tusUpload) GetInfo(context.Context) (handler.FileInfo, error) {
	p := t.state()
	info := handler.FileInfo{ID: t.call.upload.id, Size: p.Length, Offset: p.Offset, IsPartial: !t.whole()}
	if !t.whole() {
		info.ID += "/" + t.part.ID
	}
	return info, nil
}

// GetReader implements handler.Upload: nothing is read that is not published.
func (t *tusUpload) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, handler.ErrNotImplemented
}

var blocks = sync.Pool{New: func() any { return make([]byte, blockSize) }}

// WriteChunk implements handler.Upload. What has been written counts at once,
// unless a checksum must tell first whether it does; so nothing that was
// acknowledged is lost when the server ends at any moment.
func (t *tusUpload) WriteChunk(_ context.Context, offset int64, src io.Reader) (int64, error) {
	u, sum := t.call.upload, t.call.sum.new()
	if t.call.sum.name == archive.TreeName {
		return 0, errTreeSum
	}
	f, err := os.OpenFile(filepath.Join(u.dir, contentFile), os.O_WRONLY, 0)
	if err != nil {
		return 0, t.call.fail(t.call.service.lost(t.call.view.VFolder, err))
	}
	defer f.Close()
	record, err := os.OpenFile(t.part.record, os.O_WRONLY, 0)
	if err != nil {
		return 0, t.call.fail(t.call.service.lost(t.call.view.VFolder, err))
	}
	defer record.Close()
	block := blocks.Get().([]byte) //nolint:forcetypeassert // the pool has nothing else
	defer blocks.Put(block)        //nolint:staticcheck // its header is small against what it holds
	tree := io.Discard             // whoever sends no parts does not ask for the hash of the whole
	if !t.whole() {
		tree = u.tree.At(t.part.Position + offset)
	}
	var n, flushed int64
	for {
		got, readErr := src.Read(block)
		if got > 0 {
			if err := t.part.put(f, block[:got], offset+n); err != nil {
				return t.written(record, offset, n, sum == nil), t.call.fail(fullDisk(t.call.view.Name, err))
			}
			n += int64(got)
			_, _ = tree.Write(block[:got]) // never fails
			if sum != nil {
				sum.Write(block[:got])
			} else {
				t.written(record, offset, n, true)
			}
			if n-flushed >= archive.WritebackStep {
				archive.StartWriteback(f, t.part.Position+offset+flushed, n-flushed)
				flushed = n
			}
		}
		if readErr != nil {
			break // the handler keeps what is wrong with the body
		}
	}
	if sum != nil {
		if !t.call.sum.fits(sum.Sum(nil)) {
			return 0, errChecksum
		}
		t.written(record, offset, n, true)
	}
	return n, nil
}

// written records how much of the part is here, if it counts, and returns how much more that is.
func (t *tusUpload) written(record *os.File, offset, n int64, counts bool) int64 {
	if !counts {
		return 0
	}
	u := t.call.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	u.arrived.Add(offset + n - t.part.Offset)
	t.part.Offset = offset + n
	u.active = t.call.service.now()
	if u.done {
		return n
	}
	if _, err := record.WriteAt(t.part.bytes(), 0); err != nil {
		t.call.service.log.Warn("progress of upload is not kept", "upload", u.id, "err", err)
	}
	return n
}

// put writes bytes of a part, but leaves a hole where they are zeros and nothing
// has been written before. The handler lets one request at a time have a part.
func (p *part) put(f *os.File, block []byte, at int64) error {
	end := at + int64(len(block))
	if at >= p.touched {
		p.touched = max(p.touched, end)
		_, err := archive.WriteSparse(f, block, p.Position+at)
		return err
	}
	p.touched = max(p.touched, end)
	_, err := f.WriteAt(block, p.Position+at)
	return err
}

// FinishUpload implements handler.Upload; the handler calls it with the last
// byte of a part, too.
func (t *tusUpload) FinishUpload(ctx context.Context) error {
	if !t.whole() {
		return nil
	}
	return t.publish(ctx)
}

// publish puts the file in its place, even when its client has just gone.
func (t *tusUpload) publish(ctx context.Context) error {
	if err := t.call.service.publish(context.WithoutCancel(ctx), t.call.view, t.call.upload); err != nil {
		return t.call.fail(err)
	}
	return nil
}

// Terminate implements handler.TerminatableUpload: the client gives the upload up.
func (t *tusUpload) Terminate(context.Context) error {
	if !t.whole() {
		return handler.ErrNotImplemented
	}
	if err := t.call.service.drop(t.call.upload); err != nil {
		return t.call.fail(err)
	}
	return nil
}

// ConcatUploads implements handler.ConcatableUpload. The parts stand in the file
// already; what is left is to see that they are all of it, and are what was sent.
func (t *tusUpload) ConcatUploads(ctx context.Context, parts []handler.Upload) error {
	u := t.call.upload
	var list []Part
	for _, p := range parts {
		one, ok := p.(*tusUpload)
		if !ok || one.whole() {
			return errParts
		}
		list = append(list, one.state())
	}
	if !slices.Equal(list, u.pieces()) || u.complete() != u.meta.Size {
		return errParts
	}
	if t.call.sum.name != "" {
		if t.call.sum.name != archive.TreeName {
			return errTreeSum
		}
		sum, err := u.digest()
		if err != nil {
			return t.call.fail(t.call.service.lost(t.call.view.VFolder, err))
		}
		if !t.call.sum.fits(sum) {
			return errors.Join(errChecksum, t.call.service.drop(u))
		}
	}
	return t.publish(ctx)
}
