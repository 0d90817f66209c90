//go:build linux

package vfolder_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

func TestCreate(t *testing.T) {
	w := newWorld(t)
	v := w.create(t, w.alice, "data")
	info, err := os.Stat(w.content(v))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("%v, %v", info, err)
	}
	owner := os.Geteuid()
	if owner == 0 {
		owner = 1000
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != owner {
		t.Errorf("the content belongs to %d, want %d", uid, owner)
	}
	if info, err := os.Stat(w.content(w.create(t, w.alice, ".ssh"))); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf(".ssh: %v, %v", info.Mode(), err)
	}
	for _, c := range []struct {
		req  vfolder.CreateRequest
		code backendai.Code
	}{
		{vfolder.CreateRequest{Name: "data"}, backendai.CodeVFolderExists},
		{vfolder.CreateRequest{Name: "a/b"}, backendai.CodeInvalidParams},
		{vfolder.CreateRequest{Name: "x", Host: "other"}, backendai.CodeInvalidParams},
		{vfolder.CreateRequest{Name: "x", MaxSize: -1}, backendai.CodeInvalidParams},
	} {
		_, err := w.Create(t.Context(), w.alice, c.req)
		wantCode(t, c.req.Name, err, c.code)
	}
	w.create(t, w.stranger, "data") // names are each user's own
}

func TestFolderCount(t *testing.T) {
	w := newWorld(t, func(o *vfolder.Options) { o.MaxFolders = 2 })
	w.create(t, w.alice, "one")
	w.create(t, w.alice, "two")
	_, err := w.Create(t.Context(), w.alice, vfolder.CreateRequest{Name: "three"})
	wantCode(t, "one too many", err, backendai.CodeQuota)
	w.create(t, w.stranger, "one")
}

func TestTrash(t *testing.T) {
	w := newWorld(t, func(o *vfolder.Options) { o.TrashTime = 24 * time.Hour })
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "file", "content")
	wantCode(t, "purge of a live folder", w.Purge(ctx, w.alice, "data"), backendai.CodeNotFound)
	if err := w.Trash(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "trash twice", w.Trash(ctx, w.alice, "data"), backendai.CodeNotFound)
	second := w.create(t, w.alice, "data") // the name is free
	wantCode(t, "restore to a taken name", w.Restore(ctx, w.alice, v.ID), backendai.CodeVFolderExists)
	if err := w.Rename(ctx, w.alice, second.ID, "other"); err != nil {
		t.Fatal(err)
	}
	if err := w.Restore(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(w.content(v), "file")); err != nil || string(text) != "content" {
		t.Errorf("%q, %v", text, err)
	}

	w.store.mount(v.ID, "mysession")
	if err := w.Trash(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "purge while mounted", w.Purge(ctx, w.alice, "data"), backendai.CodeVFolderFailed)
	wantCode(t, "erase while mounted", w.Erase(ctx, w.alice, "data"), backendai.CodeVFolderFailed)
	w.store.mount(v.ID)
	if err := w.Erase(ctx, w.alice, "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.content(v)); !os.IsNotExist(err) {
		t.Errorf("the files are still there: %v", err)
	}
	wantCode(t, "restore of what is erased", w.Restore(ctx, w.alice, v.ID), backendai.CodeNotFound)
	if err := w.Purge(ctx, w.alice, v.ID); err != nil {
		t.Fatal(err)
	}
	_, err := w.Find(ctx, w.alice, v.ID)
	wantCode(t, "a purged folder", err, backendai.CodeNotFound)

	if err := w.Trash(ctx, w.alice, "other"); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(25 * time.Hour)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Folder(ctx, second.ID); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("the trash is not emptied: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, ".removed")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.write(t, v, "a/one", "12345")
	w.write(t, v, "two", "123")
	if err := os.Link(filepath.Join(w.content(v), "two"), filepath.Join(w.content(v), "twice")); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"data", v.ID, v.Hex()} {
		got, err := w.Find(ctx, w.alice, ref)
		if err != nil || got.ID != v.ID || !got.Owner || got.UsedBytes != 8 || got.UsedFiles != 3 {
			t.Errorf("Find(%q) = %+v, %v", ref, got, err)
		}
		_, err = w.Find(ctx, w.stranger, ref)
		wantCode(t, "stranger", err, backendai.CodeNotFound)
	}
	for name, err := range map[string]error{
		"rename": w.Rename(ctx, w.stranger, v.ID, "mine"), "trash": w.Trash(ctx, w.stranger, v.ID),
		"update": w.Update(ctx, w.stranger, v.ID, vfolder.Update{}), "restore": w.Restore(ctx, w.stranger, v.ID),
		"purge": w.Purge(ctx, w.stranger, v.ID), "erase": w.Erase(ctx, w.stranger, v.ID),
	} {
		wantCode(t, "stranger: "+name, err, backendai.CodeNotFound)
	}
	if list, err := w.List(ctx, w.stranger, vfolder.ListQuery{All: true}); err != nil || len(list) != 0 {
		t.Errorf("the stranger lists %v, %v", list, err)
	}
	if list, err := w.List(ctx, w.admin, vfolder.ListQuery{All: true}); err != nil || len(list) != 1 || list[0].Owner {
		t.Errorf("the administrator lists %v, %v", list, err)
	}
	if list, err := w.List(ctx, w.alice, vfolder.ListQuery{}); err != nil || len(list) != 1 || list[0].UsedBytes != 8 {
		t.Errorf("the owner lists %v, %v", list, err)
	}
}

func TestMissingHost(t *testing.T) {
	w := newWorld(t)
	w.create(t, w.alice, "data")
	// The file system that holds the folders is not mounted any more.
	if err := os.Rename(w.dir, w.dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := w.Create(t.Context(), w.alice, vfolder.CreateRequest{Name: "more"})
	wantCode(t, "create", err, backendai.CodeUnavailable)
	_, err = w.Resolve(t.Context(), w.alice, []backendai.Mount{{Source: "data"}})
	wantCode(t, "resolve", err, backendai.CodeUnavailable)
}
