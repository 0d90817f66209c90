//go:build linux

package vfolder_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backendai"
	"backendai/internal/vfolder"
)

// tempting is a folder from which links lead out; check tells whether anything
// outside has changed.
func tempting(t *testing.T) (w *world, check func()) {
	t.Helper()
	w = newWorld(t)
	v := w.create(t, w.alice, "data")
	w.write(t, v, "dir/file", "x")
	outside := filepath.Dir(w.dir)
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": outside, "up": "../../../..", "in": "dir", "self": "self"} {
		if err := os.Symlink(target, filepath.Join(w.content(v), name)); err != nil {
			t.Fatal(err)
		}
	}
	list := func() string {
		var names []string
		err := filepath.WalkDir(outside, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case path == w.content(v):
				return fs.SkipDir
			case strings.HasPrefix(path, filepath.Join(filepath.Dir(w.content(v)), "upload")+"/"):
				return nil
			}
			names = append(names, path+" "+d.Type().String())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(names, "\n")
	}
	before := list()
	return w, func() {
		t.Helper()
		if after := list(); after != before {
			t.Errorf("outside was\n%s\nand is\n%s", before, after)
		}
		if text, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(text) != "secret" {
			t.Errorf("the file outside is %q, %v", text, err)
		}
	}
}

// FuzzPaths: no name that a user gives reaches anything outside the folder.
func FuzzPaths(f *testing.F) {
	for _, pair := range [][2]string{
		{"dir/file", "new"}, {"../x", "y"}, {"out/file", "up/x"}, {"/etc/passwd", "/"}, {"in/../file", "."}, {"self", "in/x"}, {"a\x00b", "ü\xff"}, {"dir//./file", "up/../x"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		w, check := tempting(t)
		ctx := t.Context()
		if files, err := w.Files(ctx, w.alice, "data", one); err == nil {
			for _, file := range files {
				if !slices.Contains([]string{"dir", "file", "in", "out", "self", "up"}, file.Name) {
					t.Errorf("Files(%q) shows %q", one, file.Name)
				}
			}
		}
		if token, err := w.RequestDownload(ctx, w.alice, "data", vfolder.DownloadRequest{Path: one}); err == nil {
			rw := httptest.NewRecorder()
			if err := w.ServeDownload(rw, httptest.NewRequestWithContext(ctx, "GET", "/", nil), token); err == nil && rw.Body.String() != "x" {
				t.Errorf("the download of %q has %q", one, rw.Body)
			}
		}
		_, _, _ = w.Mkdir(ctx, w.alice, "data", []string{one, two}, true, false)
		_, _ = w.RequestUpload(ctx, w.alice, "data", vfolder.UploadRequest{Path: one}) // which makes an empty file
		_ = w.RenameFile(ctx, w.alice, "data", one, two)
		_ = w.Move(ctx, w.alice, "data", one, two)
		_, _ = w.RequestFill(ctx, w.alice, "data", two)
		_ = w.Remove(ctx, w.alice, "data", []string{one, two}, true)
		check()
	})
}

// FuzzFill: no archive writes anything outside the folder, and none leaves
// anything aside.
func FuzzFill(f *testing.F) {
	for _, entries := range [][]*tar.Header{
		{{Name: "dir/file", Size: 3}, {Name: "x/", Typeflag: tar.TypeDir}, {Name: "x/y", Size: 5000}}, {{Name: "out/file", Size: 1}}, {{Name: "up/x"}},
		{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "dir"}, {Name: "l/file", Size: 2}}, {{Name: "../x"}}, {{Name: "dir", Size: 1}},
	} {
		f.Add(stream(f, entries...))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w, check := tempting(t)
		token, err := w.RequestFill(t.Context(), w.alice, "data", ".")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.ServeFill(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/", bytes.NewReader(body)), token)
		if code := backendai.CodeOf(err); code == backendai.CodeInternal {
			t.Errorf("ServeFill: %v", err)
		}
		check()
		if v, err := w.Find(t.Context(), w.alice, "data"); err != nil || len(w.staged(t, v)) > 0 {
			t.Errorf("left over: %v", err)
		}
	})
}

// FuzzToken: only what the service has signed is taken.
func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJvcCI6ImRvd25sb2FkIn0.")
	f.Add("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcCI6ImRvd25sb2FkIn0.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		w := newWorld(t)
		if _, err := w.Checksum(t.Context(), token, ""); backendai.CodeOf(err) != backendai.CodeAuthFailed {
			t.Errorf("Checksum: %v", err)
		}
	})
}
