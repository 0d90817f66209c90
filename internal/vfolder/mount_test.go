//go:build linux

package vfolder_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/vfolder"
)

func TestResolve(t *testing.T) {
	w := newWorld(t)
	data := w.create(t, w.alice, "my.data-2")
	ssh := w.create(t, w.alice, ".ssh")
	brew := w.create(t, w.alice, ".linuxbrew")
	w.write(t, data, "a/b/file", "x")
	auto := []backendai.Mount{
		{Source: ".linuxbrew", FolderID: brew.ID, Target: "/home/linuxbrew/.linuxbrew", Permission: "wd", Auto: true},
		{Source: ".ssh", FolderID: ssh.ID, Target: "/home/work/.ssh", Permission: "wd", Auto: true},
	}
	for _, c := range []struct {
		asked []backendai.Mount
		want  []backendai.Mount // without the automatic ones
	}{
		{nil, nil},
		{
			[]backendai.Mount{{Source: "my.data-2"}},
			[]backendai.Mount{{Source: "my.data-2", FolderID: data.ID, Target: "/home/work/my.data-2", Permission: "wd"}},
		},
		{
			[]backendai.Mount{{Source: data.ID, Permission: "ro"}},
			[]backendai.Mount{{Source: data.ID, FolderID: data.ID, Target: "/home/work/my.data-2", Permission: "ro"}},
		},
		{
			[]backendai.Mount{{Source: data.Hex(), Target: "/data"}},
			[]backendai.Mount{{Source: data.Hex(), FolderID: data.ID, Target: "/data", Permission: "wd"}},
		},
		{
			[]backendai.Mount{{Source: "my.data-2/a/b", Target: "sub", Permission: "rw"}},
			[]backendai.Mount{{Source: "my.data-2/a/b", FolderID: data.ID, Subpath: "a/b", Target: "/home/work/sub", Permission: "rw"}},
		},
		{
			[]backendai.Mount{{Source: "my.data-2/a/b"}},
			[]backendai.Mount{{Source: "my.data-2/a/b", FolderID: data.ID, Subpath: "a/b", Target: "/home/work/b", Permission: "wd"}},
		},
	} {
		got, err := w.Resolve(t.Context(), w.alice, c.asked)
		if diff := cmp.Diff(append(c.want, auto...), got); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", c.asked, err, diff)
		}
	}
	for _, c := range []struct {
		asked []backendai.Mount
		code  backendai.Code
	}{
		{[]backendai.Mount{{Source: "nothing"}}, backendai.CodeNotFound},
		{[]backendai.Mount{{Source: "my.data-2/none"}}, backendai.CodeNotFound},
		{[]backendai.Mount{{Source: "my.data-2/../x"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2/a/b/file"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2", Target: "/etc/x"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2", Target: "/home/work"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2", Target: "x"}, {Source: ".ssh", Target: "x/y"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2"}, {Source: "my.data-2/a", Target: "x"}}, backendai.CodeInvalidParams},
		{[]backendai.Mount{{Source: "my.data-2", Permission: "rwx"}}, backendai.CodeInvalidParams},
	} {
		_, err := w.Resolve(t.Context(), w.alice, c.asked)
		wantCode(t, c.asked[0].Source+" "+c.asked[0].Target, err, c.code)
	}
	for _, source := range []string{"my.data-2", data.ID, data.Hex(), ".ssh", ssh.ID} {
		_, err := w.Resolve(t.Context(), w.stranger, []backendai.Mount{{Source: source}})
		wantCode(t, "stranger mounts "+source, err, backendai.CodeNotFound)
	}
	if got, err := w.Resolve(t.Context(), w.stranger, nil); err != nil || len(got) != 0 {
		t.Errorf("the stranger gets %v, %v", got, err)
	}
}

func TestAskedMountWinsOverAutomatic(t *testing.T) {
	w := newWorld(t)
	w.create(t, w.alice, ".ssh")
	data := w.create(t, w.alice, "data")
	got, err := w.Resolve(t.Context(), w.alice, []backendai.Mount{{Source: "data", Target: ".ssh"}})
	want := []backendai.Mount{{Source: "data", FolderID: data.ID, Target: "/home/work/.ssh", Permission: "wd"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	w := newWorld(t)
	v, err := w.Create(t.Context(), w.alice, vfolder.CreateRequest{Name: "data", Permission: backendai.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Resolve(t.Context(), w.alice, []backendai.Mount{{Source: "data", Permission: "rw"}})
	wantCode(t, "rw on a read-only folder", err, backendai.CodeForbidden)
	mounts, err := w.Resolve(t.Context(), w.alice, []backendai.Mount{{Source: "data"}})
	if err != nil || mounts[0].Permission != "ro" {
		t.Fatalf("%v, %v", mounts, err)
	}
	got, err := w.Attach(t.Context(), mounts)
	want := []engine.Mount{{Source: w.content(v), Target: "/home/work/data", ReadOnly: true}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if f, err := w.store.Folder(t.Context(), v.ID); err != nil || !f.LastUsed.Equal(w.clock) {
		t.Errorf("last used %v, %v", f.LastUsed, err)
	}
}

func TestAttachAfterChanges(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	data, dot := w.create(t, w.alice, "data"), w.create(t, w.alice, ".cache")
	w.write(t, data, "sub/x", "")
	mounts, err := w.Resolve(ctx, w.alice, []backendai.Mount{{Source: "data/sub"}})
	if err != nil {
		t.Fatal(err)
	}
	// What was a directory leads elsewhere when the session starts.
	sub := filepath.Join(w.content(data), "sub")
	if err := os.RemoveAll(sub); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", sub); err != nil {
		t.Fatal(err)
	}
	_, err = w.Attach(ctx, mounts)
	wantCode(t, "a link out of the folder", err, backendai.CodeInvalidParams)

	if err := w.Trash(ctx, w.alice, dot.ID); err != nil {
		t.Fatal(err)
	}
	mounts[0].Subpath = ""
	if got, err := w.Attach(ctx, mounts); err != nil || len(got) != 1 {
		t.Errorf("without the folder that mounted by itself: %v, %v", got, err)
	}
	if err := w.Trash(ctx, w.alice, data.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.Attach(ctx, mounts)
	wantCode(t, "a deleted folder", err, backendai.CodeNotFound)
}

func TestProjectFolders(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.Create(ctx, w.alice, vfolder.CreateRequest{Name: "ours", Group: "default"})
	wantCode(t, "a user makes a project's folder", err, backendai.CodeForbidden)
	_, err = w.Create(ctx, w.admin, vfolder.CreateRequest{Name: ".cache", Group: "default"})
	wantCode(t, "a project's dot folder", err, backendai.CodeInvalidParams)
	_, err = w.Create(ctx, w.admin, vfolder.CreateRequest{Name: "ours", Group: "theirs"})
	wantCode(t, "another project's folder", err, backendai.CodeNotFound)
	local, err := w.Create(ctx, w.admin, vfolder.CreateRequest{Name: ".local", Group: "default"})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := w.Resolve(ctx, w.alice, nil)
	want := []backendai.Mount{{Source: ".local", FolderID: local.ID, Subpath: "id-alice", Target: "/home/work/.local", Permission: "wd", Auto: true}}
	if diff := cmp.Diff(want, mounts); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := w.Attach(ctx, mounts); err != nil {
		t.Error(err)
	}
	// Nobody reaches the part of another member.
	_, err = w.Resolve(ctx, w.stranger, []backendai.Mount{{Source: ".local/id-alice"}})
	wantCode(t, "another member's part", err, backendai.CodeNotFound)
	elsewhere := w.stranger
	elsewhere.User.Group = "other"
	if mounts, err := w.Resolve(ctx, elsewhere, nil); err != nil || len(mounts) != 0 {
		t.Errorf("a user of another project gets %v, %v", mounts, err)
	}
}
