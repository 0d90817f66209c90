package archive_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backendai/internal/archive"
)

func TestCollectAndUnpack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	old := time.Unix(1e9, 0)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(from, name) }
	must(os.MkdirAll(at("top/deep/empty"), 0o755), os.WriteFile(at("top/deep/file"), []byte("content"), 0o640), os.WriteFile(at("top/-x ü"), nil, 0o600),
		os.Symlink("deep/file", at("top/link")), os.Symlink("/etc", at("top/out")), os.Chmod(at("top/deep"), 0o700), os.WriteFile(at("top/hole"), nil, 0o644),
		os.Truncate(at("top/hole"), 10<<20), os.Chtimes(at("top/deep/file"), old, old), os.Chtimes(at("top/deep"), old, old))
	sources, skipped, err := archive.Collect(at("top"), "name")
	if err != nil || len(skipped) != 1 || skipped[0].Path != at("top/out") {
		t.Fatalf("Collect: %v, %v", skipped, err)
	}
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for _, s := range sources {
		if _, err := w.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	must(w.Close())
	root, err := os.OpenRoot(to)
	must(err)
	defer root.Close()
	var bytesSeen int64
	must(archive.Unpack(root, bytes.NewReader(b.Bytes()), archive.UnpackOptions{Seen: func(n int64) { bytesSeen += n }}))
	if bytesSeen != 7+10<<20 {
		t.Errorf("%d bytes were seen", bytesSeen)
	}
	for name, mode := range map[string]fs.FileMode{"name": 0o755, "name/deep": 0o700, "name/deep/file": 0o640, "name/-x ü": 0o600, "name/deep/empty": 0o755, "name/hole": 0o644} {
		info, err := root.Lstat(name)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if strings.HasPrefix(name, "name/deep/f") && !info.ModTime().Equal(old) {
			t.Errorf("%s is of %v", name, info.ModTime())
		}
	}
	if link, err := root.Readlink("name/link"); link != "deep/file" {
		t.Errorf("link to %q, %v", link, err)
	}
	if info, err := root.Stat("name/hole"); err != nil || info.Size() != 10<<20 {
		t.Errorf("hole: %v, %v", info, err)
	}
	// A second time only when told so.
	if err := archive.Unpack(root, bytes.NewReader(b.Bytes()), archive.UnpackOptions{}); !errors.Is(err, archive.ErrExists) {
		t.Errorf("over itself: %v", err)
	}
	must(archive.Unpack(root, bytes.NewReader(b.Bytes()), archive.UnpackOptions{Overwrite: true}))
	if err := archive.Unpack(root, bytes.NewReader(b.Bytes()[:len(b.Bytes())-3000]), archive.UnpackOptions{Overwrite: true}); !errors.Is(err, archive.ErrTruncated) {
		t.Errorf("cut: %v", err)
	}
	entries, err := os.ReadDir(to)
	if err != nil || !slices.EqualFunc(entries, []string{"name"}, func(e os.DirEntry, name string) bool { return e.Name() == name }) {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// touched is a file of which every byte that is written is counted.
type touched struct {
	content []byte
	written int
}

func (f *touched) WriteAt(p []byte, at int64) (int, error) {
	f.written += len(p)
	return copy(f.content[at:], p), nil
}

func TestWriteSparse(t *testing.T) {
	const size = 64 << 10
	content := bytes.Repeat([]byte{1}, size)
	clear(content[5000:30000])
	clear(content[40960:])
	for _, step := range []int{1, 100, 4096, 5000, 10000, size} {
		f := &touched{content: make([]byte, size)}
		for at := 0; at < size; at += step {
			if _, err := archive.WriteSparse(f, content[at:min(at+step, size)], int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(f.content, content) {
			t.Errorf("in steps of %d the content is another", step)
		}
		if step >= 10000 && f.written > 40000 {
			t.Errorf("in steps of %d %d bytes were written", step, f.written)
		}
	}
}
