//go:build integration

package image_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/image"
)

// capability is a file capability (version 2) of cap_net_raw.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// What a session sees of an image must be what its layers say.
func TestUnpackedImage(t *testing.T) {
	dir := func(name string, mode int64) entry { return entry{name: name, kind: tar.TypeDir, mode: mode} }
	data := dockerArchive(t, map[string]v1.Image{"app:1": imageOf(t,
		archiveOf(t,
			dir("keep/", 0o755), entry{name: "keep/gone", body: "1"}, entry{name: "keep/stays", body: "2"},
			dir("opaque/", 0o750), entry{name: "opaque/old", body: "3"},
			entry{name: "replaced", body: "4"}, dir("becomes-file/", 0o755), entry{name: "becomes-file/x", body: "5"},
			entry{name: "bin/su", body: "su", mode: 0o4755, uid: 0}, entry{name: "owned", body: "6", uid: 1000, gid: 1001, mode: 0o640},
			entry{name: "hard", body: "7"}, entry{name: "link", kind: tar.TypeLink, link: "hard"},
			dir("sticky/", 0o1777),
			entry{name: "cap", body: "8", pax: map[string]string{
				"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "n",
			}},
		),
		archiveOf(t,
			entry{name: "keep/.wh.gone"}, entry{name: "opaque/.wh..wh..opq"}, entry{name: "opaque/new", body: "9"},
			entry{name: "replaced", body: "10"}, entry{name: "becomes-file", body: "11"},
		),
	)})
	s := open(t)
	got, err := s.Import(t.Context(), bytes.NewReader(data), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := s.Layers(t.Context(), got[0].Digest, "session")
	if err != nil {
		t.Fatal(err)
	}
	root := mount(t, folders)
	var tree []string
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != root {
			tree = append(tree, strings.TrimPrefix(p, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"becomes-file", "bin", "bin/su", "cap", "hard", "keep", "keep/stays", "link", "opaque", "opaque/new", "owned", "replaced", "sticky",
	}
	if diff := cmp.Diff(want, tree); diff != "" {
		t.Error(diff)
	}
	for name, check := range map[string]func(st *syscall.Stat_t) bool{
		"bin/su": func(st *syscall.Stat_t) bool { return st.Mode&0o7777 == 0o4755 && st.Uid == 0 },
		"owned":  func(st *syscall.Stat_t) bool { return st.Mode&0o7777 == 0o640 && st.Uid == 1000 && st.Gid == 1001 },
		"hard":   func(st *syscall.Stat_t) bool { return st.Nlink == 2 },
		"sticky": func(st *syscall.Stat_t) bool { return st.Mode&0o7777 == 0o1777 },
		"opaque": func(st *syscall.Stat_t) bool { return st.Mode&0o7777 == 0o750 },
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(root, name), &st); err != nil || !check(&st) {
			t.Errorf("%s: mode %o, owner %d:%d, %d links, %v", name, st.Mode, st.Uid, st.Gid, st.Nlink, err)
		}
	}
	for attribute, want := range map[string]string{"security.capability": capability, "user.note": "n"} {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(root, "cap"), attribute, value)
		if err != nil || string(value[:max(n, 0)]) != want {
			t.Errorf("attribute %s = %q, %v", attribute, value[:max(n, 0)], err)
		}
	}
}

// A disk that fills up while unpacking, or that is too small for the download.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	root := filepath.Join(disk, "store")
	s := open(t, func(o *image.Options) { o.Root = root })
	t.Cleanup(func() { _ = s.Close() })
	h := newHub(t)
	zeros := h.push(t, "zeros:1", imageOf(t, archiveOf(t, entry{name: "zeros", body: string(make([]byte, 32<<20))})))
	_, err := s.Pull(t.Context(), zeros, nil)
	wantError(t, err, backendai.CodeUnavailable, "no space left", root)
	nothingLeft(t, root)

	noise := make([]byte, 16<<20)
	x := uint32(1)
	for i := range noise { // xorshift: it must not compress
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		noise[i] = byte(x)
	}
	large := h.push(t, "large:1", imageOf(t, archiveOf(t, entry{name: "noise", body: string(noise)})))
	_, err = s.Pull(t.Context(), large, nil)
	wantError(t, err, backendai.CodeUnavailable, "no space left", root)
	nothingLeft(t, root)

	small := h.push(t, "small:1", imageOf(t, archiveOf(t, entry{name: "a", body: "a"})))
	if _, err := s.Pull(t.Context(), small, nil); err != nil {
		t.Errorf("after a full disk the store does not work: %v", err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || !slices.ContainsFunc(list, func(i backendai.Image) bool { return i.Ref == small }) {
		t.Errorf("List: %+v, %v", list, err)
	}
}
