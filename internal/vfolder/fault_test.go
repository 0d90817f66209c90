//go:build linux

package vfolder_test

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

// TestRivals: of two programs that upload the same file the one that began later
// goes on, with what is here already, and the earlier is told.
func TestRivals(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	url := w.serve(t)
	req := vfolder.UploadRequest{Path: "file", Size: 10, Resume: "fingerprint"}
	first := w.request(t, w.alice, "data", req)
	resp := tus(t, "POST", url+"?token="+first.Token, nil, "Upload-Concat", "partial", "Upload-Length", "10", "Upload-Metadata", position(0))
	location := resp.Header.Get("Location")
	wantStatus(t, "half of it", tus(t, "PATCH", location+"?token="+first.Token, strings.NewReader("12345"), "Upload-Offset", "0"), http.StatusNoContent)
	second := w.request(t, w.alice, "data", req)
	if second.ID != first.ID || len(second.Parts) != 1 || second.Parts[0].Offset != 5 {
		t.Fatalf("the second goes on with %+v of %s, the first was %s", second.Parts, second.ID, first.ID)
	}
	late := tus(t, "PATCH", location+"?token="+first.Token, strings.NewReader("67890"), "Upload-Offset", "5")
	text, err := io.ReadAll(late.Body)
	if err != nil || late.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "another program that began later") {
		t.Errorf("the first is told %s %q, %v", late.Status, text, err)
	}
	wantStatus(t, "the rest", tus(t, "PATCH", location+"?token="+second.Token, strings.NewReader("67890"), "Upload-Offset", "5"), http.StatusNoContent)
	wantStatus(t, "the end", tus(t, "POST", url+"?token="+second.Token, nil, "Upload-Concat", "final;"+location, "Upload-Checksum", wholeSum(t, []byte("1234567890"))), http.StatusCreated)
	w.has(t, v, "file", []byte("1234567890"))
}

// TestDeletedMeanwhile: what is on its way to a folder that is deleted, or taken
// away, arrives nowhere and leaves nothing.
func TestDeletedMeanwhile(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	files, uploads := w.serveFiles(t), w.serve(t)
	u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "file", Size: 10})
	token, err := w.RequestFill(ctx, w.alice, "data", ".")
	if err != nil {
		t.Fatal(err)
	}
	body, write := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, "POST", files+"/fill?token="+token, body)
	if err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	sent := stream(t, &tar.Header{Name: "one", Size: 5 << 20}, &tar.Header{Name: "two", Size: 5 << 20})
	if _, err := write.Write(sent[:6<<20]); err != nil { // by then the first may be there
		t.Fatal(err)
	}
	if err := w.Trash(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = write.Write(sent[6<<20:]); write.Close() }()
	if got := <-status; got != http.StatusNotFound {
		t.Errorf("the stream ended with %d", got)
	}
	_ = body.Close()
	wantStatus(t, "PATCH", tus(t, "PATCH", uploads+"?token="+u.Token, strings.NewReader("1234567890"), "Upload-Offset", "0"), http.StatusNotFound)
	if err := w.Restore(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	list, err := w.Files(ctx, w.alice, "data", ".")
	if got := names(list); err != nil || got != "" && got != "F:one" {
		t.Errorf("Files = %q, %v", names(list), err)
	}
	w.clock = w.clock.Add(49 * time.Hour)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if left := w.staged(t, v); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	resp, _ := get(t, "POST", files+"/fill?token="+token, bytes.NewReader(sent))
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token of two days ago: %s", resp.Status)
	}
	if err := w.Trash(ctx, w.alice, "data"); backendai.CodeOf(err) != "" {
		t.Fatal(err)
	}
}
