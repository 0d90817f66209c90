package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"backendai"
	"backendai/internal/image"
)

// aliasStore is an image.AliasStore in memory.
type aliasStore struct {
	mu  sync.Mutex
	all map[string]string
}

func (a *aliasStore) Aliases(context.Context) (map[string]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.all), nil
}

func (a *aliasStore) SetAlias(_ context.Context, alias, target string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string]string{}
	}
	a.all[alias] = target
	return nil
}

func (a *aliasStore) DeleteAlias(_ context.Context, alias string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.all[alias]; !ok {
		return backendai.NotFound("alias", alias)
	}
	delete(a.all, alias)
	return nil
}

// open opens a store in a new folder.
func open(t testing.TB, change ...func(*image.Options)) *image.Store {
	t.Helper()
	opts := image.Options{
		Root: t.TempDir(), Aliases: &aliasStore{}, PlainHTTP: func(string) bool { return true },
		Recipes: fstest.MapFS{"python.toml": {Data: []byte("name = \"python\"\n")}},
	}
	for _, c := range change {
		c(&opts)
	}
	return reopen(t, opts)
}

func reopen(t testing.TB, opts image.Options) *image.Store {
	t.Helper()
	s, err := image.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// entry is one file of a layer.
type entry struct {
	name, body, link string
	kind             byte
	mode             int64
	uid, gid         int
	pax              map[string]string
}

// archiveOf makes a layer. Entries belong to the user who runs the test, so
// that unpacking needs no right, unless they say otherwise.
func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := &tar.Header{
			Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.body)),
			Uid: e.uid, Gid: e.gid, PAXRecords: e.pax, Devmajor: 1, Devminor: 3,
		}
		if hdr.Typeflag == 0 {
			hdr.Typeflag = tar.TypeReg
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o755
		}
		if hdr.Uid == 0 {
			hdr.Uid, hdr.Gid = os.Getuid(), os.Getgid()
		}
		if hdr.Typeflag == tar.TypeXHeader || hdr.Typeflag != tar.TypeBlock && hdr.Typeflag != tar.TypeChar {
			hdr.Devmajor, hdr.Devminor = 0, 0
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func layerOf(t testing.TB, data []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// imageOf makes an image for this machine of one layer an archive.
func imageOf(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env: []string{"A=b"}, WorkingDir: "/srv", Labels: map[string]string{"ai.backend.service-ports": "web:http:8080"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if img, err = mutate.AppendLayers(img, layerOf(t, l)); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// hub is a registry in this process.
type hub struct {
	host string
	mu   sync.Mutex
	gets map[string]int // blob downloads by path
	// before, if not nil, may answer a request instead of the registry.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{gets: map[string]int{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.gets[r.URL.Path]++
		}
		before := h.before
		h.mu.Unlock()
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	h.host = strings.TrimPrefix(srv.URL, "http://")
	return h
}

func (h *hub) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

// push puts an image into the registry and gives its reference.
func (h *hub) push(t testing.TB, repository string, img remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(h.host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, img)
	case v1.Image:
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h.host + "/" + repository
}

func (h *hub) downloads() (most, all int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.gets {
		most, all = max(most, n), all+n
	}
	return most, all
}

// nothingLeft fails the test when the store holds blobs or layers.
func nothingLeft(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"content/blobs", "content/ingest", "snapshots/snapshots"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err == nil && (!d.IsDir() || filepath.Base(filepath.Dir(p)) == "snapshots") && p != filepath.Join(root, "snapshots/snapshots") {
				t.Errorf("%s was left behind", p)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// wantError checks an error's code and that its title and hint have the texts.
func wantError(t *testing.T, err error, code backendai.Code, texts ...string) {
	t.Helper()
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("error %v of code %s, want %s", err, backendai.CodeOf(err), code)
	}
	for _, text := range texts {
		if !strings.Contains(e.Title+"\n"+e.Hint, text) {
			t.Errorf("error %q with hint %q does not say %q", e.Title, e.Hint, text)
		}
	}
}

func read(t *testing.T, folders []string, path string) string {
	t.Helper()
	for _, dir := range folders {
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil {
			return string(data)
		}
	}
	t.Errorf("no layer has %s", path)
	return ""
}

// emptyIndex is an OCI index without images.
func emptyIndex() v1.ImageIndex { return empty.Index }
