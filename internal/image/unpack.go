package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"backendai"
)

// Bounds on what an image may be made of; whoever makes one may be hostile.
const (
	maxDocument = 8 << 20 // bytes of a manifest, index or configuration
	maxLayers   = 127     // overlayfs takes more, but its mount options one page
	maxEntries  = 2 << 20 // files of one image: inodes, and memory while unpacking
	maxWindow   = 128 << 20
)

// errHostile marks an image that breaks the bounds or its own checksums.
var errHostile = errors.New("refused")

// budget is what is left of an image's bounds while its layers unpack.
type budget struct {
	bytes   int64 // of all layers, as archives
	files   int64 // bytes of the files in them, which sparse ones make more
	entries int
}

func (s *Store) newBudget() *budget {
	return &budget{bytes: s.opts.MaxUnpacked, files: s.opts.MaxUnpacked, entries: maxEntries}
}

// reader bounds r by what is left.
func (b *budget) reader(r io.Reader) io.Reader { return &boundedReader{r: r, left: &b.bytes} }

type boundedReader struct {
	r    io.Reader
	left *int64
}

func (r *boundedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if *r.left -= int64(n); *r.left < 0 {
		return 0, fmt.Errorf("%w: it unpacks to more than the limit", errHostile)
	}
	return n, err
}

// admit decides on one entry of a layer (an archive.Filter). Device nodes are
// dropped: a session's root filesystem may come out without nodev. So are the
// extended attributes by which overlayfs and security modules are spoken to;
// file capabilities stay.
func (b *budget) admit(hdr *tar.Header) (bool, error) {
	if b.entries--; b.entries < 0 {
		return false, fmt.Errorf("%w: it has more than %d files", errHostile, maxEntries)
	}
	if hdr.Size < 0 || hdr.Size > b.files {
		return false, fmt.Errorf("%w: it unpacks to more than the limit", errHostile)
	}
	b.files -= hdr.Size
	if escapes(hdr.Name) {
		return false, fmt.Errorf("%w: entry %q leads out of the image", errHostile, hdr.Name)
	}
	if hdr.Uid < 0 || hdr.Uid > math.MaxInt32 || hdr.Gid < 0 || hdr.Gid > math.MaxInt32 {
		return false, fmt.Errorf("%w: entry %q has owner %d:%d", errHostile, hdr.Name, hdr.Uid, hdr.Gid)
	}
	switch hdr.Typeflag {
	case tar.TypeBlock, tar.TypeChar:
		return false, nil
	case tar.TypeLink:
		if escapes(hdr.Linkname) {
			return false, fmt.Errorf("%w: hard link %q leads out of the image, to %q", errHostile, hdr.Name, hdr.Linkname)
		}
	}
	for key := range hdr.PAXRecords {
		attribute, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if ok && attribute != "security.capability" && !strings.HasPrefix(attribute, "user.") {
			delete(hdr.PAXRecords, key)
		}
	}
	return true, nil
}

// escapes tells whether a path in an archive names something above its root.
func escapes(name string) bool {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	return clean == ".." || strings.HasPrefix(clean, "../")
}

// decompress recognises gzip, zstd, bzip2 and plain data by their first bytes.
// Closing the result does not close r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(buffered)), nil
	}
	return io.NopCloser(buffered), nil
}

// unpack makes the layers of an image whose documents, and whose layer archives
// as far as their layers are not there yet, are in the content store, and gives
// the image the name ref.
func (s *Store) unpack(ctx context.Context, ref string, im documents) (backendai.Image, error) {
	if err := s.unpacking.Acquire(ctx, 1); err != nil {
		return backendai.Image{}, err
	}
	defer s.unpacking.Release(1)
	left := s.newBudget()
	parent := ""
	for i, chain := range chainIDs(im.config.RootFS.DiffIDs) {
		there, err := s.leaseLayer(ctx, chain)
		if err != nil {
			return backendai.Image{}, err
		}
		if !there {
			if err := s.unpackLayer(ctx, parent, chain, im.manifest.Layers[i], im.config.RootFS.DiffIDs[i], left); err != nil {
				return backendai.Image{}, fmt.Errorf("unpack layer %d of %d: %w", i+1, len(im.manifest.Layers), err)
			}
		}
		parent = chain
	}
	if err := s.link(ctx, im, parent); err != nil {
		return backendai.Image{}, err
	}
	return s.put(ctx, ref, im.target)
}

// link tells the garbage collection what the image's documents need: the
// manifest its configuration, that the top layer. Layer archives are not among it.
func (s *Store) link(ctx context.Context, im documents, top string) error {
	for _, l := range []struct {
		blob         digest.Digest
		label, value string
	}{
		{im.target.Digest, "containerd.io/gc.ref.content.config", im.manifest.Config.Digest.String()},
		{im.manifest.Config.Digest, "containerd.io/gc.ref.snapshot." + snapshotterName, top},
	} {
		info := content.Info{Digest: l.blob, Labels: map[string]string{l.label: l.value}}
		if _, err := s.content.Update(ctx, info, "labels."+l.label); err != nil {
			return fmt.Errorf("keep %s: %w", l.blob, err)
		}
	}
	return nil
}

// leaseLayer tells whether a layer is unpacked already, and keeps it for the
// work under way if so.
func (s *Store) leaseLayer(ctx context.Context, chain string) (bool, error) {
	id, _ := leases.FromContext(ctx)
	lease := leases.Lease{ID: id}
	resource := leases.Resource{ID: chain, Type: "snapshots/" + snapshotterName}
	// First the lease, then the look: between the two nothing can collect it.
	if err := s.leases.AddResource(ctx, lease, resource); err != nil {
		return false, fmt.Errorf("keep layer: %w", err)
	}
	_, err := s.snaps.Stat(ctx, chain)
	if err == nil {
		return true, nil
	}
	if !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look for layer: %w", err)
	}
	if err := s.leases.DeleteResource(ctx, lease, resource); err != nil {
		return false, fmt.Errorf("look for layer: %w", err)
	}
	return false, nil
}

func (s *Store) unpackLayer(ctx context.Context, parent, chain string, layer ocispec.Descriptor, want digest.Digest, left *budget) error {
	blob, err := s.content.ReaderAt(ctx, layer)
	if err != nil {
		return fmt.Errorf("find %s: %w", layer.Digest, err)
	}
	defer blob.Close()
	plain, err := decompress(content.NewReader(blob))
	if err != nil {
		return fmt.Errorf("decompress %s: %w", layer.Digest, err)
	}
	defer plain.Close()
	key, got, err := s.apply(ctx, parent, left.reader(plain), left)
	if err != nil {
		return err
	}
	if got != want {
		s.discard(ctx, key)
		return fmt.Errorf("%w: its checksum is %s, not %s", errHostile, got, want)
	}
	return s.commit(ctx, chain, key)
}

// apply unpacks a layer archive above parent into a new folder and gives its
// key and the archive's checksum. The caller commits or discards the folder.
func (s *Store) apply(ctx context.Context, parent string, layer io.Reader, left *budget) (key string, sum digest.Digest, err error) {
	key = "unpack-" + rand.Text()
	if _, err := s.snaps.Prepare(ctx, key, parent); err != nil {
		return "", "", fmt.Errorf("make folder of layer: %w", err)
	}
	if sum, err = s.applyAt(ctx, key, parent, layer, left); err != nil {
		s.discard(ctx, key)
		return "", "", err
	}
	return key, sum, nil
}

func (s *Store) applyAt(ctx context.Context, key, parent string, layer io.Reader, left *budget) (digest.Digest, error) {
	folder, err := s.layerFolder(ctx, key)
	if err != nil {
		return "", err
	}
	options := []archive.ApplyOpt{archive.WithFilter(left.admit)}
	if parent != "" {
		below, err := s.foldersBelow(ctx, parent)
		if err != nil {
			return "", err
		}
		options = append(options, archive.WithConvertWhiteout(convertWhiteout), archive.WithParents(below))
	}
	digester := digest.Canonical.Digester()
	stream := io.TeeReader(layer, digester.Hash())
	if _, err := archive.Apply(ctx, folder, stream, options...); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, stream); err != nil { // what follows the archive's end counts in its checksum
		return "", err
	}
	return digester.Digest(), nil
}

// commit makes an unpacked folder the layer named chain.
func (s *Store) commit(ctx context.Context, chain, key string) error {
	err := s.snaps.Commit(ctx, chain, key)
	if errdefs.IsAlreadyExists(err) { // another build made the very same
		s.discard(ctx, key)
		_, err = s.leaseLayer(ctx, chain)
	}
	if err != nil {
		return fmt.Errorf("keep layer: %w", err)
	}
	return nil
}

// discard takes away an unfinished folder. The files go first: on a full disk
// the database can only then write that they are gone.
func (s *Store) discard(ctx context.Context, key string) {
	ctx = context.WithoutCancel(ctx)
	if folder, err := s.layerFolder(ctx, key); err == nil {
		entries, _ := os.ReadDir(folder)
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
				s.log.Warn("unfinished layer stays until the next collection", "err", err)
			}
		}
	}
	if err := s.snaps.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		s.log.Warn("unfinished layer stays until the next collection", "err", err)
	}
}

func (s *Store) layerFolder(ctx context.Context, key string) (string, error) {
	info, err := s.snaps.Stat(ctx, key)
	if err != nil {
		return "", fmt.Errorf("find folder of layer: %w", err)
	}
	if info.Labels[labelUpper] == "" {
		return "", fmt.Errorf("find folder of layer %q: the snapshotter does not tell", key)
	}
	return info.Labels[labelUpper], nil
}

// foldersBelow lists the folders of a layer and those under it, top first.
func (s *Store) foldersBelow(ctx context.Context, chain string) ([]string, error) {
	var folders []string
	for chain != "" {
		var info snapshots.Info
		var err error
		if info, err = s.snaps.Stat(ctx, chain); err != nil {
			return nil, fmt.Errorf("find layer %s: %w", chain, err)
		}
		folders = append(folders, info.Labels[labelUpper])
		chain = info.Parent
	}
	return folders, nil
}

// documents are an image's manifest and configuration, checked.
type documents struct {
	target   ocispec.Descriptor
	manifest ocispec.Manifest
	config   ocispec.Image
}

// check refuses documents that this store cannot or should not unpack.
func (im documents) check(ref string) error {
	diffs, layers := im.config.RootFS.DiffIDs, im.manifest.Layers
	switch {
	case len(layers) == 0:
		return fmt.Errorf("%w: it has no layers", errHostile)
	case len(layers) > maxLayers:
		return fmt.Errorf("%w: it has %d layers, more than the limit of %d", errHostile, len(layers), maxLayers)
	case len(diffs) != len(layers):
		return fmt.Errorf("%w: its manifest has %d layers and its configuration %d", errHostile, len(layers), len(diffs))
	}
	for i, l := range layers {
		if err := errors.Join(l.Digest.Validate(), diffs[i].Validate()); err != nil {
			return fmt.Errorf("%w: layer %d: %w", errHostile, i+1, err)
		}
		if l.Size < 0 || !images.IsLayerType(l.MediaType) || images.IsNonDistributable(l.MediaType) {
			return fmt.Errorf("%w: layer %d is %q of %d bytes, which cannot be unpacked", errHostile, i+1, l.MediaType, l.Size)
		}
	}
	if arch := im.config.Architecture; arch != hostArch() {
		return wrongArchitecture(ref, []string{arch})
	}
	return nil
}

func wrongArchitecture(ref string, there []string) error {
	for i, arch := range there {
		there[i] = protocolArch(arch)
	}
	return backendai.Errorf(backendai.CodeInvalidParams, "image %q is for %s, but this machine is %s",
		ref, strings.Join(there, ", "), protocolArch(hostArch())).
		WithHint("get the image for %s", protocolArch(hostArch()))
}
