//go:build linux

package sftp_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	client "github.com/pkg/sftp"

	"backendai/internal/runner/sshd/sftp"
)

// dial serves SFTP in this process and gives a client of another project's.
func dial(t testing.TB, home string) *client.Client {
	t.Helper()
	near, far := net.Pipe()
	var served sync.WaitGroup
	served.Go(func() {
		if err := sftp.Serve(far, sftp.Options{Home: home}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	c, err := client.NewClientPipe(near, near, client.UseConcurrentWrites(true), client.MaxPacketUnchecked(200<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = near.Close()
		served.Wait()
	})
	return c
}

func noError(t testing.TB, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

func TestFileOperations(t *testing.T) {
	home := t.TempDir()
	c := dial(t, home)
	if wd, err := c.Getwd(); err != nil || wd != home {
		t.Errorf("at %q, %v", wd, err)
	}
	noError(t, c.Mkdir("d"), c.MkdirAll("d/e/f"))
	f, err := c.Create("d/file")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	if n, err := f.ReadFrom(bytes.NewReader(data)); err != nil || n != int64(len(data)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	noError(t, f.Sync(), f.Chmod(0o640), f.Truncate(4<<20), f.Close())
	when := time.Unix(1_000_000_000, 0)
	noError(t, c.Chtimes("d/file", when, when.Add(time.Second)))
	info, err := c.Stat("d/file")
	if err != nil || info.Size() != 4<<20 || info.Mode().Perm() != 0o640 || !info.ModTime().Equal(when.Add(time.Second)) {
		t.Errorf("%+v, %v", info, err)
	}
	var back bytes.Buffer
	g, err := c.Open("d/file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.WriteTo(&back); err != nil || !bytes.Equal(back.Bytes(), data[:4<<20]) {
		t.Errorf("%d bytes came back, %v", back.Len(), err)
	}
	noError(t, g.Close(), c.Symlink("file", "d/link"), c.Link("d/file", "d/hard"))
	if to, err := c.ReadLink("d/link"); err != nil || to != "file" {
		t.Errorf("link to %q, %v", to, err)
	}
	if info, err := c.Lstat("d/link"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
	if at, err := c.RealPath("d/../d/link"); err != nil || at != filepath.Join(home, "d/file") {
		t.Errorf("really %q, %v", at, err)
	}
	entries, err := c.ReadDir("d")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"e", "file", "hard", "link"}) {
		t.Errorf("%v, %v", names, err)
	}
	if vfs, err := c.StatVFS("."); err != nil || vfs.FreeSpace() == 0 || vfs.TotalSpace() < vfs.FreeSpace() {
		t.Errorf("%+v, %v", vfs, err)
	}
	noError(t, os.WriteFile(filepath.Join(home, "other"), []byte("other"), 0o600))
	if err := c.Rename("other", "d/hard"); err == nil {
		t.Error("rename replaced a file")
	}
	noError(t, c.PosixRename("other", "d/hard"), c.Rename("d/hard", "moved"), c.Remove("moved"), c.RemoveDirectory("d/e/f"))
	for _, err := range []error{c.RemoveDirectory("d"), c.Mkdir("d")} {
		if err == nil {
			t.Error("what cannot be done was done")
		}
	}
	if _, err := c.Stat("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := c.Open("d/file/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
}

func TestOpenFlags(t *testing.T) {
	home := t.TempDir()
	c := dial(t, home)
	put := func(flags int, text string) error {
		f, err := c.OpenFile("file", flags)
		if err != nil {
			return err
		}
		_, err = f.Write([]byte(text))
		return errors.Join(err, f.Close())
	}
	noError(t, put(os.O_WRONLY|os.O_CREATE, "0123456789"), put(os.O_WRONLY|os.O_APPEND, "abc"), put(os.O_WRONLY, "XX"))
	if text, err := os.ReadFile(filepath.Join(home, "file")); err != nil || string(text) != "XX23456789abc" {
		t.Errorf("%q, %v", text, err)
	}
	if err := put(os.O_WRONLY|os.O_CREATE|os.O_EXCL, ""); err == nil {
		t.Error("an exclusive open took what was there")
	}
	noError(t, put(os.O_WRONLY|os.O_TRUNC, "new"))
	if text, err := os.ReadFile(filepath.Join(home, "file")); err != nil || string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	// A FIFO without a writer keeps nothing waiting.
	noError(t, syscall.Mkfifo(filepath.Join(home, "fifo"), 0o600))
	if f, err := c.Open("fifo"); err == nil {
		_, err := f.Read(make([]byte, 1))
		if err == nil {
			t.Error("a FIFO without a writer gave a byte")
		}
		noError(t, f.Close())
	}
	// A resumed upload goes on where it stopped.
	f, err := c.OpenFile("file", os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("er"), 3)
	noError(t, err, f.Close())
	if text, err := os.ReadFile(filepath.Join(home, "file")); err != nil || string(text) != "newer" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestHandlesAreBounded(t *testing.T) {
	home := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(home, "file"), nil, 0o600))
	c := dial(t, home)
	var open []*client.File
	for {
		f, err := c.Open("file")
		if err != nil {
			break
		}
		if open = append(open, f); len(open) > 5000 {
			t.Fatal("there is no limit")
		}
	}
	if len(open) < 500 {
		t.Errorf("only %d files can be open", len(open))
	}
	for _, f := range open {
		noError(t, f.Close())
	}
	if f, err := c.Open("file"); err != nil {
		t.Errorf("after all are closed: %v", err)
	} else {
		noError(t, f.Close())
	}
}

func TestServeEndsInTheMiddle(t *testing.T) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- sftp.Serve(far, sftp.Options{Home: t.TempDir()}) }()
	if _, err := near.Write([]byte{0, 0, 0, 100, 1, 0}); err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	if err := <-done; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("half a packet ended with %v", err)
	}
}
