package files_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai/internal/control"
	"backendai/internal/runner/files"
)

func list(t *testing.T, home, name string) (control.Entry, map[string]control.Entry) {
	t.Helper()
	var self *control.Entry
	entries := map[string]control.Entry{}
	more, err := files.List(home, name, func(e control.Entry) error {
		if self == nil {
			self = &e
			return nil
		}
		if e.Accessed.IsZero() || e.Changed.IsZero() {
			t.Errorf("%s lacks a time", e.Name)
		}
		entries[e.Name] = e
		return nil
	})
	if err != nil || more {
		t.Fatalf("%v, %v", err, more)
	}
	return *self, entries
}

func TestList(t *testing.T) {
	home := newHome(t)
	self, entries := list(t, home, "sub")
	if self.Name != filepath.Join(home, "sub") || self.Type != control.TypeFolder {
		t.Errorf("%+v", self)
	}
	got := map[string]string{}
	for name, e := range entries {
		got[name] = e.Type + " " + e.Target
	}
	if diff := cmp.Diff(map[string]string{"deep": "directory ", "run": "file ", "out": "symlink ../../secret", "fifo": "other "}, got); diff != "" {
		t.Error(diff)
	}
	if e := entries["run"]; e.Mode != 0o755 || e.Size != 3 || !e.Modified.Equal(when) {
		t.Errorf("%+v", e)
	}
	if self, entries := list(t, home, filepath.Join(home, "sub/run")); len(entries) != 0 || self.Type != control.TypeFile {
		t.Errorf("a file: %+v, %v", self, entries)
	}
	if self, _ := list(t, home, "."); self.Name != home {
		t.Errorf("%+v", self)
	}
	for name, want := range map[string]string{"..": "outside", "up": "outside", "/": "outside", "missing": "no such file"} {
		if _, err := files.List(home, name, func(control.Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListOfAnEmptyFolder(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if self, entries := list(t, home, "empty"); len(entries) != 0 || self.Mode != 0o700 {
		t.Errorf("%+v, %v", self, entries)
	}
}
