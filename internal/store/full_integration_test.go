//go:build integration && linux

package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/session"
	"backendai/internal/store"
)

// TestFullDisk fills a real, small disk below a store.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); errors.Is(err, unix.EPERM) {
		t.Skip("may not mount")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; n < 1000; n++ {
		one := newSession(fmt.Sprintf("mysession-%d", n))
		one.Bootstrap = strings.Repeat("x", 5000)
		if err = s.InsertSession(t.Context(), one); err != nil {
			break
		}
	}
	if backendai.CodeOf(err) != backendai.CodeUnavailable || err.Error() != "the disk of the server's database is full" {
		t.Fatalf("after %d sessions: %v", n, err)
	}
	if _, total, err := s.FindSessions(t.Context(), session.Query{Limit: 1}); err != nil || total != n {
		t.Errorf("%d of %d sessions, %v", total, n, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	insert(t, s, newSession("with-room-again"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	// A disk that is full at the first start.
	second := filepath.Join(dir, "second")
	if err := os.Mkdir(second, 0o700); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	fill.Close()
	refused(t, second, second, "no space left")
}
