package image_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"backendai"
	"backendai/internal/image"
)

func TestPull(t *testing.T) {
	h := newHub(t)
	base := archiveOf(t, entry{name: "etc/one", body: "1"}, entry{name: "big", body: strings.Repeat("x", 1<<16)})
	ref := h.push(t, "team/app:1.0", imageOf(t, base, archiveOf(t, entry{name: "two", body: "2"})))
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })

	before, err := s.Resolve(t.Context(), ref, "")
	if err != nil || before.Present() || before.Ref != ref {
		t.Fatalf("Resolve before the pull: %+v, %v", before, err)
	}
	var stages []string
	got, err := s.Pull(t.Context(), ref, func(p backendai.PullProgress) {
		if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
			stages = append(stages, p.Stage)
		}
		if p.Stage == "done" && (p.Total == 0 || p.Done != p.Total || p.Layers != 2) {
			t.Errorf("progress at the end: %+v", p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if stages[len(stages)-1] != "done" {
		t.Errorf("stages %q do not end in done", stages)
	}
	if got.Ref != ref || !got.Present() || got.Size < 1<<16 || got.WorkingDir != "/srv" || !cmp.Equal(got.Env, []string{"A=b"}) ||
		got.Labels["ai.backend.service-ports"] != "web:http:8080" || got.Architecture == "" {
		t.Errorf("Pull gave %+v", got)
	}
	folders, err := s.Layers(t.Context(), got.Digest, "session-1")
	if err != nil || len(folders) != 2 {
		t.Fatalf("Layers: %q, %v", folders, err)
	}
	if _, err := os.Stat(folders[0] + "/two"); err != nil {
		t.Errorf("the top layer is not first: %v", err)
	}
	if read(t, folders, "etc/one") != "1" {
		t.Error("a file has another content")
	}
	// An image that shares a layer fetches only what is new.
	_, before2 := h.downloads()
	other := h.push(t, "team/other:1.0", imageOf(t, base, archiveOf(t, entry{name: "three"})))
	if _, err := s.Pull(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	if _, after := h.downloads(); after-before2 != 2 {
		t.Errorf("the second pull fetched %d blobs, want its configuration and one layer", after-before2)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, func(o *image.Options) { o.Root = root })
	found, err := again.Resolve(t.Context(), ref, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, found); diff != "" {
		t.Errorf("after opening again: %s", diff)
	}
}

func TestPullsShareOneDownload(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "a", body: "a"})))
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		once.Do(func() { close(arrived) })
		<-release
		return false
	})
	s := open(t)
	gone, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := s.Pull(gone, ref, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller who left got %v", err)
		}
	})
	<-arrived
	joined := make(chan struct{}, 8)
	for range 8 {
		all.Go(func() {
			first := sync.OnceFunc(func() { joined <- struct{}{} })
			img, err := s.Pull(t.Context(), ref, func(backendai.PullProgress) { first() })
			if err != nil || !img.Present() {
				t.Errorf("Pull: %+v, %v", img, err)
			}
		})
	}
	for range 8 {
		<-joined
	}
	leave() // the first caller's end must not end the download of the others
	close(release)
	all.Wait()
	if most, _ := h.downloads(); most != 1 {
		t.Errorf("a blob was fetched %d times", most)
	}
}

func TestPullEndsWithTheLastCaller(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "a", body: "a"})))
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		once.Do(func() { close(arrived) })
		<-r.Context().Done()
		select {
		case <-cancelled:
		default:
			close(cancelled)
		}
		return true
	})
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := s.Pull(ctx, ref, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull: %v", err)
	}
	<-cancelled
	h.intercept(nil)
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Errorf("a pull after a given-up one: %v", err)
	}
}

func TestPullChoosesTheArchitecture(t *testing.T) {
	h := newHub(t)
	mine := imageOf(t, archiveOf(t, entry{name: "mine"}))
	index := func(adds ...mutate.IndexAddendum) v1.ImageIndex { return mutate.AppendManifests(empty.Index, adds...) }
	for1 := func(img v1.Image, arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}}
	}
	config, err := mine.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	foreign := config.DeepCopy()
	foreign.Architecture = "s390x"
	other, err := mutate.ConfigFile(mine, foreign)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	ref := h.push(t, "multi:1", index(for1(other, "s390x"), for1(mine, config.Architecture)))
	img, err := s.Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := mine.Digest(); img.Digest != want.String() {
		t.Errorf("the pulled manifest is %s, want %s", img.Digest, want)
	}
	_, err = s.Pull(t.Context(), h.push(t, "foreign-index:1", index(for1(other, "s390x"))), nil)
	wantError(t, err, backendai.CodeInvalidParams, "s390x", img.Architecture)
	_, err = s.Pull(t.Context(), h.push(t, "foreign:1", other), nil)
	wantError(t, err, backendai.CodeInvalidParams, "s390x", img.Architecture)
	_, err = s.Resolve(t.Context(), ref, "s390x")
	wantError(t, err, backendai.CodeInvalidParams, "s390x", img.Architecture)
}

func TestPullErrors(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "python:1", imageOf(t, archiveOf(t, entry{name: "a", body: "abc"})))
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })

	_, err := s.Pull(t.Context(), h.host+"/nothing:1", nil)
	wantError(t, err, backendai.CodeNotFound, "no image", "nothing:1")

	_, err = s.Pull(t.Context(), "localhost/python:1", nil)
	wantError(t, err, backendai.CodeNotFound, "backend.ai image build python")

	_, err = s.Pull(t.Context(), "Not A Name", nil)
	wantError(t, err, backendai.CodeInvalidParams, "not the name of an image")

	h.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	_, err = s.Pull(t.Context(), ref, nil)
	wantError(t, err, backendai.CodeForbidden, "credentials")

	for name, answer := range map[string]func(w http.ResponseWriter, size int){
		"another content": func(w http.ResponseWriter, size int) { _, _ = io.WriteString(w, strings.Repeat("z", size)) },
		"too much":        func(w http.ResponseWriter, size int) { _, _ = io.WriteString(w, strings.Repeat("z", size+1<<20)) },
	} {
		h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			answer(w, 200)
			return true
		})
		if _, err = s.Pull(t.Context(), ref, nil); err == nil {
			t.Errorf("a registry that sent %s was believed", name)
		}
	}
	h.intercept(nil)

	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), host+"/python:1", nil)
	wantError(t, err, backendai.CodeUnavailable, "cannot be reached", "backend.ai image build python", "image import")
	_, err = s.Pull(t.Context(), host+"/nothing:1", nil)
	wantError(t, err, backendai.CodeUnavailable, "cannot be reached", "image import")
	nothingLeft(t, root)
}

func TestPullWithCredentials(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "a"})))
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		user, secret, _ := r.BasicAuth()
		if user == "me" && secret == "s3cret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := open(t, func(o *image.Options) {
		o.Credentials = func(host string) (string, string, error) {
			if host != h.host {
				t.Errorf("credentials for %q were asked", host)
			}
			return "me", "s3cret", nil
		}
	})
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
}

func TestNewerImageUnderAName(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	ref := h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "old", body: "old"})))
	old, err := s.Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := s.Layers(t.Context(), old.Digest, "session")
	if err != nil {
		t.Fatal(err)
	}
	h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "new", body: "new"})))
	fresh, err := s.Pull(t.Context(), ref, nil)
	if err != nil || fresh.Digest == old.Digest {
		t.Fatalf("Pull of a newer image: %+v, %v", fresh, err)
	}
	if read(t, folders, "old") != "old" {
		t.Error("the session lost its layers")
	}
	// A restart of the server must not lose them either.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, func(o *image.Options) { o.Root = root })
	if again, err := s.Layers(t.Context(), old.Digest, "session"); err != nil || !cmp.Equal(again, folders) {
		t.Errorf("Layers after opening again: %q, %v; want %q", again, err, folders)
	}
	if owners, _ := s.Owners(t.Context()); !cmp.Equal(owners, []string{"session"}) {
		t.Errorf("Owners = %q", owners)
	}
	if err := s.Release(t.Context(), "session"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folders[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("layers that nobody needs are there still: %v", err)
	}
	if _, err := s.Layers(t.Context(), old.Digest, "late"); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("Layers of a collected image: %v", err)
	}
}
