package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"backendai"
)

// Import reads images from an archive: an OCI image archive, what "docker save"
// writes, or a tar of an OCI layout folder, each also compressed. They get the
// names that stand inside; name, if not empty, is for an archive with one image
// and replaces its own. When it fails nothing stays. Progress counts the bytes
// read of the (decompressed) archive.
func (s *Store) Import(ctx context.Context, r io.Reader, name string, progress func(backendai.PullProgress)) ([]backendai.Image, error) {
	ref := ""
	if name != "" {
		var err error
		if ref, err = canonical(name); err != nil {
			return nil, err
		}
	}
	if progress == nil {
		progress = func(backendai.PullProgress) {}
	}
	var all []backendai.Image
	_, err := s.leased(s.inside(ctx), func(ctx context.Context) (_ backendai.Image, err error) {
		all, err = s.importArchive(ctx, r, ref, progress)
		return backendai.Image{}, err
	})
	if err != nil {
		return nil, s.importError(err)
	}
	return all, nil
}

// candidate is an image in an archive.
type candidate struct {
	ref       string
	manifests []ocispec.Descriptor // one per architecture
}

func (s *Store) importArchive(ctx context.Context, r io.Reader, ref string, progress func(backendai.PullProgress)) ([]backendai.Image, error) {
	step := backendai.PullProgress{Ref: cmp.Or(ref, "the archive"), Stage: "downloading"}
	plain, err := decompress(r)
	if err != nil {
		return nil, fmt.Errorf("%w: decompress: %w", errHostile, err)
	}
	defer plain.Close()
	counter := &ingestCounter{Ingester: s.content, step: step, report: progress}
	left := s.opts.MaxUnpacked
	desc, err := archive.ImportIndex(ctx, ingestStore{s.content, counter}, &boundedReader{r: plain, left: &left})
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := s.readJSON(ctx, desc, &index); err != nil {
		return nil, fmt.Errorf("%w: read index: %w", errHostile, err)
	}
	candidates, err := s.candidates(ctx, index, ref)
	if err != nil {
		return nil, err
	}
	step.Done = counter.done.Load()
	step.Total = step.Done
	var all []backendai.Image
	for _, c := range candidates {
		step.Ref, step.Stage = c.ref, "unpacking"
		progress(step)
		image, err := s.importOne(ctx, c)
		if err != nil {
			if outOfSpace(err) {
				err = s.diskFull(c.ref, err)
			}
			return nil, s.forgetImported(ctx, all, err)
		}
		all = append(all, image)
	}
	step.Stage = "done"
	progress(step)
	return all, nil
}

// forgetImported takes back the images of an archive whose later one failed.
func (s *Store) forgetImported(ctx context.Context, all []backendai.Image, err error) error {
	for _, image := range all {
		err = errors.Join(err, s.removeName(context.WithoutCancel(ctx), image.Ref))
	}
	return err
}

func (s *Store) importOne(ctx context.Context, c candidate) (backendai.Image, error) {
	desc, err := chooseManifest(c.ref, c.manifests)
	if err != nil {
		return backendai.Image{}, err
	}
	manifest, err := s.readManifest(ctx, desc)
	if err != nil {
		return backendai.Image{}, err
	}
	im, err := s.readDocuments(ctx, c.ref, desc, manifest)
	if err != nil {
		return backendai.Image{}, err
	}
	return s.unpack(ctx, c.ref, im)
}

// candidates groups what an archive's index lists by name.
func (s *Store) candidates(ctx context.Context, index ocispec.Index, ref string) ([]candidate, error) {
	var all []candidate
	for _, desc := range index.Manifests {
		name, err := nameInside(desc, ref)
		if err != nil {
			return nil, err
		}
		manifests := []ocispec.Descriptor{desc}
		if images.IsIndexType(desc.MediaType) {
			var inner ocispec.Index
			if err := s.readJSON(ctx, desc, &inner); err != nil {
				return nil, fmt.Errorf("%w: read index: %w", errHostile, err)
			}
			manifests = inner.Manifests
		}
		found := false
		for i := range all {
			if all[i].ref == name {
				all[i].manifests = append(all[i].manifests, manifests...)
				found = true
			}
		}
		if !found {
			all = append(all, candidate{ref: name, manifests: manifests})
		}
	}
	named := map[string]bool{}
	for _, desc := range index.Manifests {
		named[desc.Annotations[images.AnnotationImageName]+desc.Annotations[ocispec.AnnotationRefName]] = true
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("%w: there is no image in it", errHostile)
	case ref != "" && len(named) > 1:
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the archive has %d images, which cannot all be %q", len(named), ref).
			WithHint("import it without a name: the images have their own")
	}
	return all, nil
}

// nameInside is the canonical reference that an archive gives an image, or the
// user's instead of it.
func nameInside(desc ocispec.Descriptor, ref string) (string, error) {
	if ref != "" {
		return ref, nil
	}
	name := desc.Annotations[images.AnnotationImageName]
	if name == "" {
		// By the specification this may be a tag alone, which names nothing.
		if name = desc.Annotations[ocispec.AnnotationRefName]; !strings.ContainsAny(name, "/:") {
			name = ""
		}
	}
	if name == "" {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "the archive does not name its image").
			WithHint("give the name with: backend.ai image import --name NAME:TAG FILE")
	}
	return canonical(name)
}

func (s *Store) importError(err error) error {
	if _, ok := errors.AsType[*backendai.Error](err); ok || errorIsAny(err, context.Canceled, context.DeadlineExceeded) {
		return err
	}
	switch {
	case outOfSpace(err):
		return s.noSpace("the archive", err)
	case errdefs.IsNotFound(err):
		return backendai.Errorf(backendai.CodeInvalidParams, "the archive lacks a part of its image: %w", err)
	}
	return backendai.Errorf(backendai.CodeInvalidParams, "the archive cannot be imported: %w", err).
		WithHint("it must be an OCI image archive, an OCI layout folder as a tar, or what \"docker save\" writes")
}
