package files_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/files"
)

// pack gives the tar of paths.
func pack(t testing.TB, home string, names ...string) []byte {
	t.Helper()
	a, err := files.Open(home, names...)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var out bytes.Buffer
	if err := a.Write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestManyPaths(t *testing.T) {
	home := newHome(t)
	got := slices.Sorted(maps.Keys(read(t, bytes.NewReader(pack(t, home, "id_container", "sub/deep", "sub/run")))))
	if diff := cmp.Diff([]string{"deep/", "deep/file", "id_container", "run"}, got); diff != "" {
		t.Error(diff)
	}
	if err := os.Mkdir(filepath.Join(home, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Open(home, "run", "sub/run"); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("two of one name: %v", err)
	}
	if _, err := files.Open(home, "id_container", "missing"); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("one that is missing: %v", err)
	}
}

// strange are names that a filesystem takes and programs stumble over.
var strange = []string{
	"with space", "-rf", "Grüße 你好", "line\nbreak", "tab\tquote'\"", strings.Repeat("n", 255), "not utf-8 \xff", " ",
	strings.Repeat("ü", 127), "..dots", "*?[x]", "back\\slash",
}

func TestStrangeNamesThereAndBack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	deep := filepath.Join(from, "all", strings.Repeat("d/", 100), strings.Repeat("x", 200))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range strange {
		for _, dir := range []string{filepath.Join(from, "all"), deep} {
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Append(nil, i), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	report := unpack(t, to, "there", pack(t, from, "all"))
	if report.Files != 2*len(strange) || len(report.Skipped) != 0 {
		t.Errorf("%+v", report)
	}
	if out, err := exec.CommandContext(t.Context(), "diff", "-r", from, filepath.Join(to, "there")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sparse makes a file of 64 MiB with data in two places.
func sparse(t testing.TB, path string) [32]byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for offset, text := range map[int64]string{5 << 20: "five", 40<<20 + 123: "forty"} {
		if _, err := f.WriteAt([]byte(text), offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	return sum(t, path)
}

func sum(t testing.TB, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

func TestHolesStayHoles(t *testing.T) {
	home := t.TempDir()
	name := "a long name " + strings.Repeat("é", 60)
	want := sparse(t, filepath.Join(home, name))
	if err := os.Chmod(filepath.Join(home, name), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "after"), []byte("after"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := pack(t, home, name, "after")
	if len(archive) > 1<<20 {
		t.Errorf("the archive has %d bytes", len(archive))
	}
	r := tar.NewReader(bytes.NewReader(archive))
	h, err := r.Next()
	if err != nil || h.Name != name || h.Size != 64<<20 || h.Mode != 0o640 {
		t.Fatalf("%+v, %v", h, err)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil || !bytes.Equal(hash.Sum(nil), want[:]) {
		t.Errorf("the content is another one, %v", err)
	}
	file := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range [][]string{
		{"tar", "-xf", file},
		{"python3", "-c", "import sys, tarfile; tarfile.open(sys.argv[1]).extractall('.')", file},
		nil, // ours
	} {
		dir := t.TempDir()
		if program == nil {
			unpack(t, dir, ".", archive)
		} else {
			cmd := exec.CommandContext(t.Context(), program[0], program[1:]...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
				continue
			} else if err != nil {
				t.Fatalf("%v: %v\n%s", program, err, out)
			}
		}
		if sum(t, filepath.Join(dir, name)) != want {
			t.Errorf("%v: the content is another one", program)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "after")); string(text) != "after" {
			t.Errorf("%v: after it came %q, %v", program, text, err)
		}
		if used := blocks(t, filepath.Join(dir, name)); used > 1<<20 {
			t.Errorf("%v: it takes %d bytes of the disk", program, used)
		}
	}
}

func TestWhatIsLeftOutIsTold(t *testing.T) {
	home := t.TempDir()
	for i := range control.MaxSkipped + 7 {
		fifo(t, filepath.Join(home, fmt.Sprint("fifo", i)))
	}
	told, last := 0, ""
	for name := range read(t, bytes.NewReader(pack(t, home, "."))) {
		if text, ok := strings.CutPrefix(name, "skipped "); ok {
			if told++; strings.HasPrefix(text, "and ") {
				last = text
			}
		}
	}
	if told != control.MaxSkipped+1 || last != "and 7 more" {
		t.Errorf("%d are told, %q", told, last)
	}
	// Other programs pass over it.
	file := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(file, pack(t, home, "."), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-tf", file).Output(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("tar: %v, %q", err, out)
	}
}

func TestReadAndSum(t *testing.T) {
	home := newHome(t)
	f, entry, err := files.Read(home, "within/deep/file", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if string(content) != "eep" || err != nil || entry.Size != 4 || entry.Name != "file" || !entry.Modified.Equal(when) {
		t.Errorf("%q, %v, %+v", content, err, entry)
	}
	for name, want := range map[string]string{"sub": "not a regular", "sub/fifo": "not a regular", "sub/out": "outside", "no": "no such"} {
		if _, _, err := files.Read(home, name, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for length, text := range map[int64]string{-1: "deep", 0: "", 2: "de", 100: "deep"} {
		got, size, err := files.Sum(t.Context(), home, "sub/deep/file", length)
		if want := sha256.Sum256([]byte(text)); err != nil || size != int64(len(text)) || !bytes.Equal(got, want[:]) {
			t.Errorf("first %d: %x, %d, %v", length, got, size, err)
		}
	}
}
