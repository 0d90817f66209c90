//go:build linux

package vfolder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

// run lets a world do what goes on in the background until the test ends.
func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// clone begins a copy of a folder of alice in a world that runs.
func (w *world) clone(t *testing.T, from, to string) (vfolder.View, string, error) {
	t.Helper()
	for { // Run may not have begun
		copied, task, err := w.Clone(t.Context(), w.alice, from, vfolder.CloneRequest{Name: to})
		if backendai.CodeOf(err) != backendai.CodeUnavailable {
			return copied, task, err
		}
		if err := errors.Join(w.Trash(t.Context(), w.alice, to), w.Purge(t.Context(), w.alice, to)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClone(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v, err := w.Create(ctx, w.alice, vfolder.CreateRequest{Name: "data", Cloneable: true})
	if err != nil {
		t.Fatal(err)
	}
	w.create(t, w.alice, "closed")
	w.write(t, v, "a/b/file", "content")
	at := func(name string) string { return filepath.Join(w.content(v), name) }
	old := time.Unix(1e9, 0)
	if err := errors.Join(os.Symlink("/etc", at("out")), mkfifo(at("pipe")), os.Chmod(at("a/b/file"), 0o640), os.Truncate(at("a/b/file"), 1<<20),
		os.Chtimes(at("a/b/file"), old, old), os.Chmod(at("a"), 0o700), os.Chtimes(at("a"), old, old)); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.Clone(ctx, w.alice, "data", vfolder.CloneRequest{Name: "copy"})
	wantCode(t, "before the server runs", err, backendai.CodeUnavailable)
	if f, err := w.Find(ctx, w.alice, "copy"); err != nil || f.Status != backendai.FolderError {
		t.Errorf("%v, %v", f.Status, err)
	}
	w.run(t)
	_, _, err = w.Clone(ctx, w.stranger, v.ID, vfolder.CloneRequest{Name: "copy"})
	wantCode(t, "the stranger", err, backendai.CodeNotFound)
	_, _, err = w.Clone(ctx, w.alice, "closed", vfolder.CloneRequest{Name: "copy2"})
	wantCode(t, "not cloneable", err, backendai.CodeForbidden)
	copied, task, err := w.clone(t, "data", "copy3")
	if err != nil || copied.Status != backendai.FolderCloning {
		t.Fatalf("Clone = %+v, %v", copied, err)
	}
	var last vfolder.TaskState
	wantCode(t, "another follows", w.FollowTask(ctx, w.stranger, task, func(vfolder.TaskState) error { return nil }), backendai.CodeNotFound)
	if err := w.FollowTask(ctx, w.alice, task, func(s vfolder.TaskState) error { last = s; return nil }); err != nil || last.Err != nil || last.Current != 1<<20 || last.Total != 1<<20 {
		t.Errorf("FollowTask = %+v, %v", last, err)
	}
	w.has(t, copied, "a/b/file", append([]byte("content"), strings.Repeat("\x00", 1<<20-7)...))
	for name, mode := range map[string]os.FileMode{"a": 0o700, "a/b/file": 0o640} {
		if info, err := os.Stat(filepath.Join(w.content(copied), name)); err != nil || info.Mode().Perm() != mode || !info.ModTime().Equal(old) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if link, err := os.Readlink(filepath.Join(w.content(copied), "out")); link != "/etc" {
		t.Errorf("the link: %q, %v", link, err)
	}
	if got, err := w.Find(ctx, w.alice, "copy3"); err != nil || got.Status != backendai.FolderReady || got.UsedBytes != 1<<20 {
		t.Errorf("%+v, %v", got.VFolder, err)
	}
}

// TestCloneQuota: a copy comes when it fits, and leaves no trace when it does not.
func TestCloneQuota(t *testing.T) {
	w := newWorld(t, func(o *vfolder.Options) { o.FolderQuota, o.UserQuota = 100, 150 })
	w.run(t)
	v, err := w.Create(t.Context(), w.alice, vfolder.CreateRequest{Name: "data", Cloneable: true})
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, v, "file", strings.Repeat("x", 60))
	copied, task, err := w.clone(t, "data", "copy")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.FollowTask(t.Context(), w.alice, task, func(vfolder.TaskState) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Find(t.Context(), w.alice, "copy"); err != nil || got.UsedBytes != 60 || got.UsedFiles != 1 {
		t.Errorf("%d bytes in %d files are used, %v", got.UsedBytes, got.UsedFiles, err)
	}
	w.has(t, copied, "file", []byte(strings.Repeat("x", 60)))
	_, _, err = w.clone(t, "data", "third")
	wantCode(t, "a copy that is too much", err, backendai.CodeQuota)
	_, err = w.Find(t.Context(), w.alice, "third")
	wantCode(t, "what was not copied", err, backendai.CodeNotFound)
}
