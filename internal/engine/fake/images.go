package fake

import (
	"context"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"backendai"
)

// Images is the catalogue that goes with the engine: a few names for the host
// itself, and the aliases that are made for them while it lives. Nothing can be
// pulled, imported or built.
type Images struct {
	made time.Time

	mu      sync.Mutex
	aliases map[string]string // to the short name
}

// NewImages makes the catalogue.
func NewImages() *Images { return &Images{made: time.Now(), aliases: map[string]string{}} }

var imageNames = []string{"base", "python"}

func (s *Images) image(name string) backendai.Image {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	im := backendai.Image{
		Ref: "localhost/" + name + ":host", Architecture: arch, Digest: "sha256:" + strings.Repeat("0", 64), CreatedAt: s.made,
		Labels: map[string]string{
			"ai.backend.resource.min.cpu": "1", "ai.backend.resource.min.mem": "64m", "ai.backend.runtime-type": "app",
		},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	for alias, target := range s.aliases {
		if target == name {
			im.Aliases = append(im.Aliases, alias)
		}
	}
	slices.Sort(im.Aliases)
	return im
}

// short finds the short name that a user's name stands for; "" when there is none.
func (s *Images) short(name string) string {
	if target, ok := s.aliases[name]; ok {
		return target
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "localhost/"), ":host")
	if slices.Contains(imageNames, name) {
		return name
	}
	return ""
}

// Resolve finds an image by alias, short name or reference.
func (s *Images) Resolve(_ context.Context, name, architecture string) (backendai.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := s.short(name)
	if short == "" {
		return backendai.Image{}, backendai.NotFound("image", name).WithHint("see what there is with: backend.ai image list")
	}
	im := s.image(short)
	if architecture != "" && architecture != im.Architecture {
		return backendai.Image{}, backendai.Errorf(backendai.CodeInvalidParams, "the image %q is for %s, not for %s", name, im.Architecture, architecture)
	}
	return im, nil
}

// List lists all images.
func (s *Images) List(context.Context) (list []backendai.Image, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range imageNames {
		list = append(list, s.image(name))
	}
	return list, nil
}

// Alias makes a name for an image.
func (s *Images) Alias(_ context.Context, alias, target string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := s.short(target)
	if short == "" {
		return backendai.NotFound("image", target)
	}
	s.aliases[alias] = short
	return nil
}

// Dealias takes such a name away.
func (s *Images) Dealias(_ context.Context, alias string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.aliases[alias]; !ok {
		return backendai.NotFound("image alias", alias)
	}
	delete(s.aliases, alias)
	return nil
}

// Pull has nothing to do for an image that is here.
func (s *Images) Pull(ctx context.Context, ref string, _ func(backendai.PullProgress)) (backendai.Image, error) {
	if im, err := s.Resolve(ctx, ref, ""); err == nil {
		return im, nil
	}
	return backendai.Image{}, noStore("pulled")
}

// Import reads nothing.
func (s *Images) Import(_ context.Context, r io.Reader, _ string, _ func(backendai.PullProgress)) ([]backendai.Image, error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return nil, noStore("imported")
}

// Build makes nothing.
func (s *Images) Build(context.Context, string, func(string)) (backendai.Image, error) {
	return backendai.Image{}, noStore("built")
}

// Remove removes nothing.
func (s *Images) Remove(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.short(name) == "" {
		return backendai.NotFound("image", name)
	}
	return noStore("removed")
}

func noStore(done string) error {
	return backendai.Errorf(backendai.CodeNotImplemented, "images cannot be %s with the engine fake, whose only image is the host", done).
		WithHint("run the server with --engine oci")
}
