package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
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

// The sizes of what is sent at a time.
const (
	DefaultChunk = 16 << 20 // to servers that take one chunk after another
	smallFile    = 1 << 20  // is sent whole
	partSize     = 64 << 20
	mostParts    = 256
	workers      = 4
)

// FileUpload is a file that is to go into a folder.
type FileUpload struct {
	Folder   string
	Path     string // in the folder
	File     *os.File
	Chunk    int64            // for servers that take one chunk after another; 0 is DefaultChunk
	Tries    int              // 0 is DefaultTries
	Progress func(more int64) // bytes that are there now and were not before; less than 0 when some must be sent again
}

// UploadFile puts a file into a folder. To our server it sends several parts at
// a time, goes on with what an earlier call has sent of the same file, and has
// the server compare the hash of the whole before the file appears.
func (c *Client) UploadFile(ctx context.Context, up FileUpload) error {
	info, err := up.File.Stat()
	if err != nil {
		return err
	}
	u := &uploading{c: c, FileUpload: up, size: info.Size()}
	u.Chunk, u.Tries = cmp.Or(u.Chunk, DefaultChunk), cmp.Or(u.Tries, DefaultTries)
	if u.Progress == nil {
		u.Progress = func(int64) {}
	}
	resume, err := fingerprint(up.File, info)
	if err != nil {
		return err
	}
	u.request = object{"path": up.Path, "size": u.size, "resume": resume, "mode": int64(info.Mode().Perm()), "modified": info.ModTime().UnixNano()}
	// A file that changes on the way is begun anew, but not for ever.
	for range 3 {
		err = u.run(ctx)
		if !errors.Is(err, errBeginAgain) {
			break
		}
		u.Progress(-u.sent.Swap(0))
	}
	if now, statErr := up.File.Stat(); err == nil && statErr == nil && (now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime())) {
		return backendai.Errorf(backendai.CodeInvalidParams, "%s changed while it was sent", up.File.Name()).WithHint("send it again when nobody writes to it")
	}
	if errors.Is(err, errBeginAgain) {
		return backendai.Errorf(backendai.CodeVFolderFailed, "%s did not arrive as it was sent, three times", up.File.Name()).
			WithHint("does something write to the file? else look after the network, and the memory of both machines")
	}
	return err
}

// fingerprint tells one state of a file from another, without reading all of it.
func fingerprint(f *os.File, info os.FileInfo) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d ", f.Name(), info.Size(), info.ModTime().UnixNano())
	for _, at := range []int64{0, max(0, info.Size()-4096)} {
		if _, err := io.Copy(h, io.NewSectionReader(f, at, 4096)); err != nil {
			return "", fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// errBeginAgain is why a file is sent from its beginning: what the server has of
// it is not what it is.
var errBeginAgain = errors.New("the file must be sent again")

// uploading is one upload on its way.
type uploading struct {
	FileUpload

	c       *Client
	size    int64
	request object
	tree    *archive.Tree // of what has been sent
	sent    atomic.Int64

	mu    sync.Mutex
	grant grant
}

func (u *uploading) run(ctx context.Context) error {
	var err error
	if u.grant, err = u.c.ask(ctx, u.Folder, "request-upload", u.request); err != nil || u.size == 0 {
		return err
	}
	u.tree = archive.NewTree(u.size)
	ours := u.grant.Upload != nil && u.grant.Upload.ID != ""
	switch {
	case ours && u.size > smallFile:
		err = u.inParts(ctx)
	default:
		err = u.inOrder(ctx, ours)
	}
	if ours && statusOf(err) == http.StatusNotFound {
		// The last answer was lost, or the server has forgotten the upload.
		if u.arrived(ctx) {
			return nil
		}
		return errBeginAgain
	}
	return err
}

// now is the grant of this moment.
func (u *uploading) now() grant {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.grant
}

// renew asks for a new grant in the place of one that has expired.
func (u *uploading) renew(ctx context.Context, old string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.grant.Token != old { // another worker was faster
		return nil
	}
	fresh, err := u.c.ask(ctx, u.Folder, "request-upload", u.request)
	if err == nil {
		u.grant = fresh
	}
	return err
}

// send does one request of tus; a token that has expired is renewed.
func (u *uploading) send(ctx context.Context, method, part string, body func() (io.Reader, int64), header http.Header) (*http.Response, error) {
	suffix := ""
	for range 2 {
		g := u.now()
		if part != "" {
			suffix = "/" + g.Upload.ID + "/" + part
		}
		var reader io.Reader
		var length int64
		if body != nil {
			reader, length = body()
		}
		header = header.Clone()
		if header == nil {
			header = http.Header{}
		}
		header.Set("Tus-Resumable", "1.0.0")
		resp, err := u.c.storage(ctx, method, u.c.address(g, "", suffix, nil), reader, length, header)
		replaced := statusOf(err) == http.StatusBadRequest && u.now().Token != g.Token // by another worker meanwhile
		if statusOf(err) != http.StatusUnauthorized && !replaced {
			return resp, err
		}
		if err := u.renew(ctx, g.Token); err != nil {
			return nil, err
		}
	}
	return nil, backendai.Errorf(backendai.CodeAuthFailed, "the storage does not take the token that the server gave")
}

// patch sends bytes of the file and returns how far the part has come then.
func (u *uploading) patch(ctx context.Context, part string, position, offset, length int64, header http.Header) (int64, error) {
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/offset+octet-stream")
	header.Set("Upload-Offset", strconv.FormatInt(offset, 10))
	// What has left this machine shows at once; what has arrived counts in the end.
	var left atomic.Int64
	var bodies []*counted
	resp, err := u.send(ctx, http.MethodPatch, part, func() (io.Reader, int64) {
		var bytes io.Reader = io.NewSectionReader(u.File, position+offset, length)
		if part != "" { // else nobody asks for the hash of the whole
			bytes = io.TeeReader(bytes, u.tree.At(position+offset))
		}
		body := newCounted(bytes, func(n int64) { left.Add(n); u.Progress(n) })
		bodies = append(bodies, body)
		return body, length
	}, header)
	for _, body := range bodies {
		<-body.closed // it may be read for longer than the answer takes
	}
	u.Progress(-left.Load())
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	at, err := strconv.ParseInt(resp.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || resp.StatusCode != http.StatusNoContent {
		return 0, backendai.Errorf(backendai.CodeInternal, "the storage answered %s to a part of %q, without how far it has come", resp.Status, u.Path)
	}
	return at, nil
}

// counted tells of what is read of a body, and when nobody reads it any more.
type counted struct {
	io.Reader

	tell   func(n int64)
	once   sync.Once
	closed chan struct{}
}

func newCounted(r io.Reader, tell func(n int64)) *counted {
	return &counted{Reader: r, tell: tell, closed: make(chan struct{})}
}

// Read implements io.Reader.
func (r *counted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.tell(int64(n))
	return n, err
}

// Close implements io.Closer.
func (r *counted) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// offset asks how far a part has come.
func (u *uploading) offset(ctx context.Context, part string) (int64, error) {
	resp, err := u.send(ctx, http.MethodHead, part, nil, nil)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	at, err := strconv.ParseInt(resp.Header.Get("Upload-Offset"), 10, 64)
	if err != nil {
		return 0, backendai.Errorf(backendai.CodeInternal, "the storage does not tell how much of %q it has", u.Path)
	}
	return at, nil
}

// moved tells of progress to an offset.
func (u *uploading) moved(from *int64, to int64) {
	u.sent.Add(to - *from)
	u.Progress(to - *from)
	*from = to
}

// inOrder sends one chunk after another. A small file for our server is one
// chunk with its checksum.
func (u *uploading) inOrder(ctx context.Context, ours bool) error {
	var header http.Header
	chunk := u.Chunk
	if ours {
		chunk = u.size
		h := archive.NewHash()
		if _, err := io.Copy(h, io.NewSectionReader(u.File, 0, u.size)); err != nil {
			return err
		}
		header = http.Header{"Upload-Checksum": {checksumOf(archive.HashName, h.Sum(nil))}}
	}
	return u.carry(ctx, "", 0, u.size, 0, chunk, header)
}

func checksumOf(name string, sum []byte) string {
	return name + " " + base64.StdEncoding.EncodeToString(sum)
}

// carry sends a part from an offset on, and goes on after what passes.
func (u *uploading) carry(ctx context.Context, part string, position, length, offset, chunk int64, header http.Header) error {
	at, ask := offset, false
	last := at
	return persist(ctx, u.Tries, func() bool { progress := at > last; last = at; return progress }, func() error {
		if ask {
			now, err := u.offset(ctx, part)
			if err != nil {
				return err
			}
			u.moved(&at, now)
		}
		ask = true
		for at < length {
			now, err := u.patch(ctx, part, position, at, min(chunk, length-at), header)
			if err != nil {
				return err
			}
			u.moved(&at, now)
		}
		return nil
	})
}

// plan is the parts of the file in order: those that the server has, and new
// ones in the gaps.
func (u *uploading) plan(have []uploadPart) []uploadPart {
	size := max(partSize, (u.size/mostParts/archive.LeafSize+1)*archive.LeafSize)
	slices.SortFunc(have, func(a, b uploadPart) int { return cmp.Compare(a.Position, b.Position) })
	var parts []uploadPart
	var at int64
	fill := func(end int64) {
		for at < end {
			length := min(size, end-at)
			parts = append(parts, uploadPart{Position: at, Length: length})
			at += length
		}
	}
	for _, p := range have {
		fill(p.Position)
		parts = append(parts, p)
		at = p.Position + p.Length
	}
	fill(u.size)
	return parts
}

// inParts sends several parts at a time.
func (u *uploading) inParts(ctx context.Context) error {
	parts := u.plan(u.grant.Upload.Parts)
	g, working := errgroup.WithContext(ctx)
	each(working, g, workers, len(parts), func(i int) error { return u.part(working, &parts[i]) })
	if err := g.Wait(); err != nil {
		return err
	}
	return u.commit(ctx, parts)
}

// each does n things in order, several at a time, as a part of a group.
func each(ctx context.Context, g *errgroup.Group, workers, n int, do func(i int) error) {
	queue := make(chan int)
	g.Go(func() error {
		defer close(queue)
		for i := range n {
			select {
			case queue <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			for i := range queue {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// part makes a part, if it is new, and sends what is missing of it.
func (u *uploading) part(ctx context.Context, p *uploadPart) error {
	if p.ID == "" {
		header := http.Header{
			"Upload-Concat": {"partial"}, "Upload-Length": {strconv.FormatInt(p.Length, 10)},
			"Upload-Metadata": {"position " + base64.StdEncoding.EncodeToString([]byte(strconv.FormatInt(p.Position, 10)))},
		}
		err := persist(ctx, u.Tries, nil, func() error {
			resp, err := u.send(ctx, http.MethodPost, "", nil, header)
			if err != nil {
				return err
			}
			resp.Body.Close()
			at, err := url.Parse(resp.Header.Get("Location"))
			if err != nil || at.Path == "" {
				return backendai.Errorf(backendai.CodeInternal, "the storage does not tell where the part of %q goes", u.Path)
			}
			p.ID = at.Path[strings.LastIndex(at.Path, "/")+1:]
			return nil
		})
		if err != nil {
			return err
		}
	}
	var at int64
	u.moved(&at, p.Offset)
	// What an earlier program has sent does not pass here.
	if _, err := u.tree.Take(p.Position, &untilDone{ctx, io.NewSectionReader(u.File, p.Position, p.Offset)}); err != nil {
		return err
	}
	return u.carry(ctx, p.ID, p.Position, p.Length, p.Offset, p.Length, nil)
}

// commit lets the file appear if the server has what this side has.
func (u *uploading) commit(ctx context.Context, parts []uploadPart) error {
	sum, err := u.tree.Sum(u.File)
	if err != nil {
		return err
	}
	ids := make([]string, len(parts))
	for i, p := range parts {
		ids[i] = "/storage/upload/" + u.now().Upload.ID + "/" + p.ID
	}
	header := http.Header{"Upload-Concat": {"final;" + strings.Join(ids, " ")}, "Upload-Checksum": {checksumOf(archive.TreeName, sum)}}
	err = persist(ctx, u.Tries, nil, func() error {
		resp, err := u.send(ctx, http.MethodPost, "", nil, header)
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	if e, ok := errors.AsType[*storageError](err); ok && e.code == "ERR_CHECKSUM_MISMATCH" {
		return errBeginAgain
	}
	return err
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it is read for the length of one call
	io.Reader
}

// Read implements io.Reader.
func (r *untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// arrived tells whether the file is in the folder as it is here.
func (u *uploading) arrived(ctx context.Context) bool {
	there, err := u.c.folderChecksum(ctx, u.Folder, u.Path)
	if err != nil || there.Size != u.size {
		return false
	}
	tree := archive.NewTree(u.size)
	if _, err := tree.Take(0, &untilDone{ctx, io.NewSectionReader(u.File, 0, u.size)}); err != nil {
		return false
	}
	here, err := tree.Sum(u.File)
	if err != nil || hex.EncodeToString(here) != there.Hash {
		return false
	}
	u.Progress(u.size - u.sent.Swap(u.size))
	return true
}

// checksum is the hash of a file in a folder, and what tells its state.
type checksum struct {
	Hash string `json:"xxh64-tree"`
	Size int64  `json:"size"`
	Tag  string `json:"etag"`
}

// folderChecksum asks our server for the hash of a file.
func (c *Client) folderChecksum(ctx context.Context, folder, path string) (sum checksum, err error) {
	g, err := c.ask(ctx, folder, "request-download", object{"path": path, "file": path, "archive": false})
	if err != nil {
		return sum, err
	}
	return sum, c.storageJSON(ctx, http.MethodGet, c.address(g, "checksum", "", nil), &sum)
}
