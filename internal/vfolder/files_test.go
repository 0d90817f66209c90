//go:build linux

package vfolder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"backendai"
	"backendai/internal/vfolder"
)

func names(files []vfolder.File) string {
	var list []string
	for _, f := range files {
		list = append(list, f.Type()[:1]+":"+f.Name)
	}
	return strings.Join(list, " ")
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	made, failed, err := w.Mkdir(ctx, w.alice, "data", []string{"a", "a/b/c", "a", "x/../y"}, false, false)
	if err != nil || len(made) != 1 || len(failed) != 3 {
		t.Errorf("Mkdir = %v, %v, %v", made, failed, err)
	}
	made, failed, err = w.Mkdir(ctx, w.alice, "data", []string{"a/b/c", "a"}, true, true)
	if err != nil || len(made) != 2 || len(failed) != 0 {
		t.Errorf("Mkdir = %v, %v, %v", made, failed, err)
	}
	w.write(t, v, "one", "1")
	w.write(t, v, "two words\nand more", "22")
	if err := os.Symlink("one", filepath.Join(w.content(v), "link")); err != nil {
		t.Fatal(err)
	}
	ls := func(path string) string {
		t.Helper()
		files, err := w.Files(ctx, w.alice, "data", path)
		if err != nil {
			t.Errorf("Files(%q): %v", path, err)
		}
		return names(files)
	}
	if got := ls("."); got != "D:a S:link F:one F:two words\nand more" {
		t.Errorf("Files = %q", got)
	}
	if got := ls("/a/b/"); got != "D:c" {
		t.Errorf("Files = %q", got)
	}
	if got := ls("one"); got != "F:one" {
		t.Errorf("Files = %q", got)
	}
	for _, c := range []struct {
		src, dst string
		code     backendai.Code
	}{
		{"one", "a", ""}, {"a/one", "a/b/uno", ""}, {"a/b/uno", "one", ""},
		{"one", "two words\nand more", backendai.CodeVFolderFailed}, {"a", "a/b/c", backendai.CodeInvalidParams}, {"one", "none/one", backendai.CodeNotFound},
		{"none", "x", backendai.CodeNotFound}, {"../x", "y", backendai.CodeInvalidParams}, {"one", "../y", backendai.CodeInvalidParams}, {".", "x", backendai.CodeInvalidParams},
	} {
		wantCode(t, "move "+c.src+" to "+c.dst, w.Move(ctx, w.alice, "data", c.src, c.dst), c.code)
	}
	for _, c := range []struct {
		path, name string
		code       backendai.Code
	}{
		{"one", "eins", ""}, {"eins", "eins", ""}, {"eins", "a/x", backendai.CodeInvalidParams}, {"eins", "..", backendai.CodeInvalidParams},
		{"eins", "a", backendai.CodeVFolderFailed}, {"eins", strings.Repeat("x", 256), backendai.CodeInvalidParams}, {"eins", strings.Repeat("ü", 127), ""},
	} {
		wantCode(t, "rename "+c.path+" to "+c.name, w.RenameFile(ctx, w.alice, "data", c.path, c.name), c.code)
	}
	wantCode(t, "remove a directory", w.Remove(ctx, w.alice, "data", []string{"a"}, false), backendai.CodeInvalidParams)
	wantCode(t, "remove the folder", w.Remove(ctx, w.alice, "data", []string{"."}, true), backendai.CodeInvalidParams)
	wantCode(t, "remove outside", w.Remove(ctx, w.alice, "data", []string{"a/../.."}, true), backendai.CodeInvalidParams)
	if err := w.Remove(ctx, w.alice, "data", []string{"a", "link", "two words\nand more"}, true); err != nil {
		t.Error(err)
	}
	if got := ls(""); got != "F:"+strings.Repeat("ü", 127) {
		t.Errorf("Files = %q", got)
	}
}

// TestLinksOut: links that a user of the folder has made lead nowhere outside,
// whatever is done by way of them.
func TestLinksOut(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	other := w.create(t, w.stranger, "theirs")
	w.write(t, other, "secret", "s")
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"absolute": outside, "relative": "../../..", "staging": "../upload", "loop": "loop", "theirs": w.content(other), "proc": "/proc/self/root/etc",
	} {
		if err := os.Symlink(target, filepath.Join(w.content(v), name)); err != nil {
			t.Fatal(err)
		}
		_, err := w.Files(ctx, w.alice, "data", name)
		wantCode(t, "list "+name, err, backendai.CodeInvalidParams)
		_, failed, err := w.Mkdir(ctx, w.alice, "data", []string{name + "/made"}, true, true)
		if err != nil || len(failed) != 1 {
			t.Errorf("mkdir below %s: %v, %v", name, failed, err)
		}
		for what, err := range map[string]error{
			"move into": w.Move(ctx, w.alice, "data", "absolute", name+"/x"),
			"move from": w.Move(ctx, w.alice, "data", name+"/file", "x"),
			"rename":    w.RenameFile(ctx, w.alice, "data", name+"/file", "x"),
			"remove":    w.Remove(ctx, w.alice, "data", []string{name + "/file"}, true),
		} {
			if err == nil {
				t.Errorf("%s %s gave no error", what, name)
			}
		}
		if err := w.Remove(ctx, w.alice, "data", []string{name}, true); err != nil {
			t.Errorf("remove the link %s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
	if text, err := os.ReadFile(filepath.Join(w.content(other), "secret")); err != nil || string(text) != "s" {
		t.Errorf("the other folder: %q, %v", text, err)
	}
}

// TestRenameRace: of several who give one name to several files, one succeeds
// and no file is lost.
func TestRenameRace(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	const rivals = 8
	for i := range rivals {
		w.write(t, v, string(rune('a'+i)), "x")
	}
	var wg sync.WaitGroup
	won := make(chan bool, rivals)
	for i := range rivals {
		wg.Go(func() { won <- w.RenameFile(t.Context(), w.alice, "data", string(rune('a'+i)), "target") == nil })
	}
	wg.Wait()
	close(won)
	winners := 0
	for ok := range won {
		if ok {
			winners++
		}
	}
	files, err := w.Files(t.Context(), w.alice, "data", ".")
	if err != nil || winners != 1 || len(files) != rivals {
		t.Errorf("%d won, %d files are left, %v", winners, len(files), err)
	}
}

func TestFilesByOthers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "file", "x")
	try := func(caller backendai.Caller) map[string]error {
		_, list := w.Files(ctx, caller, v.ID, ".")
		_, _, mkdir := w.Mkdir(ctx, caller, v.ID, []string{"dir"}, false, true)
		return map[string]error{
			"list": list, "mkdir": mkdir, "move": w.Move(ctx, caller, v.ID, "file", "moved"),
			"rename": w.RenameFile(ctx, caller, v.ID, "moved", "file"), "remove": w.Remove(ctx, caller, v.ID, []string{"dir"}, true),
		}
	}
	for what, err := range try(w.stranger) {
		wantCode(t, "stranger: "+what, err, backendai.CodeNotFound)
	}
	for _, p := range []backendai.Permission{backendai.ReadOnly, backendai.ReadWrite, backendai.WriteDelete} {
		if err := w.store.SetShare(ctx, vfolder.Share{FolderID: v.ID, UserID: w.stranger.User.ID, Permission: p}); err != nil {
			t.Fatal(err)
		}
		for what, err := range try(w.stranger) {
			need := map[string]backendai.Permission{"list": backendai.ReadOnly, "remove": backendai.WriteDelete}[what]
			if need == "" {
				need = backendai.ReadWrite
			}
			want := backendai.CodeForbidden
			if p.Allows(need) {
				want = ""
			}
			wantCode(t, string(p)+": "+what, err, want)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := w.Sweep(ended); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("Sweep = %v", err)
	}
}
