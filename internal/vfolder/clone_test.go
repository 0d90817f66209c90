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
	var copied vfolder.View
	var task string
	for { // Run may not have begun
		copied, task, err = w.Clone(ctx, w.alice, "data", vfolder.CloneRequest{Name: "copy3"})
		if backendai.CodeOf(err) != backendai.CodeUnavailable {
			break
		}
		if err := errors.Join(w.Trash(ctx, w.alice, "copy3"), w.Purge(ctx, w.alice, "copy3")); err != nil {
			t.Fatal(err)
		}
	}
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
