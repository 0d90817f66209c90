package runner

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/process"
)

// start runs a runner as a plain process's part and gives a client of it.
func start(t *testing.T) (*control.Client, string) {
	t.Helper()
	return startWith(t, func(*control.Config) {})
}

// startWith is start with another configuration.
func startWith(t *testing.T, change func(*control.Config)) (client *control.Client, home string) {
	t.Helper()
	dir := t.TempDir()
	home = filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, name := range []string{"log", "record"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if name == "record" {
			f, err = os.Create(filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	socket := filepath.Join(dir, "control")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	config := control.Config{
		SessionID: "one", Secret: []byte("secret"), Home: home, Env: map[string]string{"PATH": "/usr/bin:/bin"},
		Loopback: fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(254), rand.IntN(256)),
	}
	change(&config)
	r, err := New(Options{
		Config:   config,
		Listener: l, Log: files[0], Record: files[1], Table: process.NewTable(false),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	client = control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, []byte("secret"))
	t.Cleanup(func() {
		client.Close()
		cancel()
		<-done
		for _, f := range files {
			f.Close()
		}
	})
	return client, home
}

// archiveOf writes a tar of n files of size bytes each as it is read.
func archiveOf(t *testing.T, n int, size int64) io.Reader {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { r.Close() })
	go func() {
		out := tar.NewWriter(w)
		var err error
		for i := 0; i < n && err == nil; i++ {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i/1000, i), Size: size, Mode: 0o644, ModTime: time.Unix(1e9, 0)}
			if err = out.WriteHeader(h); err == nil {
				_, err = io.CopyN(out, rand.NewChaCha8([32]byte{byte(i)}), size)
			}
		}
		w.CloseWithError(errors.Join(err, out.Close()))
	}()
	return r
}

func TestFilesThereAndBack(t *testing.T) {
	client, home := start(t)
	var sent bytes.Buffer
	report, err := client.Unpack(t.Context(), "new/place", io.TeeReader(archiveOf(t, 2500, 100), &sent))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(sent.Bytes())
	if report.Files != 2500 || report.Bytes != 250_000 || !bytes.Equal(report.SHA256, sum[:]) || len(report.Skipped) != 0 {
		t.Errorf("%+v", report)
	}
	listing, err := client.List(t.Context(), "new/place")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range listing.Entries {
		names = append(names, e.Type+" "+e.Name)
	}
	if diff := cmp.Diff([]string{"directory d0", "directory d1", "directory d2"}, names); diff != "" {
		t.Error(diff)
	}
	if listing.Path != filepath.Join(home, "new/place") || listing.Self.Name != "place" || listing.Self.Type != control.TypeFolder {
		t.Errorf("%+v", listing)
	}
	back, err := client.Files(t.Context(), "new/place/d0", "new/place/d2")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	entries := 0
	for r := tar.NewReader(back); ; entries++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if entries != 2+1000+500 {
		t.Errorf("%d entries came back", entries)
	}
	f, err := client.Read(t.Context(), "new/place/d0/f7", 60)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rest, err := io.ReadAll(f)
	whole, readErr := os.ReadFile(filepath.Join(home, "new/place/d0/f7"))
	if err != nil || readErr != nil || !bytes.Equal(rest, whole[60:]) || f.Size != 100 || f.Modified.Unix() != 1e9 {
		t.Errorf("%d bytes, %v, %v, %+v", len(rest), err, readErr, f.Entry)
	}
	got, err := client.Sum(t.Context(), "new/place/d0/f7", 60)
	if want := sha256.Sum256(whole[:60]); err != nil || got.Size != 60 || !bytes.Equal(got.SHA256, want[:]) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestUploadsThatFail tell why, also in the middle of a long archive.
func TestUploadsThatFail(t *testing.T) {
	client, home := start(t)
	if err := os.WriteFile(filepath.Join(home, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]string{"..": "outside", "file": "no folder", "/etc/x": "outside"} {
		read := &counting{Reader: archiveOf(t, 100, 1<<20)}
		_, err := client.Unpack(t.Context(), folder, read)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", folder, err)
		}
		if n := read.n.Load(); n > 64<<10 { // what is ready to be sent
			t.Errorf("%s: %d bytes of the archive were taken", folder, n)
		}
	}
	for range 20 {
		archive := io.MultiReader(io.LimitReader(archiveOf(t, 10, 1000), 3000), strings.NewReader(strings.Repeat("no tar any more ", 1<<20)))
		_, err := client.Unpack(t.Context(), ".", archive)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), "not a whole tar") {
			t.Fatalf("a broken archive: %v", err)
		}
	}
	broke := errors.New("the user's line is dead")
	_, err := client.Unpack(t.Context(), ".", io.MultiReader(io.LimitReader(archiveOf(t, 10, 1000), 3000), errorReader{broke}))
	if !errors.Is(err, broke) {
		t.Errorf("an archive that breaks off: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	endless, w := io.Pipe()
	defer w.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := client.Unpack(ctx, ".", endless); err == nil {
		t.Error("an upload outlived its context")
	}
}

// TestMissingKeyIsExplained asks for the key of a session that has none.
func TestMissingKeyIsExplained(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	secret := control.SSH{HostKeys: []string{string(pem.EncodeToMemory(block))}, PrivateKey: "PRIVATE\n"}
	for _, own := range []bool{true, false} {
		client, home := startWith(t, func(c *control.Config) {
			c.SSH = secret
			if own {
				return
			}
			if err := os.Mkdir(filepath.Join(c.Home, ".ssh"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(c.Home, ".ssh/authorized_keys"), []byte("ssh-ed25519 AAAA me\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := client.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		archive, err := client.Files(t.Context(), "id_container")
		if own {
			if err != nil {
				t.Fatal(err)
			}
			archive.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "authorized_keys") {
			t.Errorf("%s: %v", home, err)
		}
	}
}

type counting struct {
	io.Reader
	n atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// TestTransfersAreFlat moves much and many and looks at the heap.
func TestTransfersAreFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves much")
	}
	client, home := start(t)
	before := heap()
	if _, err := client.Unpack(t.Context(), "many", archiveOf(t, 20_000, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Unpack(t.Context(), "large", archiveOf(t, 1, 256<<20)); err != nil {
		t.Fatal(err)
	}
	back, err := client.Files(t.Context(), "many", "large")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := io.CopyN(io.Discard, back, 100<<20); err != nil {
		t.Fatal(err)
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if err := os.RemoveAll(home); err != nil {
		t.Fatal(err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
