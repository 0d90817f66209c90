//go:build linux

package vfolder_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/archive"
	"backendai/internal/vfolder"
)

// serveFiles gives downloads and streams an address.
func (w *world) serveFiles(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token := r.URL.Query().Get("token")
		var err error
		if r.URL.Path == "/fill" {
			var filled vfolder.Filled
			if filled, err = w.ServeFill(rw, r, token); err == nil {
				fmt.Fprint(rw, filled.Files, " ", filled.Bytes)
			}
		} else {
			err = w.ServeDownload(rw, r, token)
		}
		if err != nil {
			http.Error(rw, err.Error(), backendai.CodeOf(err).HTTPStatus())
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func get(t *testing.T, method, url string, body io.Reader, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, text
}

func TestDownload(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	content := string(noise(10_000_000))
	w.write(t, v, "dir/ü \"x\".bin", content)
	url := w.serveFiles(t)
	token, err := w.RequestDownload(t.Context(), w.alice, "data", vfolder.DownloadRequest{Path: "dir/ü \"x\".bin"})
	if err != nil {
		t.Fatal(err)
	}
	at := url + "/?token=" + token
	resp, text := get(t, "GET", at, nil)
	if string(text) != content || resp.ContentLength != int64(len(content)) || resp.Header.Get("Accept-Ranges") != "bytes" || resp.Header.Get("Last-Modified") == "" {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(text), resp.Header)
	}
	if got := resp.Header.Get("Content-Disposition"); !strings.HasSuffix(got, "; filename*=UTF-8''%C3%BC%20%22x%22.bin") {
		t.Errorf("Content-Disposition = %q", got)
	}
	head, _ := get(t, "HEAD", at, nil)
	if head.StatusCode != 200 || head.ContentLength != int64(len(content)) {
		t.Errorf("HEAD = %s, %d", head.Status, head.ContentLength)
	}
	for _, condition := range []string{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")} {
		part, text := get(t, "GET", at, nil, "Range", "bytes=9999990-", "If-Range", condition)
		if part.StatusCode != http.StatusPartialContent || string(text) != content[9_999_990:] {
			t.Errorf("from the middle on: %s, %d bytes", part.Status, len(text))
		}
	}
	w.write(t, v, "dir/ü \"x\".bin", "changed")
	if err := os.Chtimes(filepath.Join(w.content(v), "dir/ü \"x\".bin"), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	part, text := get(t, "GET", at, nil, "Range", "bytes=5-", "If-Range", resp.Header.Get("ETag"))
	if part.StatusCode != 200 || string(text) != "changed" {
		t.Errorf("after a change: %s %q", part.Status, text)
	}
	sum, err := w.Checksum(t.Context(), token, "")
	if err != nil || sum.Size != 7 || sum.Hash != "32474ecdf2274871" {
		t.Errorf("Checksum = %+v, %v", sum, err)
	}
}

// TestTokensEndWithTheirKeypair: a key that is taken away opens nothing by what
// was asked for with it.
func TestTokensEndWithTheirKeypair(t *testing.T) {
	w := newWorld(t)
	w.write(t, w.create(t, w.alice, "data"), "file", "content")
	down, err := w.RequestDownload(t.Context(), w.alice, "data", vfolder.DownloadRequest{Path: "file"})
	if err != nil {
		t.Fatal(err)
	}
	fill, err := w.RequestFill(t.Context(), w.alice, "data", ".")
	if err != nil {
		t.Fatal(err)
	}
	up := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "new", Size: 3})
	files, uploads := w.serveFiles(t), w.serve(t)
	check := func(what string, status int) {
		t.Helper()
		if resp, _ := get(t, "GET", files+"/?token="+down, nil); resp.StatusCode != status {
			t.Errorf("a download, %s: %s", what, resp.Status)
		}
		if resp, _ := get(t, "POST", files+"/fill?token="+fill, bytes.NewReader(stream(t))); resp.StatusCode != status {
			t.Errorf("a stream, %s: %s", what, resp.Status)
		}
		wantStatus(t, "an upload, "+what, tus(t, "HEAD", uploads+"?token="+up.Token, nil), status)
	}
	check("before", http.StatusOK)
	key := w.alice.Keypair
	for what, change := range map[string]func(*backendai.Keypair){
		"deactivated": func(k *backendai.Keypair) { k.Active = false }, "another's": func(k *backendai.Keypair) { k.UserID = w.stranger.User.ID },
	} {
		changed := key
		change(&changed)
		w.store.keypairs[key.AccessKey] = changed
		check(what, http.StatusNotFound)
	}
	delete(w.store.keypairs, key.AccessKey)
	check("deleted", http.StatusNotFound)
	w.store.keypairs[key.AccessKey] = key
	check("again active", http.StatusOK)
}

func TestDownloadFaults(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "dir/file", "x")
	w.write(t, v, "other", "secret")
	if err := os.Symlink("/etc/passwd", filepath.Join(w.content(v), "out")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		req  vfolder.DownloadRequest
		code backendai.Code
	}{
		{vfolder.DownloadRequest{Path: "none"}, backendai.CodeNotFound}, {vfolder.DownloadRequest{Path: "../x"}, backendai.CodeInvalidParams},
		{vfolder.DownloadRequest{Path: "dir"}, backendai.CodeInvalidParams}, {vfolder.DownloadRequest{Path: "out"}, backendai.CodeInvalidParams},
		{vfolder.DownloadRequest{Files: []string{"dir", "none"}}, backendai.CodeNotFound}, {vfolder.DownloadRequest{Path: "dir", Archive: true, Name: "../x.zip"}, backendai.CodeInvalidParams},
		{vfolder.DownloadRequest{Files: slices.Repeat([]string{"dir/file"}, 2000)}, backendai.CodeInvalidParams},
	} {
		_, err := w.RequestDownload(ctx, w.alice, "data", c.req)
		wantCode(t, fmt.Sprintf("%.60v", c.req), err, c.code)
	}
	_, err := w.RequestDownload(ctx, w.stranger, v.ID, vfolder.DownloadRequest{Path: "dir/file"})
	wantCode(t, "the stranger", err, backendai.CodeNotFound)

	url := w.serveFiles(t)
	tree, err := w.RequestDownload(ctx, w.alice, "data", vfolder.DownloadRequest{Path: "dir", Archive: true})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"dir/file": 200, "other": 403, "dir/../other": 400, "directory": 403, "dir/none": 404, "dir": 400} {
		if resp, _ := get(t, "GET", url+"/?token="+tree+"&path="+strings.ReplaceAll(path, "/", "%2F"), nil); resp.StatusCode != want {
			t.Errorf("%s by a token for dir: %s, want %d", path, resp.Status, want)
		}
	}
	file, err := w.RequestDownload(ctx, w.alice, "data", vfolder.DownloadRequest{Path: "dir/file"})
	if err != nil {
		t.Fatal(err)
	}
	if resp, text := get(t, "GET", url+"/?token="+file+"&path=other", nil); string(text) != "x" {
		t.Errorf("another path by a token for a file: %s %q", resp.Status, text)
	}
	if resp, _ := get(t, "POST", url+"/fill?token="+file, nil); resp.StatusCode != 401 {
		t.Errorf("a token for a download to fill: %s", resp.Status)
	}
	// A pipe in the place of the file blocks nobody.
	path := filepath.Join(w.content(v), "dir/file")
	if err := errors.Join(os.Remove(path), mkfifo(path)); err != nil {
		t.Fatal(err)
	}
	if resp, _ := get(t, "GET", url+"/?token="+file, nil); resp.StatusCode != 400 {
		t.Errorf("a pipe: %s", resp.Status)
	}
}

func TestArchives(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "top/a/one", "1")
	w.write(t, v, "top/two\n", strings.Repeat("2", 3<<20))
	w.write(t, v, "beside", "x")
	at := func(name string) string { return filepath.Join(w.content(v), name) }
	if err := errors.Join(os.Symlink("a/one", at("top/link")), os.Symlink("/etc/passwd", at("top/out")), mkfifo(at("top/pipe")), os.Mkdir(at("top/empty"), 0o755)); err != nil {
		t.Fatal(err)
	}
	url := w.serveFiles(t)
	token, err := w.RequestDownload(ctx, w.alice, "data", vfolder.DownloadRequest{Path: "top", Archive: true})
	if err != nil {
		t.Fatal(err)
	}
	resp, text := get(t, "GET", url+"/?token="+token, nil)
	z, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if want := []string{"top/", "top/a/", "top/a/one", "top/empty/", "top/link", "top/out", "top/two\n"}; !slices.Equal(names, want) {
		t.Errorf("the zip has %q", names)
	}
	list := func(text []byte) []string {
		t.Helper()
		var names []string
		r := archive.NewReader(bytes.NewReader(text), func() error { return nil })
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				slices.Sort(names)
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil || n != h.Size {
				t.Fatal(n, err)
			}
			names = append(names, h.Name)
		}
	}
	_, text = get(t, "GET", url+"/?token="+token+"&format=tar", nil)
	if got, want := list(text), []string{"top", "top/a", "top/a/one", "top/empty", "top/link", "top/two\n"}; !slices.Equal(got, want) {
		t.Errorf("the stream has %q", got)
	}
	_, text = get(t, "POST", url+"/?token="+token+"&format=tar", strings.NewReader("top/two\n\x00top/none\x00top/link\x00"))
	if got, want := list(text), []string{"top/link", "top/two\n"}; !slices.Equal(got, want) {
		t.Errorf("the stream of names has %q", got)
	}
	if resp, _ := get(t, "POST", url+"/?token="+token+"&format=tar", strings.NewReader("beside\x00")); resp.StatusCode != 403 {
		t.Errorf("a name beside the tree: %s", resp.Status)
	}
	token, err = w.RequestDownload(ctx, w.alice, "data", vfolder.DownloadRequest{Files: []string{"beside", "top/a"}, Name: "some.zip"})
	if err != nil {
		t.Fatal(err)
	}
	resp, text = get(t, "GET", url+"/?token="+token, nil)
	if z, err := zip.NewReader(bytes.NewReader(text), int64(len(text))); err != nil || len(z.File) != 3 || !strings.Contains(resp.Header.Get("Content-Disposition"), "some.zip") {
		t.Errorf("a zip of two: %v, %v", err, resp.Header)
	}
	var tree []string
	err = w.Tree(ctx, token, func(e vfolder.Entry) error { tree = append(tree, e.Type[:1]+e.Path+e.Link); return nil })
	slices.Sort(tree)
	if err != nil || !slices.Contains(tree, "Stop/linka/one") || !slices.Contains(tree, "Stop/pipe") || len(tree) != 9 {
		t.Errorf("Tree = %q, %v", tree, err)
	}
}

func stream(t testing.TB, entries ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	a := archive.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		if err := a.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(bytes.Repeat([]byte{'x'}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFill(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "into/dir/old", "before")
	url := w.serveFiles(t)
	token, err := w.RequestFill(ctx, w.alice, "data", "into")
	if err != nil {
		t.Fatal(err)
	}
	body := stream(t,
		&tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o750}, &tar.Header{Name: "dir/old", Size: 3, Mode: 0o600}, &tar.Header{Name: "dir/deep/new", Size: 5 << 20},
		&tar.Header{Name: "dir/link", Typeflag: tar.TypeSymlink, Linkname: "old"}, &tar.Header{Name: "empty"})
	if resp, text := get(t, "POST", url+"/fill?token="+token, bytes.NewReader(body)); resp.StatusCode != 200 || string(text) != "4 5242883" {
		t.Errorf("%s %s", resp.Status, text)
	}
	w.has(t, v, "into/dir/old", []byte("xxx"))
	for name, mode := range map[string]os.FileMode{"dir": 0o750, "dir/old": 0o600, "dir/deep/new": 0o644, "empty": 0o644} {
		info, err := os.Lstat(filepath.Join(w.content(v), "into", name))
		if err != nil || info.Mode().Perm() != mode || name != "dir" && !info.ModTime().Equal(time.Unix(1e9, 0)) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if link, err := os.Readlink(filepath.Join(w.content(v), "into/dir/link")); link != "old" {
		t.Errorf("the link leads to %q, %v", link, err)
	}
	var same []int
	lines := "3 1000000000 dir/old\x004 1000000000 dir/old\x003 1000000001 dir/old\x000 1000000000 empty\x001 1 none/x\x00"
	if err := w.Same(ctx, token, strings.NewReader(lines), func(n int) error { same = append(same, n); return nil }); err != nil || !slices.Equal(same, []int{0, 3}) {
		t.Errorf("Same = %v, %v", same, err)
	}

	for name, bad := range map[string][]byte{
		"cut": body[:len(body)-1500], "absolute": stream(t, &tar.Header{Name: "good", Size: 1}, &tar.Header{Name: "/etc/x"}),
		"dots": stream(t, &tar.Header{Name: "good"}, &tar.Header{Name: "a/../../x"}), "link": stream(t, &tar.Header{Name: "good"}, &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}),
		"device": stream(t, &tar.Header{Name: "good"}, &tar.Header{Name: "null", Typeflag: tar.TypeChar}), "no tar": []byte(strings.Repeat("hello", 500)), "nothing": nil,
		"itself": stream(t, &tar.Header{Name: "good"}, &tar.Header{Name: "."}), "over a directory": stream(t, &tar.Header{Name: "dir"}), "below a file": stream(t, &tar.Header{Name: "empty/x"}),
	} {
		resp, text := get(t, "POST", url+"/fill?token="+token, bytes.NewReader(bad))
		if resp.StatusCode/100 != 4 {
			t.Errorf("%s: %s %s", name, resp.Status, text)
		}
		if _, err := os.Lstat(filepath.Join(w.content(v), "into/good")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s left a file without its checkpoint: %v", name, err)
		}
	}
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	_, err = w.RequestFill(ctx, w.stranger, v.ID, ".")
	wantCode(t, "the stranger", err, backendai.CodeNotFound)
}

// TestFillThroughLinks: an archive cannot write through links that it, or the
// user, has made before.
func TestFillThroughLinks(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	outside := t.TempDir()
	for name, target := range map[string]string{"out": outside, "up": "../upload", "in": "real"} {
		if err := os.Symlink(target, filepath.Join(w.content(v), name)); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, v, "real/x", "x")
	url := w.serveFiles(t)
	token, err := w.RequestFill(t.Context(), w.alice, "data", ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want int
	}{{"out/file", 400}, {"up/file", 400}, {"in/file", 200}, {"out", 200}} {
		if resp, text := get(t, "POST", url+"/fill?token="+token, bytes.NewReader(stream(t, &tar.Header{Name: c.name, Size: 1}))); resp.StatusCode != c.want {
			t.Errorf("%s: %s %s", c.name, resp.Status, text)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	w.has(t, v, "real/file", []byte("x"))
	w.has(t, v, "out", []byte("x")) // the link is replaced, not followed
}

func TestFillQuota(t *testing.T) {
	w := newWorld(t, func(o *vfolder.Options) { o.FolderQuota = 100 })
	v := w.create(t, w.alice, "data")
	w.write(t, v, "old", strings.Repeat("x", 40))
	url := w.serveFiles(t)
	token, err := w.RequestFill(t.Context(), w.alice, "data", ".")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(entries ...*tar.Header) int {
		resp, _ := get(t, "POST", url+"/fill?token="+token, bytes.NewReader(stream(t, entries...)))
		return resp.StatusCode
	}
	if got := fill(&tar.Header{Name: "new", Size: 61}); got != http.StatusPreconditionFailed {
		t.Errorf("one byte too many: %d", got)
	}
	if got := fill(&tar.Header{Name: "a", Size: 30}, &tar.Header{Name: "b", Size: 31}); got != http.StatusPreconditionFailed {
		t.Errorf("one byte too many of two: %d", got)
	}
	if got := fill(&tar.Header{Name: "a", Size: 30}, &tar.Header{Name: "b", Size: 30}); got != 200 {
		t.Errorf("all that fits: %d", got)
	}
	if got := fill(&tar.Header{Name: "c", Size: 1}); got != http.StatusPreconditionFailed {
		t.Errorf("one more: %d", got)
	}
	if got := fill(&tar.Header{Name: "old", Size: 40}); got != 200 {
		t.Errorf("instead of a file: %d", got)
	}
	if got, err := w.Find(t.Context(), w.alice, "data"); err != nil || got.UsedBytes != 100 {
		t.Errorf("%d bytes are used, %v", got.UsedBytes, err)
	}
}
