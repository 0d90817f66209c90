package files_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/files"
)

var when = time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC)

// newHome makes a home with a secret beside it.
func newHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	home := filepath.Join(dir, "work")
	for path, content := range map[string]string{
		"secret": "secret", "work/id_container": "key", "work/sub/deep/file": "deep", "work/sub/run": "run",
	} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, when, when); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(home, "sub/run"), 0o755),
		os.Symlink("../../secret", filepath.Join(home, "sub/out")),
		os.Symlink(filepath.Join(dir, "secret"), filepath.Join(home, "absolute")),
		os.Symlink("..", filepath.Join(home, "up")),
		os.Symlink("sub", filepath.Join(home, "within")),
		os.Symlink("circle", filepath.Join(home, "circle")),
		syscall.Mkfifo(filepath.Join(home, "sub/fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// read gives the entries of a tar as "mode type content".
func read(t *testing.T, data io.Reader) map[string]string {
	t.Helper()
	entries := map[string]string{}
	r := tar.NewReader(data)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			entries["skipped "+h.PAXRecords[control.PAXSkipped]] = ""
			continue
		}
		text := string(content)
		if h.Typeflag == tar.TypeSymlink {
			text = "→ " + h.Linkname
		}
		entries[h.Name] = fs.FileMode(h.Mode).String() + " " + text
		if h.Typeflag == tar.TypeReg && !h.ModTime.Equal(when) {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
	}
}

func TestArchive(t *testing.T) {
	home := newHome(t)
	for name, want := range map[string]map[string]string{
		"id_container":                      {"id_container": "-rw------- key"},
		filepath.Join(home, "id_container"): {"id_container": "-rw------- key"},
		"sub/../id_container":               {"id_container": "-rw------- key"},
		"within/deep":                       {"deep/": "-rwxr-xr-x ", "deep/file": "-rw------- deep"},
		"sub": {
			"sub/": "-rwxr-xr-x ", "sub/deep/": "-rwxr-xr-x ", "sub/deep/file": "-rw------- deep",
			"sub/run": "-rwxr-xr-x run", "sub/out": "-rwxrwxrwx → ../../secret", "skipped sub/fifo: it is a FIFO": "",
		},
	} {
		a, err := files.Open(home, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var out bytes.Buffer
		if err := a.Write(t.Context(), &out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		a.Close()
		if diff := cmp.Diff(want, read(t, &out)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	a, err := files.Open(home, ".")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var out bytes.Buffer
	if err := a.Write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(read(t, &out))) {
		if !strings.HasPrefix(strings.TrimPrefix(name, "skipped "), "work/") {
			t.Errorf("the home's archive has %q", name)
		}
	}
}

func TestWhatLeavesTheHomeIsRefused(t *testing.T) {
	home := newHome(t)
	for name, want := range map[string]string{
		"../secret":     "outside",
		"/etc/passwd":   "outside",
		"absolute":      "outside",
		"sub/out":       "outside",
		"up/secret":     "outside",
		"circle":        "circle",
		"missing":       "no such file",
		"id_container/": "",
		"sub/run/x":     "no such file",
		"sub/fifo":      "neither a file nor a folder",
	} {
		a, err := files.Open(home, name)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			a.Close()
			continue
		}
		if err == nil {
			a.Close()
			t.Errorf("%s was opened", name)
			continue
		}
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// shrinking cuts a file shorter as soon as its header is written.
type shrinking struct {
	bytes.Buffer
	file string
}

func (s *shrinking) Write(p []byte) (int, error) {
	if s.Len() == 0 {
		if err := os.Truncate(s.file, 100_001); err != nil {
			return 0, err
		}
	}
	return s.Buffer.Write(p)
}

func TestFileThatShrinksIsFilledUp(t *testing.T) {
	home := newHome(t)
	file := filepath.Join(home, "large")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 200_000), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := files.Open(home, "large")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	out := &shrinking{file: file}
	if err := a.Write(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(out)
	if h, err := r.Next(); err != nil || h.Size != 200_000 {
		t.Fatalf("%+v, %v", h, err)
	}
	content, err := io.ReadAll(r)
	if want := strings.Repeat("x", 100_001) + strings.Repeat("\x00", 99_999); err != nil || string(content) != want {
		t.Errorf("%d bytes, %v", len(content), err)
	}
}
