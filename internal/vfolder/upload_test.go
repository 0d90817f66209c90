//go:build linux

package vfolder_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backendai"
	"backendai/internal/archive"
	"backendai/internal/vfolder"
)

// serve gives the storage endpoints of a world an address.
func (w *world) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		part := strings.Trim(strings.TrimPrefix(r.URL.Path, strings.TrimSuffix(vfolder.UploadBase, "/")), "/")
		if _, p, ok := strings.Cut(part, "/"); ok {
			part = p
		} else {
			part = ""
		}
		if err := w.ServeUpload(rw, r, r.URL.Query().Get("token"), part); err != nil {
			http.Error(rw, err.Error(), backendai.CodeOf(err).HTTPStatus())
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + strings.TrimSuffix(vfolder.UploadBase, "/")
}

// tus sends one request of the protocol.
func tus(t *testing.T, method, url string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Tus-Resumable", "1.0.0")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/offset+octet-stream")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func wantStatus(t *testing.T, what string, resp *http.Response, status int) {
	t.Helper()
	if resp.StatusCode != status {
		text, _ := io.ReadAll(resp.Body)
		t.Errorf("%s: %s, want %d: %s", what, resp.Status, status, text)
	}
}

func sum(content []byte) string {
	h := archive.NewHash()
	h.Write(content)
	return archive.HashName + " " + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// wholeSum is the checksum of a whole file.
func wholeSum(t *testing.T, content []byte) string {
	t.Helper()
	tree := archive.NewTree(int64(len(content)))
	h, err := tree.Sum(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return archive.TreeName + " " + base64.StdEncoding.EncodeToString(h)
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

func (w *world) request(t *testing.T, who backendai.Caller, folder string, req vfolder.UploadRequest) vfolder.Upload {
	t.Helper()
	u, err := w.RequestUpload(t.Context(), who, folder, req)
	if err != nil {
		t.Fatalf("request upload of %q: %v", req.Path, err)
	}
	return u
}

// staged are the uploads that are not finished.
func (w *world) staged(t *testing.T, v vfolder.View) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(w.content(v)), "upload"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func (w *world) has(t *testing.T, v vfolder.View, name string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(w.content(v), name))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q has %d bytes, want %d (equal: %t), %v", name, len(got), len(content), bytes.Equal(got, content), err)
	}
}

// TestUploadAsOriginal is an upload as the original's clients do it: chunks from
// 0 on, and nothing else.
func TestUploadAsOriginal(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	content := noise(100_000)
	w.write(t, v, "dir/old", "will be replaced")
	for _, name := range []string{"dir/old", "new/a b/ü\n.bin"} {
		u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: name, Size: int64(len(content))})
		for at := 0; at < len(content); at += 40_000 {
			end := min(at+40_000, len(content))
			resp := tus(t, "PATCH", url+"?token="+u.Token, bytes.NewReader(content[at:end]), "Upload-Offset", strconv.Itoa(at))
			wantStatus(t, "PATCH", resp, http.StatusNoContent)
			if got := resp.Header.Get("Upload-Offset"); got != strconv.Itoa(end) {
				t.Errorf("Upload-Offset = %q, want %d", got, end)
			}
		}
		w.has(t, v, name, content)
		wantStatus(t, "a second use of the token", tus(t, "PATCH", url+"?token="+u.Token, strings.NewReader("x"), "Upload-Offset", "0"), http.StatusNotFound)
	}
	info, err := os.Stat(filepath.Join(w.content(v), "dir/old"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; os.Geteuid() == 0 && uid != 1000 {
		t.Errorf("the file belongs to %d", uid)
	}
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if got, err := w.Find(t.Context(), w.alice, "data"); err != nil || got.UsedBytes != 200_000 {
		t.Errorf("%d bytes are used, %v", got.UsedBytes, err)
	}
	// Newer clients name a directory beside the token.
	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "file", Size: 5})
	wantStatus(t, "out by a directory", tus(t, "PATCH", url+"?dst_dir=..%2Fx&token="+u.Token, strings.NewReader("12345"), "Upload-Offset", "0"), http.StatusBadRequest)
	wantStatus(t, "into a directory", tus(t, "PATCH", url+"?dst_dir=made%2Fhere&token="+u.Token, strings.NewReader("12345"), "Upload-Offset", "0"), http.StatusNoContent)
	w.has(t, v, "made/here/file", []byte("12345"))
	// An empty file is there at once.
	w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "empty"})
	w.has(t, v, "empty", nil)
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestUploadFaults(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	w.write(t, v, "dir/file", "")
	for _, c := range []struct {
		path string
		size int64
		code backendai.Code
	}{
		{"", 1, backendai.CodeInvalidParams}, {"../x", 1, backendai.CodeInvalidParams}, {"a/../../x", 1, backendai.CodeInvalidParams}, {".", 1, backendai.CodeInvalidParams},
		{"x\x00", 1, backendai.CodeInvalidParams}, {strings.Repeat("x", 256), 1, backendai.CodeInvalidParams}, {"x", -1, backendai.CodeInvalidParams},
		{"dir", 1, backendai.CodeVFolderFailed}, {"x", 1 << 62, backendai.CodeVFolderFailed}, {"dir/file/below", 1, backendai.CodeNotFound},
	} {
		_, err := w.RequestUpload(t.Context(), w.alice, "data", vfolder.UploadRequest{Path: c.path, Size: c.size})
		wantCode(t, fmt.Sprintf("%.20q", c.path), err, c.code)
	}
	_, err := w.RequestUpload(t.Context(), w.stranger, v.ID, vfolder.UploadRequest{Path: "x", Size: 1})
	wantCode(t, "the stranger", err, backendai.CodeNotFound)

	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "file", Size: 10})
	at := url + "?token=" + u.Token
	patch := func(body, offset string, headers ...string) *http.Response {
		return tus(t, "PATCH", at, strings.NewReader(body), append([]string{"Upload-Offset", offset}, headers...)...)
	}
	wantStatus(t, "a wrong offset", patch("x", "5"), http.StatusConflict)
	wantStatus(t, "a negative offset", patch("x", "-1"), http.StatusBadRequest)
	wantStatus(t, "a body longer than announced", patch("12345678901", "0"), http.StatusRequestEntityTooLarge)
	wantStatus(t, "a wrong checksum", patch("12345", "0", "Upload-Checksum", sum([]byte("1234x"))), 460)
	wantStatus(t, "no checksum", patch("12345", "0", "Upload-Checksum", "md5 abc"), http.StatusBadRequest)
	wantStatus(t, "another media type", patch("12345", "0", "Content-Type", "text/plain"), http.StatusBadRequest)
	head := tus(t, "HEAD", at, nil)
	if head.StatusCode != 200 || head.Header.Get("Upload-Offset") != "0" || head.Header.Get("Upload-Length") != "10" || head.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("HEAD = %s %v", head.Status, head.Header)
	}
	sha := sha256.Sum256([]byte("12345"))
	wantStatus(t, "a right checksum", patch("12345", "0", "Upload-Checksum", "sha256 "+base64.StdEncoding.EncodeToString(sha[:])), http.StatusNoContent)
	wantStatus(t, "the same again", patch("12345", "0"), http.StatusConflict)
	wantStatus(t, "the rest", patch("67890", "5"), http.StatusNoContent)
	w.has(t, v, "file", []byte("1234567890"))

	options := tus(t, "OPTIONS", url, nil)
	if got := options.Header.Get("Tus-Extension"); options.Header.Get("Tus-Version") != "1.0.0" || !strings.Contains(got, "concatenation") || !strings.Contains(got, "checksum") {
		t.Errorf("OPTIONS = %v", options.Header)
	}
	w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "given up", Size: 10})
	w.clock = w.clock.Add(49 * time.Hour)
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "file", Size: 5})
	try := func(token string) int {
		return tus(t, "PATCH", url+"?token="+token, strings.NewReader("12345"), "Upload-Offset", "0").StatusCode
	}
	parts := strings.Split(u.Token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"file"`, `"other"`, 1)))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	for _, token := range []string{"", "x", "..", parts[0] + "." + parts[1] + ".", parts[0] + "." + forged + "." + parts[2], none + "." + parts[1] + ".", none + "." + parts[1] + "." + parts[2], u.Token + "x"} {
		if got := try(token); got != http.StatusUnauthorized {
			t.Errorf("token %q: %d", token, got)
		}
	}
	other := newWorld(t, func(o *vfolder.Options) { o.Key = []byte("another key") })
	other.create(t, other.alice, "data")
	if got := try(other.request(t, other.alice, "data", vfolder.UploadRequest{Path: "file", Size: 5}).Token); got != http.StatusUnauthorized {
		t.Errorf("a token of another server: %d", got)
	}
	w.clock = w.clock.Add(25 * time.Hour)
	if got := try(u.Token); got != http.StatusUnauthorized {
		t.Errorf("an expired token: %d", got)
	}
	w.clock = w.clock.Add(-25 * time.Hour)

	// A token ends with the right that it was made with.
	share := vfolder.Share{FolderID: v.ID, UserID: w.stranger.User.ID, Permission: backendai.ReadWrite}
	if err := w.store.SetShare(ctx, share); err != nil {
		t.Fatal(err)
	}
	shared := w.request(t, w.stranger, v.ID, vfolder.UploadRequest{Path: "theirs", Size: 5})
	if err := w.store.DeleteShare(ctx, v.ID, w.stranger.User.ID); err != nil {
		t.Fatal(err)
	}
	if got := try(shared.Token); got != http.StatusNotFound {
		t.Errorf("a token of someone who has lost the folder: %d", got)
	}
	share.Permission = backendai.ReadOnly
	if err := w.store.SetShare(ctx, share); err != nil {
		t.Fatal(err)
	}
	if got := try(shared.Token); got != http.StatusForbidden {
		t.Errorf("a token of someone who may only read now: %d", got)
	}
	if err := w.Trash(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	if got := try(u.Token); got != http.StatusNotFound {
		t.Errorf("a token for a deleted folder: %d", got)
	}
	if err := w.Restore(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	if got := try(u.Token); got != http.StatusNoContent {
		t.Errorf("after all that: %d", got)
	}
	w.has(t, v, "file", []byte("12345"))
}

// position is the metadata of a part.
func position(n int) string {
	return "position " + base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(n)))
}

// TestParts is an upload as our own client does it: parts at the same time, and
// the hash of the whole at the end.
func TestParts(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	content := noise(1_000_000)
	copy(content[300_000:700_000], make([]byte, 400_000)) // zeros, which take no room
	req := vfolder.UploadRequest{Path: "dir/file", Size: int64(len(content)), Resume: "fingerprint", Mode: 0o600, Modified: time.Unix(1e9, 0)}
	u := w.request(t, w.alice, "data", req)
	const size = 250_000
	var locations []string
	for at := 0; at < len(content); at += size {
		resp := tus(t, "POST", url+"?token="+u.Token, nil, "Upload-Concat", "partial", "Upload-Length", strconv.Itoa(size), "Upload-Metadata", position(at))
		wantStatus(t, "POST of a part", resp, http.StatusCreated)
		locations = append(locations, resp.Header.Get("Location"))
	}
	for _, bad := range []struct{ at, length int }{{100, size}, {len(content), 1}, {-1, 10}, {0, 0}, {0, size - 1}} {
		resp := tus(t, "POST", url+"?token="+u.Token, nil, "Upload-Concat", "partial", "Upload-Length", strconv.Itoa(bad.length), "Upload-Metadata", position(bad.at))
		wantStatus(t, fmt.Sprintf("a part at %d of %d", bad.at, bad.length), resp, http.StatusBadRequest)
	}
	final := "final;" + strings.Join(locations, " ")
	commit := func(headers ...string) *http.Response {
		return tus(t, "POST", url+"?token="+u.Token, nil, append([]string{"Upload-Concat", final}, headers...)...)
	}
	wantStatus(t, "the end before all is there", commit(), http.StatusBadRequest)
	var wg sync.WaitGroup
	for i, location := range locations {
		if i == 3 {
			continue
		}
		wg.Go(func() {
			resp := tus(t, "PATCH", location+"?token="+u.Token, bytes.NewReader(content[i*size:(i+1)*size]), "Upload-Offset", "0")
			wantStatus(t, "PATCH of a part", resp, http.StatusNoContent)
		})
	}
	wg.Wait()
	// Half of the last part, and then the server is another one.
	body, write := io.Pipe()
	req2, err := http.NewRequestWithContext(t.Context(), "PATCH", locations[3]+"?token="+u.Token, body)
	if err != nil {
		t.Fatal(err)
	}
	req2.ContentLength = size
	for name, value := range map[string]string{"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"} {
		req2.Header.Set(name, value)
	}
	wg.Go(func() {
		if resp, err := http.DefaultClient.Do(req2); err == nil {
			resp.Body.Close()
			t.Errorf("a body that breaks off: %s", resp.Status)
		}
	})
	if _, err := write.Write(content[3*size : 3*size+100_000]); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(filepath.Dir(w.content(v)), "upload", u.ID, "part.p750000")
	for got := uint64(0); got != 100_000 && t.Context().Err() == nil; {
		b, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		got = binary.BigEndian.Uint64(b[16:])
	}
	_ = write.CloseWithError(io.ErrUnexpectedEOF)
	wg.Wait()
	again := &world{store: w.store, dir: w.dir, alice: w.alice, stranger: w.stranger, clock: w.clock}
	again.Service, err = vfolder.New(vfolder.Options{
		Store: w.store, Hosts: map[string]string{host: w.dir}, DefaultHost: host, Key: []byte("a key of the test"), Now: func() time.Time { return w.clock },
	})
	if err != nil {
		t.Fatal(err)
	}
	first := u.Token
	url = again.serve(t)
	u = again.request(t, again.alice, "data", req)
	if len(u.Parts) != 4 || u.Parts[0].Offset != size || u.Parts[3].Offset != 100_000 {
		t.Fatalf("after the crash: %+v", u.Parts)
	}
	wantStatus(t, "the earlier token", tus(t, "HEAD", url+"/"+u.ID+"/p0?token="+first, nil), http.StatusBadRequest)
	resp := tus(t, "PATCH", url+"/"+u.ID+"/"+u.Parts[3].ID+"?token="+u.Token, bytes.NewReader(content[3*size+100_000:]), "Upload-Offset", "100000")
	wantStatus(t, "the rest", resp, http.StatusNoContent)
	wantStatus(t, "parts in another order", tus(t, "POST", url+"?token="+u.Token, nil, "Upload-Concat", "final;"+strings.Join([]string{locations[1], locations[0], locations[2], locations[3]}, " ")), http.StatusBadRequest)
	wantStatus(t, "the end", commit("Upload-Checksum", wholeSum(t, content)), http.StatusCreated)
	w.has(t, v, "dir/file", content)
	info, err := os.Stat(filepath.Join(w.content(v), "dir/file"))
	if err != nil || info.Mode().Perm() != 0o600 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("%v %v, %v", info.Mode(), info.ModTime(), err)
	}
	if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; blocks > 800_000 {
		t.Errorf("a file with 400000 zeros takes %d bytes", blocks)
	}
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestWrongHashOfWhole(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	w.write(t, v, "file", "as it was")
	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "file", Size: 10, Resume: "x"})
	resp := tus(t, "POST", url+"?token="+u.Token, nil, "Upload-Concat", "partial", "Upload-Length", "10", "Upload-Metadata", position(0))
	location := resp.Header.Get("Location")
	at := location + "?token=" + u.Token
	wantStatus(t, "PATCH with the hash of a whole", tus(t, "PATCH", at, strings.NewReader("1234567890"), "Upload-Offset", "0", "Upload-Checksum", wholeSum(t, nil)), http.StatusBadRequest)
	wantStatus(t, "PATCH", tus(t, "PATCH", at, strings.NewReader("1234567890"), "Upload-Offset", "0"), http.StatusNoContent)
	wantStatus(t, "the end", tus(t, "POST", url+"?token="+u.Token, nil, "Upload-Concat", "final;"+location, "Upload-Checksum", wholeSum(t, []byte("other"))), 460)
	w.has(t, v, "file", []byte("as it was"))
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, func(o *vfolder.Options) { o.FolderQuota, o.UserQuota = 100, 150 })
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.create(t, w.alice, "more")
	url := w.serve(t)
	w.write(t, v, "old", strings.Repeat("x", 40))
	ask := func(folder, path string, size int64) error {
		_, err := w.RequestUpload(ctx, w.alice, folder, vfolder.UploadRequest{Path: path, Size: size})
		return err
	}
	wantCode(t, "one byte too many", ask("data", "new", 61), backendai.CodeQuota)
	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "new", Size: 60})
	wantCode(t, "one more while that is on its way", ask("data", "third", 1), backendai.CodeQuota)
	wantStatus(t, "PATCH", tus(t, "PATCH", url+"?token="+u.Token, strings.NewReader(strings.Repeat("y", 60)), "Upload-Offset", "0"), http.StatusNoContent)
	wantCode(t, "one more after it", ask("data", "third", 1), backendai.CodeQuota)
	wantCode(t, "instead of a file", ask("data", "old", 40), "")
	wantCode(t, "one more instead of a file", ask("data", "new", 61), backendai.CodeQuota)
	wantCode(t, "more than the user may have", ask("more", "x", 51), backendai.CodeQuota)
	wantCode(t, "all that the user may have", ask("more", "x", 50), "")
	if err := w.Remove(ctx, w.alice, "data", []string{"new"}, true); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "after making room", ask("data", "third", 60), "")
}
