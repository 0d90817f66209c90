//go:build integration && linux

package vfolder_test

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/vfolder"
)

// TestFullDisk keeps folders on a disk of 16 MiB: whoever does not fit is told,
// nothing of theirs is seen, and with room again all goes on.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil { // busy, if anything is left open
			t.Error(err)
		}
	})
	w := newWorld(t, func(o *vfolder.Options) { o.Hosts = map[string]string{host: dir} })
	w.dir = dir
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	uploads, files := w.serve(t), w.serveFiles(t)

	_, err := w.RequestUpload(ctx, w.alice, "data", vfolder.UploadRequest{Path: "huge", Size: 17 << 20})
	wantCode(t, "more than there is", err, backendai.CodeVFolderFailed)
	content := noise(10 << 20)
	one := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "one", Size: 10 << 20, Resume: "1"})
	two := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "two", Size: 10 << 20, Resume: "2"})
	patch := func(token string, at int) *http.Response {
		return tus(t, "PATCH", uploads+"?token="+token, bytes.NewReader(content[at:]), "Upload-Offset", "0")
	}
	wantStatus(t, "the first", patch(one.Token, 0), http.StatusNoContent)
	resp := patch(two.Token, 0)
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 == 2 || !strings.Contains(string(text), "is full") {
		t.Errorf("the second is told %s %q, %v", resp.Status, text, err)
	}
	w.has(t, v, "one", content)

	token, err := w.RequestFill(ctx, w.alice, "data", ".")
	if err != nil {
		t.Fatal(err)
	}
	full, told := get(t, "POST", files+"/fill?token="+token, bytes.NewReader(stream(t, &tar.Header{Name: "a", Size: 1 << 20}, &tar.Header{Name: "b", Size: 3 << 20}, &tar.Header{Name: "c", Size: 3 << 20})))
	if full.StatusCode/100 == 2 || !strings.Contains(string(told), "is full") {
		t.Errorf("a stream is told %s %q", full.Status, told)
	}
	mounts := []backendai.Mount{{FolderID: v.ID, Target: "/home/work/data", Permission: "rw"}}
	if _, err := w.Attach(ctx, mounts); backendai.CodeOf(err) != backendai.CodeVFolderFailed {
		t.Errorf("a mount to write on a full disk: %v", err)
	}
	mounts[0].Permission = "ro"
	if _, err := w.Attach(ctx, mounts); err != nil {
		t.Errorf("a mount to read: %v", err)
	}

	if err := w.Remove(ctx, w.alice, "data", []string{"one"}, false); err != nil {
		t.Fatal(err)
	}
	two = w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "two", Size: 10 << 20, Resume: "2"})
	head := tus(t, "HEAD", uploads+"?token="+two.Token, nil)
	if head.Header.Get("Upload-Offset") == "0" {
		t.Errorf("nothing of the second is here: %v", head.Header)
	}
	wantStatus(t, "the rest of the second", tus(t, "PATCH", uploads+"?token="+two.Token, bytes.NewReader(content[offset(t, head):]), "Upload-Offset", head.Header.Get("Upload-Offset")), http.StatusNoContent)
	w.has(t, v, "two", content)
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// offset is how much of an upload is here.
func offset(t *testing.T, head *http.Response) int {
	t.Helper()
	n, err := strconv.Atoi(head.Header.Get("Upload-Offset"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
