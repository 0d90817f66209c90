package image

import (
	"context"
	"io/fs"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"backendai"
)

// maxAliases bounds how many aliases may lead to one another.
const maxAliases = 8

// Resolve turns an alias, short name or reference into an image. One that is
// not on this machine but could be pulled is not Present. For one that can be
// neither, the error is CodeNotFound with the hint which command makes it. An
// empty architecture is that of the image, or of this machine.
func (s *Store) Resolve(_ context.Context, name, architecture string) (backendai.Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	target := name
	for range maxAliases {
		next, ok := s.catalog.aliases[target]
		if !ok {
			break
		}
		target = next
	}
	ref, r, ok := s.catalog.find(target)
	if ok {
		if architecture != "" && architecture != r.image.Architecture {
			return backendai.Image{}, backendai.Errorf(backendai.CodeInvalidParams,
				"image %q is for %s, not for %s", ref, r.image.Architecture, architecture).
				WithHint("ask for the architecture %s, or pull the image on a machine of %s", r.image.Architecture, architecture)
		}
		return s.catalog.view(ref, r), nil
	}
	if architecture != "" && architecture != s.arch {
		return backendai.Image{}, backendai.Errorf(backendai.CodeInvalidParams,
			"image %q is asked for %s, but this machine is %s", name, architecture, s.arch).
			WithHint("leave the architecture out, or ask for %s", s.arch)
	}
	ref, err := s.pullName(name, target)
	if err != nil {
		return backendai.Image{}, err
	}
	return backendai.Image{Ref: ref, Architecture: s.arch}, nil
}

// pullName is the reference under which a registry could have an image that is
// not here. name is what the user wrote, target what the aliases made of it.
func (s *Store) pullName(name, target string) (string, error) {
	if public, ok := s.opts.Public[target]; ok {
		target = public
	} else if !hasRegistry(target) {
		if _, err := canonical(target); err != nil {
			return "", err
		}
		return "", s.notFound(name, target)
	}
	ref, err := canonical(target)
	if err != nil {
		return "", err
	}
	if !pullable(ref) {
		return "", s.notFound(name, target)
	}
	return ref, nil
}

// notFound says which command makes the image that is not here.
func (s *Store) notFound(name, target string) error {
	err := backendai.NotFound("image", name)
	if recipe := s.recipeFor(target); recipe != "" {
		return err.WithHint("make it with: backend.ai image build %s", recipe)
	}
	return err.WithHint("see what there is with: backend.ai image list; " +
		"fetch one with: backend.ai image pull REGISTRY/NAME:TAG; or load a file with: backend.ai image import FILE")
}

// recipeFor is the recipe that makes images of a name, "" when there is none.
func (s *Store) recipeFor(name string) string {
	name, _, _ = strings.Cut(name, "@")
	repository, _ := splitTag(name)
	recipe := repository[strings.LastIndexByte(repository, '/')+1:]
	if !fs.ValidPath(recipe + ".toml") {
		return ""
	}
	if _, err := fs.Stat(s.opts.Recipes, recipe+".toml"); err != nil {
		return ""
	}
	return recipe
}

// List gives the images of this machine in order of reference.
func (s *Store) List(context.Context) ([]backendai.Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]backendai.Image, 0, len(s.catalog.names))
	for ref, r := range s.catalog.names {
		list = append(list, s.catalog.view(ref, r))
	}
	slices.SortFunc(list, func(a, b backendai.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// Remove takes away the name of a present image, which may be short. The
// layers go with the last name, or when the last session that uses them has
// released them. Aliases that point to the name stay.
func (s *Store) Remove(ctx context.Context, name string) error {
	ctx = s.inside(ctx)
	if err := s.removeName(ctx, name); err != nil {
		return err
	}
	return s.collect(ctx) // not under a lock: deleting folders takes long, starts of sessions must not wait
}

func (s *Store) removeName(ctx context.Context, name string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.RLock()
	if target, ok := s.catalog.aliases[name]; ok {
		name = target
	}
	ref, r, ok := s.catalog.find(name)
	s.mu.RUnlock()
	if !ok {
		return backendai.NotFound("image", name).WithHint("see what there is with: backend.ai image list")
	}
	if err := s.keepWhileUsed(ctx, r, ref); err != nil {
		return err
	}
	if err := s.names.Delete(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
		return backendai.Errorf(backendai.CodeInternal, "image %q cannot be removed: %w", ref, err)
	}
	s.mu.Lock()
	delete(s.catalog.names, ref)
	s.catalog.forget(r.target.Digest)
	s.mu.Unlock()
	return nil
}

// Alias makes alias stand for target, which may be any name that Resolve takes.
func (s *Store) Alias(ctx context.Context, alias, target string) error {
	if _, err := canonical(alias); err != nil {
		return err
	}
	if _, err := canonical(target); err != nil {
		return err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.RLock()
	next := target
	for range maxAliases {
		if next == alias {
			s.mu.RUnlock()
			return backendai.Errorf(backendai.CodeInvalidParams, "alias %q would lead to itself", alias)
		}
		next = s.catalog.aliases[next]
	}
	s.mu.RUnlock()
	if err := s.opts.Aliases.SetAlias(ctx, alias, target); err != nil {
		return err
	}
	s.mu.Lock()
	s.catalog.aliases[alias] = target
	s.mu.Unlock()
	return nil
}

// Dealias takes an alias away; CodeNotFound when there is none.
func (s *Store) Dealias(ctx context.Context, alias string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.opts.Aliases.DeleteAlias(ctx, alias); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.catalog.aliases, alias)
	s.mu.Unlock()
	return nil
}

// setName makes or moves a name.
func (s *Store) setName(ctx context.Context, image images.Image) error {
	_, err := s.names.Create(ctx, image)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.names.Update(ctx, image)
	}
	return err
}
