package main

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func tarOf(t *testing.T, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname
		h.Uname = ""
		h.Size = int64(len(content))
		h.ModTime = time.Unix(1700000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func openRoot(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root, dir
}

// The content of a file stands in Uname.
func TestUntar(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links are not those of Windows")
	}
	root, dir := openRoot(t)
	if err := os.WriteFile(filepath.Join(dir, "id_container"), []byte("old and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := tarOf(t,
		tar.Header{Name: "id_container", Typeflag: tar.TypeReg, Mode: 0o600, Uname: "key"},
		tar.Header{Name: "out/", Typeflag: tar.TypeDir, Mode: 0o500},
		tar.Header{Name: "out/a b", Typeflag: tar.TypeReg, Mode: 0o755, Uname: "program"},
		tar.Header{Name: "out/link", Typeflag: tar.TypeSymlink, Linkname: "../id_container"},
		tar.Header{Name: "deep/er/file", Typeflag: tar.TypeReg, Mode: 0o644, Uname: "x"},
	)
	if err := untar(root, archive); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode    fs.FileMode
		content string
	}{"id_container": {0o600, "key"}, "out/a b": {0o755, "program"}, "deep/er/file": {0o644, "x"}, "out/link": {0o777 | fs.ModeSymlink, "key"}} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		text, _ := os.ReadFile(filepath.Join(dir, name))
		if info.Mode() != want.mode || string(text) != want.content {
			t.Errorf("%s is %v with %q", name, info.Mode(), text)
		}
		if info.Mode().IsRegular() && info.ModTime().Unix() != 1700000000 {
			t.Errorf("%s is of %v", name, info.ModTime())
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "out")); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("the folder is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(filepath.Join(dir, "out"), 0o700); err != nil { // so that it can be removed
		t.Fatal(err)
	}
}

// TestHostileArchives unpacks what a session may send.
func TestHostileArchives(t *testing.T) {
	outside := t.TempDir()
	for name, entries := range map[string][]tar.Header{
		"path out":        {{Name: "../x", Typeflag: tar.TypeReg, Mode: 0o644}},
		"path out inside": {{Name: "a/../../x", Typeflag: tar.TypeReg, Mode: 0o644}},
		"absolute":        {{Name: outside + "/x", Typeflag: tar.TypeReg, Mode: 0o644}},
		"absolute link":   {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}},
		"link out":        {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../"}},
		"hard link":       {{Name: "l", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"device":          {{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"pipe":            {{Name: "p", Typeflag: tar.TypeFifo}},
		"through a link": {
			{Name: "a/b", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "a/b/l", Typeflag: tar.TypeSymlink, Linkname: ".."},
			{Name: "a/b/l/../../x", Typeflag: tar.TypeReg, Mode: 0o644},
		},
	} {
		root, dir := openRoot(t)
		err := untar(root, tarOf(t, entries...))
		if _, statErr := os.Lstat(filepath.Join(filepath.Dir(dir), "x")); err == nil && name != "through a link" || statErr == nil {
			t.Errorf("%s: %v, %v", name, err, statErr)
		}
	}
	files, err := os.ReadDir(outside)
	if err != nil || len(files) > 0 {
		t.Errorf("outside there is %v, %v", files, err)
	}
	root, _ := openRoot(t)
	if err := untar(root, strings.NewReader("this is no archive, not even a short one")); err == nil {
		t.Error("what is no archive was unpacked")
	}
}

// TestUntarFollowsNoLink has a link where a file is to be put.
func TestUntarFollowsNoLink(t *testing.T) {
	root, dir := openRoot(t)
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "f")); err != nil {
		t.Skip(err)
	}
	if err := untar(root, tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Uname: "evil"})); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("the file behind the link has %q, %v", text, err)
	}
}
