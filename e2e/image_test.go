//go:build integration

package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// content is the file system of a small image: folders end in a slash, links
// begin with "-> ".
type content map[string]string

// image writes an image as "docker save" would and gives the file.
func (c content) image(t testing.TB, ref, architecture string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for path, body := range c {
		header := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(body, "-> "); ok {
			header.Typeflag, header.Linkname, header.Size, body = tar.TypeSymlink, target, 0, ""
		} else if strings.HasSuffix(path, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: architecture, OS: "linux", Config: v1.Config{Env: []string{"PATH=/usr/bin:/bin"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(t, image)},
	})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	return file
}

func diffIDs(t testing.TB, image v1.Image) []v1.Hash {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}

// busybox is the contents of an image that has BusyBox, and so ash, but nothing else.
func busybox(t testing.TB) content {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the package busybox-static is needed: %v", err)
	}
	list, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := content{"bin/busybox": string(program), "tmp/": "", "etc/": ""}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			c["bin/"+applet] = "-> busybox"
		}
	}
	return c
}

// shellless is the contents of an image with one static program that is no shell.
func shellless(t testing.TB) content {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"hello\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "hello"), source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	return content{"hello": string(program)}
}

// load imports an image, which goes with the test. No session may use it then.
func (p *platform) load(t testing.TB, c content, ref string) {
	t.Helper()
	p.admin.must(t, "image", "import", c.image(t, ref, "amd64"))
	t.Cleanup(func() {
		cmd := exec.Command(program, "image", "rm", ref)
		cmd.Env = p.admin.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("remove image %s: %v: %s", ref, err, out)
		}
	})
}
