package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"backendai"
)

// catalog is what the store knows, in memory because starts of sessions ask it.
type catalog struct {
	names   map[string]*record        // by canonical reference
	digests map[digest.Digest]*record // named or in use
	owners  map[string]digest.Digest
	aliases map[string]string
}

// record is one image of this machine; it never changes once made.
type record struct {
	image  backendai.Image // without Ref and Aliases
	target ocispec.Descriptor
	lower  []string // folders of the layers, top first
}

// labelUpper is where the snapshotter tells the folder of a layer.
const labelUpper = "containerd.io/snapshot/overlay.upperdir"

// load reads the record of an unpacked image.
func (s *Store) load(ctx context.Context, target ocispec.Descriptor) (*record, error) {
	var manifest ocispec.Manifest
	if err := s.readJSON(ctx, target, &manifest); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", target.Digest, err)
	}
	var config ocispec.Image
	if err := s.readJSON(ctx, manifest.Config, &config); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", manifest.Config.Digest, err)
	}
	r := &record{target: target, image: backendai.Image{
		Digest: target.Digest.String(), Architecture: protocolArch(config.Architecture),
		Labels: config.Config.Labels, Env: config.Config.Env, WorkingDir: config.Config.WorkingDir,
	}}
	if config.Created != nil {
		r.image.CreatedAt = *config.Created
	}
	for _, chain := range chainIDs(config.RootFS.DiffIDs) {
		info, err := s.snaps.Stat(ctx, chain)
		if err != nil {
			return nil, fmt.Errorf("find layer %s: %w", chain, err)
		}
		usage, err := s.snaps.Usage(ctx, chain)
		if err != nil {
			return nil, fmt.Errorf("measure layer %s: %w", chain, err)
		}
		r.image.Size += usage.Size
		r.lower = append(r.lower, info.Labels[labelUpper])
	}
	slices.Reverse(r.lower)
	return r, nil
}

// chainIDs names the snapshot of each layer with all that are below it.
func chainIDs(diffs []digest.Digest) []string {
	ids := make([]string, len(diffs))
	for i, id := range identity.ChainIDs(slices.Clone(diffs)) {
		ids[i] = id.String()
	}
	return ids
}

// readJSON reads a small blob that is in the store.
func (s *Store) readJSON(ctx context.Context, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxDocument {
		return fmt.Errorf("it has %d bytes, more than the limit of %d", desc.Size, maxDocument)
	}
	data, err := content.ReadBlob(ctx, s.content, desc)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// reload fills the catalog from the database.
func (s *Store) reload(ctx context.Context) error {
	aliases, err := s.opts.Aliases.Aliases(ctx)
	if err != nil {
		return fmt.Errorf("list aliases: %w", err)
	}
	named, err := s.names.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	c := catalog{
		names: map[string]*record{}, digests: map[digest.Digest]*record{},
		owners: map[string]digest.Digest{}, aliases: maps.Clone(aliases),
	}
	if c.aliases == nil {
		c.aliases = map[string]string{}
	}
	for _, n := range named {
		r, ok := c.digests[n.Target.Digest]
		if !ok {
			if r, err = s.load(ctx, n.Target); err != nil {
				// A damaged image must not keep the server from starting.
				s.log.Error("image is unusable", "image", n.Name, "err", err)
				continue
			}
			c.digests[n.Target.Digest] = r
		}
		c.names[n.Name] = r
	}
	s.mu.Lock()
	s.catalog = c
	s.mu.Unlock()
	return nil
}

// view is the image of a record under one of its names. The caller holds mu.
func (c *catalog) view(ref string, r *record) backendai.Image {
	image := r.image
	image.Ref = ref
	image.Labels = maps.Clone(r.image.Labels)
	image.Env = slices.Clone(r.image.Env)
	for alias, target := range c.aliases {
		if full, err := canonical(target); target == ref || err == nil && full == ref {
			image.Aliases = append(image.Aliases, alias)
		}
	}
	slices.Sort(image.Aliases)
	return image
}

// find looks for a name among the present images: first exactly, then as a
// short name. Of several that fit, those that this machine built come first,
// then the newest.
func (c *catalog) find(name string) (ref string, r *record, ok bool) {
	if strings.HasPrefix(name, "sha256:") {
		for ref, r := range c.names {
			if r.image.Digest == name {
				return ref, r, true
			}
		}
		return "", nil, false
	}
	if r, ok := c.names[name]; ok {
		return name, r, true
	}
	// docker.io/library is left out last: a local image of the name comes first.
	var fits []string
	for ref := range c.names {
		if matchShort(ref, name) {
			fits = append(fits, ref)
		}
	}
	if len(fits) > 0 {
		ref := slices.MinFunc(fits, func(a, b string) int {
			return cmp.Or(
				boolCompare(pullable(a), pullable(b)),
				c.names[b].image.CreatedAt.Compare(c.names[a].image.CreatedAt),
				strings.Compare(a, b),
			)
		})
		return ref, c.names[ref], true
	}
	if full, err := canonical(name); err == nil {
		if r, ok := c.names[full]; ok {
			return full, r, true
		}
	}
	return "", nil, false
}

// boolCompare orders false before true.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// put records that an unpacked image has a name, keeps what the name meant
// before for as long as sessions use it, and collects the rest. The blobs and
// snapshots of the image are leased by the caller's context.
func (s *Store) put(ctx context.Context, ref string, target ocispec.Descriptor) (backendai.Image, error) {
	r, err := s.load(ctx, target)
	if err != nil {
		return backendai.Image{}, err
	}
	if err := syncFiles(s.opts.Root); err != nil {
		return backendai.Image{}, fmt.Errorf("write image to disk: %w", err)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.RLock()
	old, existed := s.catalog.names[ref]
	s.mu.RUnlock()
	if existed {
		if err := s.keepWhileUsed(ctx, old, ref); err != nil {
			return backendai.Image{}, err
		}
	}
	if err := s.setName(ctx, images.Image{Name: ref, Target: target}); err != nil {
		return backendai.Image{}, fmt.Errorf("name image %q: %w", ref, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catalog.names[ref] = r
	s.catalog.digests[target.Digest] = r
	if existed && old.target.Digest != target.Digest {
		s.catalog.forget(old.target.Digest)
	}
	return s.catalog.view(ref, r), nil
}

// forget drops the record of a digest that neither a name nor a session needs.
// The caller holds mu.
func (c *catalog) forget(d digest.Digest) {
	for _, r := range c.names {
		if r.target.Digest == d {
			return
		}
	}
	for _, used := range c.owners {
		if used == d {
			return
		}
	}
	delete(c.digests, d)
}
