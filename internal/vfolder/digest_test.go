//go:build linux

package vfolder_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backendai/internal/vfolder"
)

// TestDigest: who wants the hash of the whole file gets it behind whatever part
// of it was asked for.
func TestDigest(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	content := noise(9_000_000)
	w.write(t, v, "file", string(content))
	token, err := w.RequestDownload(t.Context(), w.alice, "data", vfolder.DownloadRequest{Path: "file"})
	if err != nil {
		t.Fatal(err)
	}
	at := w.serveFiles(t) + "/?token=" + token
	name, sum, _ := strings.Cut(wholeSum(t, content), " ")
	digest := name + "=:" + sum + ":"
	want := []string{"Want-Repr-Digest", "xxh64-tree=1"}
	for _, try := range []struct {
		ranges  string
		content []byte
	}{{"", content}, {"bytes=8000000-", content[8_000_000:]}, {"bytes=5-4999999", content[5:5_000_000]}} {
		headers := want
		if try.ranges != "" {
			headers = append([]string{"Range", try.ranges}, want...)
		}
		resp, got := get(t, "GET", at, nil, headers...)
		if !bytes.Equal(got, try.content) || resp.Trailer.Get("Repr-Digest") != digest {
			t.Errorf("%s %s: %d bytes, %v", resp.Status, try.ranges, len(got), resp.Trailer)
		}
	}
	for _, headers := range [][]string{nil, {"Want-Repr-Digest", "sha-256=1"}} {
		if resp, got := get(t, "GET", at, nil, headers...); resp.ContentLength != int64(len(content)) || len(resp.Trailer) > 0 || !bytes.Equal(got, content) {
			t.Errorf("%v: %d bytes, %v", headers, resp.ContentLength, resp.Trailer)
		}
	}
	if resp, _ := get(t, "GET", at, nil, append([]string{"Range", "bytes=9000000-"}, want...)...); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || len(resp.Trailer) > 0 {
		t.Errorf("beyond the end: %s, %v", resp.Status, resp.Trailer)
	}
	if resp, got := overHTTP10(t, at, want...); resp.ContentLength != int64(len(content)) || !bytes.Equal(got, content) {
		t.Errorf("over HTTP/1.0: %d bytes of %d", len(got), resp.ContentLength)
	}
	if resp, _ := get(t, "HEAD", at, nil, want...); resp.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: %d", resp.ContentLength)
	}
}

// overHTTP10 asks as an old proxy does.
func overHTTP10(t *testing.T, address string, header ...string) (*http.Response, []byte) {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n%s: %s\r\n\r\n", at.RequestURI(), header[0], header[1])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, got
}

// TestNoDigestOfTwoStates: a file that changes while it is sent has no hash.
func TestNoDigestOfTwoStates(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	w.write(t, v, "file", string(noise(40_000_000))) // more than a connection holds
	token, err := w.RequestDownload(t.Context(), w.alice, "data", vfolder.DownloadRequest{Path: "file"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.serveFiles(t)+"/?token="+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Want-Repr-Digest", "xxh64-tree=1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := os.Chtimes(filepath.Join(w.content(v), "file"), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != 40_000_000 || resp.Trailer.Get("Repr-Digest") != "" {
		t.Errorf("%d bytes, %v, %v", n, err, resp.Trailer)
	}
}
