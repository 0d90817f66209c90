package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"backendai"
	"backendai/internal/image"
)

// layoutArchive is a tar of an OCI layout folder with one image.
func layoutArchive(t *testing.T, img v1.Image, prefix string, annotations map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, emptyIndex())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(img, layout.WithAnnotations(annotations)); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if err := w.WriteHeader(&tar.Header{Name: prefix + rel, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func dockerArchive(t *testing.T, images map[string]v1.Image) []byte {
	t.Helper()
	refs := map[name.Reference]v1.Image{}
	for ref, img := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		refs[tag] = img
	}
	var buf bytes.Buffer
	if err := tarball.MultiRefWrite(refs, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func TestImport(t *testing.T) {
	img := imageOf(t, archiveOf(t, entry{name: "a", body: "a"}), archiveOf(t, entry{name: "b", body: "b"}))
	named := map[string]string{"org.opencontainers.image.ref.name": "example.org/team/app:2"}
	for what, c := range map[string]struct {
		archive    []byte
		name, want string
	}{
		"OCI archive":              {layoutArchive(t, img, "", named), "", "example.org/team/app:2"},
		"layout folder":            {layoutArchive(t, img, "./", named), "", "example.org/team/app:2"},
		"layout without a name":    {layoutArchive(t, img, "", nil), "mine:1", "docker.io/library/mine:1"},
		"layout with a tag":        {layoutArchive(t, img, "", map[string]string{"org.opencontainers.image.ref.name": "latest"}), "mine:1", "docker.io/library/mine:1"},
		"layout, other name":       {layoutArchive(t, img, "", named), "localhost/mine:1", "localhost/mine:1"},
		"docker save":              {dockerArchive(t, map[string]v1.Image{"app:2": img}), "", "docker.io/library/app:2"},
		"docker save, other name":  {dockerArchive(t, map[string]v1.Image{"app:2": img}), "x.org/y:z", "x.org/y:z"},
		"docker save in gzip":      {gzipped(t, dockerArchive(t, map[string]v1.Image{"app:2": img})), "", "docker.io/library/app:2"},
		"OCI archive in Zstandard": {zstandard(t, layoutArchive(t, img, "", named)), "", "example.org/team/app:2"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			var last backendai.PullProgress
			got, err := s.Import(t.Context(), bytes.NewReader(c.archive), c.name, func(p backendai.PullProgress) { last = p })
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].Ref != c.want || last.Stage != "done" {
				t.Fatalf("Import gave %+v, last progress %+v", got, last)
			}
			folders, err := s.Layers(t.Context(), got[0].Digest, "session")
			if err != nil || len(folders) != 2 || read(t, folders, "a")+read(t, folders, "b") != "ab" {
				t.Errorf("Layers: %q, %v", folders, err)
			}
		})
	}
}

func TestImportSeveral(t *testing.T) {
	one, two := imageOf(t, archiveOf(t, entry{name: "a", body: "1"})), imageOf(t, archiveOf(t, entry{name: "a", body: "2"}))
	data := dockerArchive(t, map[string]v1.Image{"one:1": one, "two:1": two})
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	_, err := s.Import(t.Context(), bytes.NewReader(data), "both:1", nil)
	wantError(t, err, backendai.CodeInvalidParams, "2 images", "without a name")
	nothingLeft(t, root)
	if got, err := s.Import(t.Context(), bytes.NewReader(data), "", nil); err != nil || len(got) != 2 {
		t.Errorf("Import: %+v, %v", got, err)
	}
}

// rewrite changes the blobs of an archive.
func rewrite(t *testing.T, data []byte, change func(name string, body []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(data)), tar.NewWriter(&out)
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if body = change(hdr.Name, body); body == nil {
			continue
		}
		hdr.Size = int64(len(body))
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileArchives(t *testing.T) {
	layer := archiveOf(t, entry{name: "a", body: strings.Repeat("abc", 1000)})
	good := imageOf(t, layer)
	docker := func(layers ...[]byte) []byte {
		return dockerArchive(t, map[string]v1.Image{"bad:1": imageOf(t, layers...)})
	}
	entries := func(e ...entry) []byte { return docker(archiveOf(t, e...)) }
	many := make([][]byte, 128)
	for i := range many {
		many[i] = archiveOf(t, entry{name: fmt.Sprint(i)})
	}
	ref := map[string]string{"org.opencontainers.image.ref.name": "example.org/bad:1"}
	oci := layoutArchive(t, good, "", ref)
	for what, c := range map[string]struct {
		archive []byte
		fault   string
	}{
		"nothing":            {nil, "cannot be imported"},
		"not an archive":     {[]byte(strings.Repeat("hello", 1000)), "cannot be imported"},
		"broken gzip":        {gzipped(t, oci)[:200], "cannot be imported"},
		"cut short":          {oci[:len(oci)/2], "cannot be imported"},
		"another tar":        {archiveOf(t, entry{name: "x", body: "y"}), "cannot be imported"},
		"no name":            {layoutArchive(t, good, "", nil), "does not name its image"},
		"bad name":           {layoutArchive(t, good, "", map[string]string{"org.opencontainers.image.ref.name": "A B/:"}), "not the name"},
		"too many layers":    {docker(many...), "128 layers"},
		"name with ..":       {entries(entry{name: "../../evil", body: "x"}), "leads out"},
		"inner ..":           {entries(entry{name: "a/../../evil", body: "x"}), "leads out"},
		"hard link out":      {entries(entry{name: "a", kind: tar.TypeLink, link: "../../etc/passwd"}), "leads out"},
		"hard link to none":  {entries(entry{name: "a", kind: tar.TypeLink, link: "etc/passwd"}), "cannot be imported"},
		"whiteout of ..":     {entries(entry{name: "d/", kind: tar.TypeDir}, entry{name: "d/.wh..."}), "cannot be imported"},
		"bomb":               {docker(archiveOf(t, entry{name: "zero", body: string(make([]byte, 5<<20))})), "more than the limit"},
		"bomb in two layers": {docker(archiveOf(t, entry{name: "a", body: string(make([]byte, 3<<20))}), archiveOf(t, entry{name: "b", body: string(make([]byte, 3<<20))})), "more than the limit"},
		"bomb around":        {gzipped(t, make([]byte, 64<<20)), "cannot be imported"},
		"blob changed": {rewrite(t, oci, func(name string, body []byte) []byte {
			if strings.HasPrefix(name, "blobs/") && bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
				return gzipped(t, []byte("something else"))
			}
			return body
		}), "lacks a part"},
		"blob missing": {rewrite(t, oci, func(name string, body []byte) []byte {
			if bytes.Contains(body, []byte(`"rootfs"`)) {
				return nil
			}
			return body
		}), "lacks a part"},
		"index not JSON": {rewrite(t, oci, func(name string, body []byte) []byte {
			if name == "index.json" {
				return []byte("{{{{")
			}
			return body
		}), "cannot be imported"},
		"index of another type": {rewrite(t, oci, func(name string, body []byte) []byte {
			if name == "index.json" {
				return bytes.ReplaceAll(body, []byte("distribution.manifest.v2+json"), []byte("artifact+json"))
			}
			return body
		}), "cannot be imported"},
		"digest with a path": {rewrite(t, oci, func(name string, body []byte) []byte {
			if name == "index.json" {
				return bytes.ReplaceAll(body, []byte(`"sha256:`), []byte(`"sha256:../../`))
			}
			return body
		}), "lacks a part"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			root := filepath.Join(outside, "deep", "store")
			s := open(t, func(o *image.Options) { o.Root, o.MaxUnpacked = root, 4<<20 })
			got, err := s.Import(t.Context(), bytes.NewReader(c.archive), "", nil)
			wantError(t, err, backendai.CodeInvalidParams, c.fault)
			if len(got) != 0 {
				t.Errorf("it gave %+v", got)
			}
			if list, _ := s.List(t.Context()); len(list) != 0 {
				t.Errorf("the list has %+v", list)
			}
			nothingLeft(t, root)
			if entries, _ := os.ReadDir(outside); len(entries) != 1 {
				t.Errorf("something was written outside: %v", entries)
			}
		})
	}
}

// What an image may hold but a session must not get, or only inside the image.
func TestTamedContent(t *testing.T) {
	outside := t.TempDir()
	data := dockerArchive(t, map[string]v1.Image{"odd:1": imageOf(t, archiveOf(t,
		entry{name: "dev/", kind: tar.TypeDir},
		entry{name: "dev/null", kind: tar.TypeChar},
		entry{name: "dev/sda", kind: tar.TypeBlock},
		entry{name: "out", kind: tar.TypeSymlink, link: outside},
		entry{name: "out/evil", body: "evil"},
		entry{name: "up", kind: tar.TypeSymlink, link: "../../../../../../../.." + outside},
		entry{name: "up/evil", body: "evil"},
		entry{name: "/abs", body: "abs"},
		entry{name: "/../../clamped", body: "in"},
		entry{name: "xattr", body: "x", pax: map[string]string{
			"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.security.selinux": "x",
		}},
	))})
	s := open(t)
	got, err := s.Import(t.Context(), bytes.NewReader(data), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := s.Layers(t.Context(), got[0].Digest, "session")
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("a symbolic link led out: %v", entries)
	}
	if read(t, folders, "abs") != "abs" || read(t, folders, "clamped") != "in" || read(t, folders, "xattr") != "x" {
		t.Error("a plain file is not there")
	}
	for _, device := range []string{"dev/null", "dev/sda"} {
		if fi, err := os.Lstat(filepath.Join(folders[0], device)); err == nil {
			t.Errorf("device %s was made: %v", device, fi.Mode())
		}
	}
}
