package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"backendai"
)

// TestFullDatabase fills a database that may not grow, which SQLite tells just
// as a full disk, and then gives it room again.
func TestFullDatabase(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	limit := func(pages int) {
		t.Helper()
		if _, err := s.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	one := &backendai.Session{Bootstrap: strings.Repeat("x", 10_000)}
	insert := func(n int) error {
		one.ID = fmt.Sprint(n)
		one.Name = one.ID
		return s.InsertSession(context.Background(), one)
	}
	limit(100)
	n := 0
	for ; n < 100; n++ {
		if err = insert(n); err != nil {
			break
		}
	}
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Code != backendai.CodeUnavailable || e.Title != "the disk of the server's database is full" || e.Hint == "" {
		t.Fatalf("after %d sessions: %v", n, err)
	}
	if _, err := s.Session(t.Context(), "0"); err != nil {
		t.Errorf("what is there cannot be read: %v", err)
	}
	limit(10_000)
	if err := insert(n); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
