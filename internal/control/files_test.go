package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"backendai"
	"backendai/internal/control"
)

// liar is a client of a runner that says whatever h says.
func liar(t *testing.T, h http.HandlerFunc) *control.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}, []byte("secret"))
	t.Cleanup(c.Close)
	return c
}

func TestListsAreNotBelieved(t *testing.T) {
	const self = `{"name":"/home/work/x","type":"directory"}` + "\n"
	for name, body := range map[string]string{
		"no JSON":          "hello\n",
		"nothing":          "",
		"no end":           self + `{"name":"a","type":"file"}` + "\n",
		"end alone":        `{"end":true}` + "\n",
		"slash":            self + `{"name":"../../etc/passwd","type":"file"}` + "\n" + `{"end":true}` + "\n",
		"parent":           self + `{"name":"..","type":"file"}` + "\n" + `{"end":true}` + "\n",
		"raw slash":        self + `{"name":"a","raw":"` + "Li4vYQ==" + `","type":"file"}` + "\n" + `{"end":true}` + "\n",
		"no name":          self + `{"type":"file"}` + "\n" + `{"end":true}` + "\n",
		"no type":          self + `{"name":"a","type":"door"}` + "\n" + `{"end":true}` + "\n",
		"negative size":    self + `{"name":"a","type":"file","size":-1}` + "\n" + `{"end":true}` + "\n",
		"wild mode":        self + `{"name":"a","type":"file","mode":65536}` + "\n" + `{"end":true}` + "\n",
		"long name":        self + `{"name":"` + strings.Repeat("n", 5000) + `","type":"file"}` + "\n" + `{"end":true}` + "\n",
		"line without end": strings.Repeat("x", 1<<20),
		"too many":         self + strings.Repeat(`{"name":"a","type":"file"}`+"\n", control.MaxEntries+1) + `{"end":true}` + "\n",
	} {
		c := liar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		if l, err := c.List(t.Context(), "x"); err == nil {
			t.Errorf("%s: it was believed: %d entries", name, len(l.Entries))
		} else if code := backendai.CodeOf(err); code != backendai.CodeInternal && code != backendai.CodeUnavailable {
			t.Errorf("%s: %v (%s)", name, err, code)
		}
	}
}

func TestListKeepsNamesExact(t *testing.T) {
	names := []string{"line\nbreak", "not utf-8 \xff", "Grüße", " "}
	c := liar(t, func(w http.ResponseWriter, _ *http.Request) {
		lines := json.NewEncoder(w)
		_ = lines.Encode(control.Entry{Name: "/home/work", Type: control.TypeFolder})
		for _, n := range names {
			_ = lines.Encode(control.Entry{Name: n, Raw: []byte(n), Type: control.TypeFile})
		}
		_ = lines.Encode(control.ListEnd{End: true, More: true})
	})
	l, err := c.List(t.Context(), ".")
	if err != nil || !l.More || len(l.Entries) != len(names) || l.Path != "/home/work" || l.Self.Name != "work" {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, n := range names {
		found := false
		for _, e := range l.Entries {
			found = found || e.Name == n && e.Raw == nil
		}
		if !found {
			t.Errorf("%q is not there: %+v", n, l.Entries)
		}
	}
}

func TestReportsAreNotBelieved(t *testing.T) {
	for name, u := range map[string]control.Unpacked{
		"no sum":   {},
		"negative": {SHA256: make([]byte, 32), Files: -1},
		"too many": {SHA256: make([]byte, 32), Skipped: make([]control.Skipped, control.MaxSkipped+1)},
	} {
		c := liar(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = json.NewEncoder(w).Encode(u)
		})
		if _, err := c.Unpack(t.Context(), ".", strings.NewReader("x")); backendai.CodeOf(err) != backendai.CodeInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := liar(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(control.Unpacked{
			SHA256: make([]byte, 32), Skipped: []control.Skipped{{Name: "\x1b]0;evil\a\nforged line", Reason: "\x1b[2J"}},
		})
	})
	u, err := c.Unpack(t.Context(), ".", strings.NewReader("x"))
	if err != nil || strings.ContainsAny(u.Skipped[0].Name+u.Skipped[0].Reason, "\x1b\n\a") {
		t.Errorf("%q, %v", u.Skipped, err)
	}
}

func TestFilesAreNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		entry  string
		length int
	}{
		"no entry":      {"", 4},
		"no file":       {`{"name":"x","type":"directory","size":4}`, 4},
		"other length":  {`{"name":"x","type":"file","size":4}`, 5},
		"a path":        {`{"name":"/etc/passwd","type":"file","size":4}`, 4},
		"negative size": {`{"name":"x","type":"file","size":-4}`, 0},
	} {
		client := liar(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(control.EntryHeader, c.entry)
			w.Header().Set("Content-Length", fmt.Sprint(c.length))
			_, _ = w.Write(bytes.Repeat([]byte("x"), c.length))
		})
		if f, err := client.Read(t.Context(), "x", 0); err == nil {
			f.Close()
			t.Errorf("%s: it was believed", name)
		}
	}
	c := liar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"sha256":"AAAA","size":1}`) })
	if _, err := c.Sum(t.Context(), "x", -1); err == nil {
		t.Error("a sum of three bytes was believed")
	}
}
