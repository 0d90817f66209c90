package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/store"
)

func TestAliases(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"py", "python"}, {"py", "python:3.11"}, {"np", "numpy"}} {
		if err := s.SetAlias(t.Context(), pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteAlias(t.Context(), "np"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteAlias(t.Context(), "np"); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("delete twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Aliases(t.Context())
	if diff := cmp.Diff(map[string]string{"py": "python:3.11"}, got); diff != "" || err != nil {
		t.Errorf("aliases %v: %s", err, diff)
	}
}
