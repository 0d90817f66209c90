package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/image"
)

func TestResolve(t *testing.T) {
	h := newHub(t)
	s := open(t, func(o *image.Options) {
		o.Public = map[string]string{"ubuntu": "docker.io/library/ubuntu:24.04", "trap": "localhost/trap:1"}
	})
	ref := h.push(t, "team/app:3.11-debian12", imageOf(t, archiveOf(t, entry{name: "a"})))
	img, err := s.Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ref, "app", "app:3.11", "app:3.11-debian12", "team/app", "team/app:3", img.Digest} {
		got, err := s.Resolve(t.Context(), name, "")
		if err != nil || got.Ref != ref || !got.Present() {
			t.Errorf("Resolve %q: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"app:3.1", "pp", "ap", "other/app", "am/app:3.11"} {
		if got, err := s.Resolve(t.Context(), name, ""); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("Resolve %q: %+v, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"ubuntu":              "docker.io/library/ubuntu:24.04",
		"quay.io/x/y":         "quay.io/x/y:latest",
		"docker.io/python":    "docker.io/library/python:latest",
		"host:5000/python:3":  "host:5000/python:3",
		"localhost:5000/py:1": "localhost:5000/py:1",
	} {
		got, err := s.Resolve(t.Context(), name, "")
		if err != nil || got.Present() || got.Ref != want {
			t.Errorf("Resolve %q: %+v, %v; want %q", name, got, err, want)
		}
	}
	_, err = s.Resolve(t.Context(), "python:3.11", "")
	wantError(t, err, backendai.CodeNotFound, "python:3.11", "backend.ai image build python")
	_, err = s.Resolve(t.Context(), "nothing", "")
	wantError(t, err, backendai.CodeNotFound, "nothing", "image list")
	_, err = s.Resolve(t.Context(), "trap", "")
	wantError(t, err, backendai.CodeNotFound, "trap")
	for _, name := range []string{"", "UPPER", "a b", "../x", "x/../../y", "a\x00b"} {
		if got, err := s.Resolve(t.Context(), name, ""); err == nil {
			t.Errorf("Resolve %q gave %+v", name, got)
		}
	}
}

func TestAliases(t *testing.T) {
	h := newHub(t)
	aliases := &aliasStore{}
	s := open(t, func(o *image.Options) { o.Aliases = aliases })
	ref := h.push(t, "app:1", imageOf(t, archiveOf(t, entry{name: "a"})))
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	for alias, target := range map[string]string{"mine": ref, "second": "mine"} {
		if err := s.Alias(t.Context(), alias, target); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(t.Context(), alias, ""); err != nil && alias == "mine" || alias == "mine" && got.Ref != ref {
			t.Errorf("Resolve of alias %q: %+v, %v", alias, got, err)
		}
	}
	got, err := s.Resolve(t.Context(), "second", "")
	if err != nil || got.Ref != ref || !cmp.Equal(got.Aliases, []string{"mine"}) {
		t.Errorf("Resolve through two aliases: %+v, %v", got, err)
	}
	wantError(t, s.Alias(t.Context(), "mine", "second"), backendai.CodeInvalidParams, "itself")
	wantError(t, s.Alias(t.Context(), "a b", ref), backendai.CodeInvalidParams, "not the name")
	if err := s.Dealias(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), "mine", ""); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("Resolve of a deleted alias: %v", err)
	}
	wantError(t, s.Dealias(t.Context(), "mine"), backendai.CodeNotFound)
	if all, _ := aliases.Aliases(t.Context()); len(all) != 1 {
		t.Errorf("the database has %v", all)
	}
}

func TestRemove(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	img := imageOf(t, archiveOf(t, entry{name: "a", body: "a"}))
	one, two := h.push(t, "one:1", img), h.push(t, "two:1", img)
	for _, ref := range []string{one, two} {
		if _, err := s.Pull(t.Context(), ref, nil); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 2 || list[0].Ref != one {
		t.Errorf("List: %+v, %v", list, err)
	}
	got, err := s.Resolve(t.Context(), one, "")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := s.Layers(t.Context(), got.Digest, "session")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{one, "two"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := s.GC(t.Context()); err != nil {
			t.Fatal(err)
		}
		if read(t, folders, "a") != "a" {
			t.Errorf("after removing %s the session lost its layers", name)
		}
	}
	wantError(t, s.Remove(t.Context(), one), backendai.CodeNotFound)
	if err := s.Release(t.Context(), "session"); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), "session"); err != nil {
		t.Errorf("releasing twice: %v", err)
	}
	nothingLeft(t, root)
}

func TestOwnersAreSessionIDs(t *testing.T) {
	s := open(t)
	for _, owner := range []string{"", ".", "..", "a/b", "../x", "a\x00", string(make([]byte, 200))} {
		if _, err := s.Layers(t.Context(), "sha256:x", owner); backendai.CodeOf(err) != backendai.CodeInvalidParams {
			t.Errorf("Layers for %q: %v", owner, err)
		}
		if err := s.Release(t.Context(), owner); backendai.CodeOf(err) != backendai.CodeInvalidParams {
			t.Errorf("Release of %q: %v", owner, err)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := image.Open(t.Context(), image.Options{Root: "relative", Aliases: &aliasStore{}}); err == nil {
		t.Error("a relative root was opened")
	}
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	_, err := image.Open(t.Context(), image.Options{Root: root, Aliases: &aliasStore{}})
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Code != backendai.CodeUnavailable {
		t.Errorf("a second store of one root: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What a crash may leave: a torn owner and a build's folder.
	if err := os.WriteFile(filepath.Join(root, "owners", "torn"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "build", "python-1", "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	s = open(t, func(o *image.Options) { o.Root = root })
	if owners, err := s.Owners(t.Context()); err != nil || len(owners) != 0 {
		t.Errorf("Owners = %q, %v", owners, err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "build")); err != nil || len(entries) != 0 {
		t.Errorf("a build's folder stayed: %v, %v", entries, err)
	}
}

// The start of a session waits for Resolve and Layers.
func BenchmarkSessionStart(b *testing.B) {
	h := newHub(b)
	s := open(b)
	ref := h.push(b, "app:1", imageOf(b, archiveOf(b, entry{name: "a", body: "a"})))
	if _, err := s.Pull(b.Context(), ref, nil); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		img, err := s.Resolve(b.Context(), "app", "")
		if err != nil {
			b.Fatal(err)
		}
		n++
		owner := "session-" + strconv.Itoa(n)
		if _, err := s.Layers(b.Context(), img.Digest, owner); err != nil {
			b.Fatal(err)
		}
		if err := s.Release(b.Context(), owner); err != nil {
			b.Fatal(err)
		}
	}
}
