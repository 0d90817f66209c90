package api_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"backendai/internal/archive"
	"backendai/internal/auth"
	"backendai/internal/control"
)

// entries reads a tar.
func entries(t *testing.T, text string) map[string]string {
	t.Helper()
	list := map[string]string{}
	r := tar.NewReader(strings.NewReader(text))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list[h.Name] = string(content)
	}
}

func TestSessionFiles(t *testing.T) {
	w := newWorld(t)
	got := w.ok("alice", "GET", "/session/mysession/files", `{"path":"."}`, 200)
	if text := keys(got, "errors", "abspath"); text != `["","/home/work"]` {
		t.Error(text)
	}
	var files []map[string]any
	if text, _ := got["files"].(string); json.Unmarshal([]byte(text), &files) != nil || keys(files[0], "filename", "mode", "size", "mtime") != `["a\n","-rw-r-----",5,1767323045]` {
		t.Errorf("files %v", got["files"])
	}
	if text := keys(w.ok("alice", "GET", "/session/mysession/files?path=x", "", 200), "files", "errors"); text != `["[]","no such file: \"x\""]` {
		t.Error(text)
	}
	resp, text := w.call("alice", "GET", "/session/mysession/download_single?file=id_container", "")
	if text != "PRIVATE KEY" || resp.ContentLength != 11 {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

// post sends a body of its own media type, signed without its parameters.
func (w *world) post(user, target, contentType string, body []byte) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL+target, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	media, _, _ := strings.Cut(contentType, ";")
	auth.Sign(req, "AKIA"+user, "secret-"+user, "v6.20220315", media, time.Now())
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}

// TestUploadAsOriginal sends parts as the original's clients do, with their
// paths encoded as a whole.
func TestUploadAsOriginal(t *testing.T) {
	w := newWorld(t)
	send := func(user string, files map[string]string) (*http.Response, string) {
		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		for name, content := range files {
			part, err := m.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="src"; filename="` + url.PathEscape(name) + `"`}, "Content-Type": {"application/octet-stream"}})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(part, content)
		}
		_ = m.Close()
		return w.post(user, "/session/mysession/upload", m.FormDataContentType(), b.Bytes())
	}
	large := strings.Repeat("x", 3<<20)
	resp, text := send("alice", map[string]string{"sub/dir/a b.txt": "content", "ü": "", "large": large, strings.Repeat("n", 200): "long"})
	if resp.StatusCode != 204 {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	got := entries(t, w.sessions.uploaded)
	if len(got) != 4 || got["sub/dir/a b.txt"] != "content" || got["large"] != large || got[strings.Repeat("n", 200)] != "long" {
		t.Errorf("%d entries came", len(got))
	}
	for _, name := range []string{"../x", "/etc/passwd", "a/../../x", "/home/work/../x"} {
		if resp, text := send("alice", map[string]string{name: ""}); resp.StatusCode != 400 || !strings.Contains(text, "no path below the session") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
	if resp, _ := send("stranger", map[string]string{"x": ""}); resp.StatusCode != 404 {
		t.Errorf("the stranger: %d", resp.StatusCode)
	}
	w.sessions.skipped = []control.Skipped{{Name: "x", Reason: "no"}}
	if resp, text := send("alice", map[string]string{"x": ""}); resp.StatusCode != 400 || !strings.Contains(text, `\"x\" could not be written: no`) {
		t.Errorf("what is left out: %d %s", resp.StatusCode, text)
	}
	if resp, _ := w.post("alice", "/session/mysession/upload", "application/octet-stream", []byte("x")); resp.StatusCode != 400 {
		t.Errorf("no multipart: %d", resp.StatusCode)
	}
}

func TestSessionArchives(t *testing.T) {
	w := newWorld(t)
	var b bytes.Buffer
	a := archive.NewWriter(&b)
	for _, h := range []*tar.Header{{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "dir/file", Typeflag: tar.TypeReg, Size: 5, Mode: 0o600}} {
		if err := a.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(a, "hello"[:h.Size])
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	resp, text := w.post("alice", "/session/mysession/archive?path=in/to", archive.MediaType, b.Bytes())
	if resp.StatusCode != 200 || !strings.Contains(text, `"files":1`) || w.sessions.folder != "in/to" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if got := entries(t, w.sessions.uploaded); got["dir/file"] != "hello" || len(got) != 2 {
		t.Errorf("came: %v", got)
	}
	for name, body := range map[string][]byte{"cut": b.Bytes()[:b.Len()-2000], "broken": bytes.Replace(b.Bytes(), []byte("hello"), []byte("hellO"), 1), "nothing": nil} {
		if resp, text := w.post("alice", "/session/mysession/archive", archive.MediaType, body); resp.StatusCode != 400 {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}

	// A session's word is not passed on without a look.
	var hostile strings.Builder
	h := tar.NewWriter(&hostile)
	for _, one := range []*tar.Header{
		{Name: "../out", Typeflag: tar.TypeReg}, {Name: "/etc/passwd", Typeflag: tar.TypeReg}, {Name: "link", Linkname: "/etc", Typeflag: tar.TypeSymlink},
		{Name: "null", Typeflag: tar.TypeChar}, {Name: "hard", Linkname: "good", Typeflag: tar.TypeLink}, {Name: "good", Typeflag: tar.TypeReg, Mode: 0o4755},
		{Name: "note", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"BACKENDAI.skipped": "pipe: it is a FIFO", "BACKENDAI.end": "true"}},
	} {
		if err := h.WriteHeader(one); err != nil {
			t.Fatal(err)
		}
	}
	_ = h.Close()
	w.sessions.hostile = hostile.String()
	_, text = w.call("alice", "GET", "/session/mysession/archive?path=hostile", "")
	var notes, names []string
	r := archive.NewReader(strings.NewReader(text), func() error { return nil })
	r.Noted = func(note string) { notes = append(notes, note) }
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Mode&0o7000 != 0 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
	}
	if !slices.Equal(names, []string{"good"}) || len(notes) != 6 || notes[5] != "pipe: it is a FIFO" {
		t.Errorf("passed on: %q, %q", names, notes)
	}
	if resp, text := w.call("alice", "GET", "/session/mysession/archive?path=nothing", ""); resp.StatusCode != 400 {
		t.Errorf("nothing: %d %s", resp.StatusCode, text)
	}
}
