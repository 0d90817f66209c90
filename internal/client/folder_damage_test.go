//go:build linux

package client_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"backendai/internal/client"
	"backendai/internal/testserver"
)

// damaging is a proxy that changes a byte of so many files on their way.
type damaging struct {
	left     atomic.Int64
	trailers bool // whether it lets them pass
}

// RoundTrip implements http.RoundTripper.
func (d *damaging) RoundTrip(r *http.Request) (*http.Response, error) {
	file := strings.HasPrefix(r.URL.Path, "/storage/")
	if file && r.ContentLength > 1_000_000 && d.left.Add(-1) >= 0 {
		r.Body = damaged{r.Body, &atomic.Int64{}}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if d.trailers {
		return resp, nil
	}
	plain := *resp // the transport puts the trailers into its own
	plain.Trailer = nil
	if file && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/download") && d.left.Add(-1) >= 0 {
		plain.Body = damaged{resp.Body, &atomic.Int64{}}
	}
	return &plain, nil
}

// damaged is a body of which the byte at 500,000 is another one.
type damaged struct {
	io.ReadCloser

	at *atomic.Int64
}

// Read implements io.Reader.
func (d damaged) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if i := 500_000 - (d.at.Add(int64(n)) - int64(n)); i >= 0 && i < int64(n) {
		p[i]++
	}
	return n, err
}

func (d *damaging) client(t *testing.T, s *testserver.Server, who testserver.Account) *client.Client {
	t.Helper()
	to, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }, Transport: d,
	})
	t.Cleanup(proxy.Close)
	behind := *s
	behind.Endpoint = proxy.URL
	return behind.Client(t, who)
}

// TestDamage: bytes that are changed on their way are found out and come again,
// but not for ever.
func TestDamage(t *testing.T) {
	s, c, alice := folder(t)
	content := noise(10 << 20)
	for _, trailers := range []bool{true, false} {
		d := &damaging{trailers: trailers}
		behind := d.client(t, s, alice)
		if err := upload(t, c, "file", content, nil); err != nil {
			t.Fatal(err)
		}
		dir, _, err := download(t, behind, "file", nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, filepath.Join(dir, "file"), content)

		d.left.Store(1)
		var moved atomic.Int64
		if err := upload(t, behind, "up", content, func(n int64) { moved.Add(n) }); err != nil {
			t.Errorf("an upload of which a byte is changed once: %v", err)
		}
		if moved.Load() != int64(len(content)) {
			t.Errorf("progress ends at %d of %d", moved.Load(), len(content))
		}
		dir, _, err = download(t, c, "up", nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, filepath.Join(dir, "up"), content)

		d.left.Store(1000)
		if err := upload(t, behind, "up", bytes.Repeat([]byte("x"), 2<<20), nil); err == nil || !strings.Contains(err.Error(), "three times") {
			t.Errorf("an upload of which a byte is changed each time: %v", err)
		}
		dir, _, err = download(t, c, "up", nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, filepath.Join(dir, "up"), content)
	}

	d := &damaging{}
	behind := d.client(t, s, alice)
	d.left.Store(1)
	dir, _, err := download(t, behind, "file", nil)
	if err != nil {
		t.Errorf("a download of which a byte is changed once: %v", err)
	}
	same(t, filepath.Join(dir, "file"), content)
	d.left.Store(1000)
	dir, _, err = download(t, behind, "file", nil)
	if err == nil || !strings.Contains(err.Error(), "three times") {
		t.Errorf("a download of which a byte is changed each time: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
