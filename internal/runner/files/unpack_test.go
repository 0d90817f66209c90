package files_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/files"
)

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func fifo(t testing.TB, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

func unpackFrom(t testing.TB, home, folder string, archive io.Reader) (control.Unpacked, error) {
	t.Helper()
	target, err := files.OpenTarget(home, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	return target.Unpack(t.Context(), archive)
}

func unpack(t testing.TB, home, folder string, archive []byte) control.Unpacked {
	t.Helper()
	report, err := unpackFrom(t, home, folder, bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(archive); !bytes.Equal(report.SHA256, want[:]) {
		t.Errorf("the sum is %x", report.SHA256)
	}
	return report
}

// entry is one of an archive that a test makes.
type entry struct {
	name string
	kind byte // tar.TypeReg when 0
	text string
	mode int64
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, ModTime: when}
		switch e.kind {
		case 0, tar.TypeReg:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.text))
		default:
			h.Linkname = e.text
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		err := w.WriteHeader(h)
		if err == nil && h.Size > 0 {
			_, err = w.Write([]byte(e.text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tree tells what is below a folder: "mode content".
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			text, err = os.Readlink(path)
		}
		name, _ := filepath.Rel(dir, path)
		found[name] = strings.TrimSpace(info.Mode().String() + " " + text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUnpackKeepsModesAndTimes(t *testing.T) {
	home := t.TempDir()
	report := unpack(t, home, "new/folder", archive(t,
		entry{name: "./", kind: tar.TypeDir, mode: 0o700},
		entry{name: "./closed/", kind: tar.TypeDir, mode: 0o555},
		entry{name: "./closed/in/", kind: tar.TypeDir, mode: 0o750},
		entry{name: "./closed/in/run", text: "run", mode: 0o755},
		entry{name: "closed/in/up", kind: tar.TypeSymlink, text: "../../link"},
		entry{name: "./closed/after", text: "after", mode: 0o400},
		entry{name: "no/parents/here", text: "here", mode: 0o4755},
		entry{name: "link", kind: tar.TypeSymlink, text: "closed/after"},
		entry{name: "hard", kind: tar.TypeLink, text: "no/parents/here"},
	))
	if report.Files != 4-1 || report.Folders != 2 || report.Links != 3 || report.Bytes != 12 || len(report.Skipped) != 0 {
		t.Errorf("%+v", report)
	}
	if diff := cmp.Diff(map[string]string{
		"closed": "dr-xr-xr-x", "closed/in": "drwxr-x---", "closed/in/run": "-rwxr-xr-x run", "closed/after": "-r-------- after",
		"no": "drwxr-xr-x", "no/parents": "drwxr-xr-x", "no/parents/here": "-rwxr-xr-x here", "hard": "-rwxr-xr-x here",
		"link": "Lrwxrwxrwx closed/after", "closed/in/up": "Lrwxrwxrwx ../../link",
	}, tree(t, filepath.Join(home, "new/folder"))); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"closed", "closed/in", "closed/in/run", "closed/after", "no/parents/here"} {
		if info, err := os.Stat(filepath.Join(home, "new/folder", name)); err != nil || !info.ModTime().Equal(when) {
			t.Errorf("%s: %v, %v", name, info.ModTime(), err)
		}
	}
}

func TestUnpackReplaces(t *testing.T) {
	home := t.TempDir()
	first := archive(t,
		entry{name: "file", text: "old"}, entry{name: "folder/", kind: tar.TypeDir, mode: 0o755}, entry{name: "folder/x", text: "x"},
		entry{name: "link", kind: tar.TypeSymlink, text: "file"})
	unpack(t, home, ".", first)
	unpack(t, home, ".", first)
	report := unpack(t, home, ".", archive(t,
		entry{name: "file", text: "new"}, entry{name: "link", text: "no link any more"}, entry{name: "folder", text: "a file"},
		entry{name: "file/x", text: "x"}, entry{name: "file/", kind: tar.TypeDir}))
	if diff := cmp.Diff(map[string]string{
		"file": "-rw-r--r-- new", "folder": "drwxr-xr-x", "folder/x": "-rw-r--r-- x", "link": "-rw-r--r-- no link any more",
	}, tree(t, home)); diff != "" {
		t.Error(diff)
	}
	if len(report.Skipped) != 3 {
		t.Errorf("%+v", report)
	}
}

// TestHostileArchives has what only an attacker packs. Nothing may leave the
// folder, nor come to be in it but what is harmless.
func TestHostileArchives(t *testing.T) {
	for name, c := range map[string]struct {
		entries []entry
		skipped string
	}{
		"absolute":             {[]entry{{name: "/tmp/absolute-name", text: "x"}}, "absolute"},
		"parent":               {[]entry{{name: "../secret", text: "x"}}, "leads out"},
		"parent within":        {[]entry{{name: "a/../../secret", text: "x"}}, "leads out"},
		"folder outside":       {[]entry{{name: "../new/", kind: tar.TypeDir}}, "leads out"},
		"link out":             {[]entry{{name: "l", kind: tar.TypeSymlink, text: "../secret"}}, "leads out"},
		"absolute link":        {[]entry{{name: "l", kind: tar.TypeSymlink, text: "/etc/passwd"}}, "leads out"},
		"link to folder out":   {[]entry{{name: "l", kind: tar.TypeSymlink, text: ".."}, {name: "l/secret", text: "x"}}, "leads out"},
		"hard link out":        {[]entry{{name: "l", kind: tar.TypeLink, text: "../secret"}}, "leads out"},
		"absolute hard link":   {[]entry{{name: "l", kind: tar.TypeLink, text: "/etc/passwd"}}, "leads out"},
		"character device":     {[]entry{{name: "d", kind: tar.TypeChar}}, "device"},
		"block device":         {[]entry{{name: "d", kind: tar.TypeBlock}}, "device"},
		"fifo":                 {[]entry{{name: "d", kind: tar.TypeFifo}}, "FIFO"},
		"no name":              {[]entry{{name: ".", text: "x"}}, "no name"},
		"deep":                 {[]entry{{name: strings.Repeat("d/", 400) + "x", text: "x"}}, "deep"},
		"through a made link":  {[]entry{{name: "in", kind: tar.TypeSymlink, text: "made"}, {name: "made", kind: tar.TypeSymlink, text: "../out"}, {name: "in/x", text: "x"}}, "leads out"},
		"over a planted link":  {[]entry{{name: "planted/secret", text: "x"}}, "leads out"},
		"planted file":         {[]entry{{name: "plantedfile", text: "mine"}}, ""},
		"hard link by planted": {[]entry{{name: "l", kind: tar.TypeLink, text: "planted/secret"}}, "leads out"},
		"long name":            {[]entry{{name: strings.Repeat("n", 256), text: "x"}}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			for _, err := range []error{
				os.WriteFile(filepath.Join(home, "secret"), []byte("secret"), 0o600),
				os.MkdirAll(filepath.Join(home, "out"), 0o700), os.Mkdir(filepath.Join(home, "to"), 0o700),
				os.Symlink("..", filepath.Join(home, "to/planted")), os.Symlink("../secret", filepath.Join(home, "to/plantedfile")),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			report := unpack(t, home, "to", archive(t, append(c.entries, entry{name: "last", text: "last"})...))
			told := fmt.Sprint(report.Skipped)
			if c.skipped == "" && len(report.Skipped) > 0 || !strings.Contains(told, c.skipped) {
				t.Errorf("it tells %s", told)
			}
			if text, err := os.ReadFile(filepath.Join(home, "to/last")); string(text) != "last" {
				t.Errorf("what came after it: %q, %v", text, err)
			}
			if diff := cmp.Diff([]string{"out", "secret", "to"}, names(t, home)); diff != "" {
				t.Error(diff)
			}
			if text, err := os.ReadFile(filepath.Join(home, "secret")); string(text) != "secret" {
				t.Errorf("the secret: %q, %v", text, err)
			}
			if found := names(t, filepath.Join(home, "out")); len(found) != 0 {
				t.Errorf("outside is %v", found)
			}
		})
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestBrokenArchives end in an error and leave no half file.
func TestBrokenArchives(t *testing.T) {
	whole := archive(t, entry{name: "first", text: "first"}, entry{name: "second", text: strings.Repeat("x", 200_000)})
	broken := errors.New("the line is dead")
	for name, c := range map[string]struct {
		archive io.Reader
		code    backendai.Code
	}{
		"cut":        {bytes.NewReader(whole[:100_000]), backendai.CodeInvalidParams},
		"no tar":     {strings.NewReader(strings.Repeat("hello", 1000)), backendai.CodeInvalidParams},
		"line broke": {io.MultiReader(bytes.NewReader(whole[:100_000]), failing{broken}), ""},
	} {
		home := t.TempDir()
		_, err := unpackFrom(t, home, ".", c.archive)
		if c.code == "" && !errors.Is(err, broken) || c.code != "" && backendai.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		for _, left := range names(t, home) {
			if left != "first" {
				t.Errorf("%s: it left %q", name, left)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestUnpackWhereNothingMayBe(t *testing.T) {
	home := newHome(t)
	for name, want := range map[string]string{"..": "outside", "/etc": "outside", "up/x": "outside", "id_container": "no folder", "sub/run/x": "no folder"} {
		if target, err := files.OpenTarget(home, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", name, target, err)
		}
	}
}

// TestSparseBomb claims more than there can be with a few bytes.
func TestSparseBomb(t *testing.T) {
	home := t.TempDir()
	f, err := os.Create(filepath.Join(home, "bomb"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip("this filesystem has no files of 1 TiB:", err)
	}
	bomb := pack(t, home, "bomb")
	to := t.TempDir()
	began := time.Now()
	report := unpack(t, to, ".", bomb)
	if len(report.Skipped) != 1 || len(names(t, to)) != 0 || time.Since(began) > 30*time.Second {
		t.Errorf("%+v after %s", report, time.Since(began))
	}
}

// FuzzUnpack holds that no archive whatsoever writes outside of its folder.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, entry{name: "a/b", text: "x"}, entry{name: "l", kind: tar.TypeSymlink, text: "a"}, entry{name: "l/c", text: "y"}))
	f.Add(archive(f, entry{name: "../x", text: "x"}, entry{name: "l", kind: tar.TypeLink, text: "../secret"}))
	f.Add(archive(f, entry{name: "l", kind: tar.TypeSymlink, text: ".."}, entry{name: "l/x", text: "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, "secret"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := unpackFrom(t, home, "to", bytes.NewReader(data))
		if err == nil && len(report.SHA256) != 32 {
			t.Error("there is no sum")
		}
		if diff := cmp.Diff([]string{"secret", "to"}, names(t, home)); diff != "" {
			t.Error(diff)
		}
		if text, err := os.ReadFile(filepath.Join(home, "secret")); string(text) != "secret" {
			t.Errorf("the secret: %q, %v", text, err)
		}
	})
}

// FuzzPaths holds that no path leads out of the home.
func FuzzPaths(f *testing.F) {
	for _, p := range []string{"../secret", "/etc/passwd", "up/secret", "sub/out", "absolute", "within/../../secret", "\x00", "a/..//../secret"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, name string) {
		home := newHome(t)
		r, _, err := files.Read(home, name, 0)
		if err != nil {
			return
		}
		defer r.Close()
		if content, err := io.ReadAll(r); err != nil || string(content) == "secret" {
			t.Errorf("%q, %v", content, err)
		}
	})
}
