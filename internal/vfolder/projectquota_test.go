//go:build integration && projectquota && linux

package vfolder_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/vfolder"
)

// These tests need a kernel that enforces project quotas: make vm has one.

const quota = 1 << 20 // of each folder of the tests

// disk is a file system in a file.
type disk struct {
	kind, image, dir string
}

// onDisks runs a test on each of the file systems that enforce project quotas.
func onDisks(t *testing.T, test func(t *testing.T, d disk)) {
	for kind, format := range map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"},
		"xfs":  {"mkfs.xfs", "-q"},
	} {
		t.Run(kind, func(t *testing.T) {
			base := t.TempDir()
			if err := os.Chmod(filepath.Dir(base), 0o755); err != nil { // for the user of sessions
				t.Fatal(err)
			}
			d := disk{kind: kind, image: filepath.Join(base, "image"), dir: filepath.Join(base, "disk")}
			if err := errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, 512<<20), os.Mkdir(d.dir, 0o755)); err != nil {
				t.Fatal(err)
			}
			command(t, append(format, d.image)...)
			test(t, d)
		})
	}
}

func command(t *testing.T, words ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}

func (d disk) mount(t *testing.T, options string) (unmount func()) {
	t.Helper()
	command(t, "mount", "-t", d.kind, "-o", options, d.image, d.dir)
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if err := unix.Unmount(d.dir, 0); err != nil { // busy, if anything is left open
			t.Error(err)
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// world is a service with its folders on the disk.
func (d disk) world(t *testing.T, edit ...func(*vfolder.Options)) *world {
	t.Helper()
	dir := filepath.Join(d.dir, "folders")
	w := newWorld(t, append([]func(*vfolder.Options){func(o *vfolder.Options) { o.Hosts, o.FolderQuota = map[string]string{host: dir}, quota }}, edit...)...)
	w.dir = dir
	return w
}

// inSession does something as a process of a session would: as its user, who has
// no rights.
func inSession(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 1000, 1000, 1000); errno != 0 {
			done <- errno
			return
		}
		done <- do()
	}()
	return <-done
}

// fill writes a file in a session, the last byte by itself.
func (w *world) fill(v vfolder.View, name string, bytes int) error {
	return inSession(func() error {
		f, err := os.Create(filepath.Join(w.content(v), name))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(noise(bytes - 1)); err != nil {
			return fmt.Errorf("before the last byte: %w", err)
		}
		_, err = f.Write([]byte{1})
		return err
	})
}

// over tells whether an error is that of a quota: XFS calls it a full disk.
func over(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) }

// refused tells whether a session cannot write one byte more.
func (w *world) refused(t *testing.T, v vfolder.View) {
	t.Helper()
	if err := w.fill(v, "more", 1); !over(err) {
		t.Errorf("one byte more: %v", err)
	}
	w.drop(t, v, "more")
}

func (w *world) drop(t *testing.T, v vfolder.View, name string) {
	t.Helper()
	if err := inSession(func() error { return os.RemoveAll(filepath.Join(w.content(v), name)) }); err != nil {
		t.Error(err)
	}
}

// project is the number of a folder's project, all of which must have it.
func (w *world) project(t *testing.T, v vfolder.View) uint32 {
	t.Helper()
	id, whole, err := vfolder.FolderProject(filepath.Dir(w.content(v)))
	if err != nil || id == 0 || !whole {
		t.Errorf("the folder's project is %d, whole: %t, %v", id, whole, err)
	}
	return id
}

func (w *world) free(t *testing.T, id uint32) bool {
	t.Helper()
	dir, err := os.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	free, err := vfolder.ProjectFree(dir, id)
	if err != nil {
		t.Error(err)
	}
	return free
}

// TestProjectsHoldSessions: the byte that is too much is refused to a session,
// and the folder's life goes on as without project quotas.
func TestProjectsHoldSessions(t *testing.T) {
	onDisks(t, func(t *testing.T, d disk) {
		unmount := d.mount(t, "loop,prjquota")
		w := d.world(t)
		v := w.create(t, w.alice, "data")
		if err := w.fill(v, "all", quota); err != nil {
			t.Errorf("all that fits: %v", err)
		}
		w.refused(t, v)
		var st unix.Statfs_t
		if err := unix.Statfs(w.content(v), &st); err != nil || int64(st.Blocks)*st.Bsize > quota+3*st.Bsize || st.Bavail > 3 {
			t.Errorf("a session sees %d blocks of %d bytes, of which %d are left, %v", st.Blocks, st.Bsize, st.Bavail, err)
		}
		_, err := w.RequestUpload(t.Context(), w.alice, "data", vfolder.UploadRequest{Path: "x", Size: 1})
		wantCode(t, "an upload of one byte more", err, backendai.CodeQuota)

		super := w.alice
		super.User.Role = backendai.RoleSuperadmin
		more := int64(2 * quota)
		if err := w.Update(t.Context(), super, "data", vfolder.Update{MaxSize: &more}); err != nil {
			t.Fatal(err)
		}
		if err := w.fill(v, "second", quota); err != nil {
			t.Errorf("all that fits with a quota of twice as much: %v", err)
		}
		w.refused(t, v)
		w.drop(t, v, "second")
		w.drop(t, v, "all")

		id := w.project(t, v)
		other := w.create(t, w.alice, "other")
		if got := w.project(t, other); got == id {
			t.Errorf("two folders have the project %d", id)
		}
		if err := w.Trash(t.Context(), w.alice, "data"); err != nil {
			t.Fatal(err)
		}
		if err := w.Restore(t.Context(), w.alice, "data"); err != nil {
			t.Fatal(err)
		}
		if err := w.fill(v, "all", 2*quota); err != nil {
			t.Errorf("all that fits, after the trash: %v", err)
		}
		w.refused(t, v)
		if err := w.Trash(t.Context(), w.alice, "data"); err != nil {
			t.Fatal(err)
		}
		if err := w.Purge(t.Context(), w.alice, v.ID); err != nil {
			t.Fatal(err)
		}
		if w.free(t, id) {
			t.Error("the project of a folder that was not deleted yet is free")
		}
		if err := w.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		unmount() // XFS has forgotten all files then
		d.mount(t, "loop,prjquota")
		if !w.free(t, id) {
			t.Error("a purged folder's project still has files or a limit")
		}
		if err := w.fill(other, "all", quota); err != nil {
			t.Errorf("all that fits in the other: %v", err)
		}
		w.refused(t, other)
	})
}

// TestTransfersInProjects: uploads, streams, moves and copies come to their places.
func TestTransfersInProjects(t *testing.T) {
	onDisks(t, func(t *testing.T, d disk) {
		d.mount(t, "loop,prjquota")
		w := d.world(t)
		w.run(t)
		ctx := t.Context()
		v, err := w.Create(ctx, w.alice, vfolder.CreateRequest{Name: "data", Cloneable: true})
		if err != nil {
			t.Fatal(err)
		}
		uploads, files := w.serve(t), w.serveFiles(t)
		content := noise(quota / 2)
		send := func() *http.Response {
			u := w.request(t, w.alice, "data", vfolder.UploadRequest{Path: "sub/file", Size: quota / 2})
			return tus(t, "PATCH", uploads+"?token="+u.Token, bytes.NewReader(content), "Upload-Offset", "0")
		}
		wantStatus(t, "an upload", send(), http.StatusNoContent)
		token, err := w.RequestFill(ctx, w.alice, "data", "into")
		if err != nil {
			t.Fatal(err)
		}
		resp, text := get(t, "POST", files+"/fill?token="+token, bytes.NewReader(stream(t, &tar.Header{Name: "a/b", Size: 1 << 10},
			&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "a"}, &tar.Header{Name: "a/c", Size: 1 << 10})))
		if resp.StatusCode != http.StatusOK {
			t.Errorf("a stream: %s %s", resp.Status, text)
		}
		if err := errors.Join(w.Move(ctx, w.alice, "data", "into/a", "sub/a"), w.RenameFile(ctx, w.alice, "data", "into/link", "name")); err != nil {
			t.Error(err)
		}
		w.has(t, v, "sub/file", content)
		if err := inSession(func() error {
			at := func(name string) string { return filepath.Join(w.content(v), name) }
			return errors.Join(os.Mkdir(at("mine"), 0o755), os.WriteFile(at("mine/new"), nil, 0o644), os.Rename(at("mine/new"), at("new")), os.Rename(at("into"), at("mine/into")))
		}); err != nil {
			t.Errorf("moves in a session: %v", err)
		}

		copied, task, err := w.clone(t, "data", "copy")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.FollowTask(ctx, w.alice, task, func(vfolder.TaskState) error { return nil }); err != nil {
			t.Fatal(err)
		}
		w.has(t, copied, "sub/file", content)
		if w.project(t, copied) == w.project(t, v) {
			t.Error("a copy has the project of its original")
		}
		for _, one := range []vfolder.View{v, copied} {
			if err := w.fill(one, "rest", quota/2); !over(err) { // there are directories and small files besides
				t.Errorf("more than fits beside what was uploaded or copied: %v", err)
			}
		}
		if d.kind == "ext4" { // XFS counts what is uploaded beside what it will replace
			wantStatus(t, "an upload instead of a file when there is no room for both", send(), http.StatusNoContent)
		}
		if left := w.staged(t, v); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
}

// TestOldFoldersBecomeProjects: folders from before the file system had project quotas come to
// be projects when no session has them mounted.
func TestOldFoldersBecomeProjects(t *testing.T) {
	onDisks(t, func(t *testing.T, d disk) {
		unmount := d.mount(t, "loop")
		before := d.world(t, func(o *vfolder.Options) { o.FolderQuota = 0 })
		v := before.create(t, before.alice, "data")
		if err := before.fill(v, "big", 2*quota); err != nil {
			t.Fatalf("without project quotas: %v", err)
		}
		before.write(t, v, "a/b/c/file", "content")
		if err := os.Symlink("big", filepath.Join(before.content(v), "link")); err != nil {
			t.Fatal(err)
		}
		late := vfolder.UploadRequest{Path: "a/late", Size: 10, Resume: "1"}
		u := before.request(t, before.alice, "data", late)
		command(t, "chown", "-R", "1000:1000", before.content(v))
		unmount()

		d.mount(t, "loop,prjquota")
		w := d.world(t, func(o *vfolder.Options) { o.Store = before.store })
		w.store = before.store
		w.store.mount(v.ID, "a session")
		if err := w.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if id, _, err := vfolder.FolderProject(filepath.Dir(w.content(v))); id != 0 || err != nil {
			t.Errorf("a mounted folder has the project %d, %v", id, err)
		}
		w.store.mount(v.ID)
		if err := w.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		w.project(t, v)
		w.refused(t, v)
		if err := inSession(func() error {
			at := func(name string) string { return filepath.Join(w.content(v), name) }
			return errors.Join(os.Rename(at("big"), at("a/b/big")), os.Rename(at("a/b/c"), at("c")), os.Remove(at("link")), os.Remove(at("a/b/big")))
		}); err != nil {
			t.Errorf("moves in a session: %v", err)
		}
		again := w.request(t, w.alice, "data", late)
		if again.ID != u.ID {
			t.Errorf("the upload from before is %s now, not %s", again.ID, u.ID)
		}
		wantStatus(t, "an upload from before", tus(t, "PATCH", w.serve(t)+"?token="+again.Token, strings.NewReader("1234567890"), "Upload-Offset", "0"), http.StatusNoContent)
		w.has(t, v, "a/late", []byte("1234567890"))
		if err := w.fill(v, "some", quota/2); err != nil {
			t.Errorf("what fits again: %v", err)
		}
		if err := w.fill(v, "others", quota/2); !over(err) { // the directories and the small file are there too
			t.Errorf("more than fits: %v", err)
		}
	})
}

// TestForeignProjects: whoever has put a storage host or a folder into a project
// is left alone.
func TestForeignProjects(t *testing.T) {
	onDisks(t, func(t *testing.T, d disk) {
		d.mount(t, "loop,prjquota")
		dir := filepath.Join(d.dir, "folders")
		if err := errors.Join(os.Mkdir(dir, 0o755), vfolder.Join(dir, 7)); err != nil {
			t.Fatal(err)
		}
		w := d.world(t)
		v := w.create(t, w.alice, "data")
		if id, whole, err := vfolder.FolderProject(filepath.Dir(w.content(v))); id != 0 || !whole || err != nil {
			t.Errorf("a folder in somebody else's project has the project %d, whole: %t, %v", id, whole, err)
		}
		if err := w.fill(v, "big", 2*quota); err != nil {
			t.Errorf("a folder in somebody else's project: %v", err)
		}
	})
}

// TestProjectsHoldUsers: sessions cannot bring all folders of a user together to
// more than the user's quota, and each gets what the others leave.
func TestProjectsHoldUsers(t *testing.T) {
	onDisks(t, func(t *testing.T, d disk) {
		d.mount(t, "loop,prjquota")
		w := d.world(t, func(o *vfolder.Options) { o.FolderQuota, o.UserQuota = 0, 4*quota })
		w.run(t)
		a, b := w.create(t, w.alice, "a"), w.create(t, w.alice, "b")
		mount := func(v vfolder.View) {
			w.store.mount(v.ID, "a session")
			if _, err := w.Attach(t.Context(), []backendai.Mount{{FolderID: v.ID, Source: v.Name, Target: "/home/work/" + v.Name, Permission: "rw"}}); err != nil {
				t.Fatal(err)
			}
		}
		mount(a)
		if err := w.fill(a, "first", 3*quota); err != nil {
			t.Errorf("what fits into the only folder: %v", err)
		}
		mount(b)
		if err := w.fill(b, "half", quota/2); err != nil {
			t.Errorf("half of what is left: %v", err)
		}
		if err := w.fill(b, "too much", quota/2); !over(err) { // a may have the other half
			t.Errorf("all that is left beside another folder: %v", err)
		}
		w.drop(t, b, "too much")
		w.store.mount(b.ID)
		for err := error(unix.EDQUOT); err != nil; { // until it is dealt again
			if err = w.fill(a, "rest", quota/2); err != nil {
				w.drop(t, a, "rest")
			}
			if t.Context().Err() != nil || err != nil && !over(err) {
				t.Fatalf("what the other folder leaves: %v", err)
			}
		}
		w.refused(t, a)
		mount(b)
		w.refused(t, b)
		w.drop(t, a, "first")
		mount(b)
		if err := w.fill(b, "more", 3*quota/2); err != nil {
			t.Errorf("half of what is free again: %v", err)
		}
	})
}
