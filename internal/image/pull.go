package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"backendai"
)

const (
	downloads   = 3                      // layers of one image at once
	reportEvery = 100 * time.Millisecond // at most so often does progress of bytes show
	leaseLife   = 24 * time.Hour         // for work that a crash ended and no start-up cleared
)

// Pull fetches an image from its registry, also when it is present, to look for
// a newer one. Pulls of one image share one download, which goes on until the
// last caller's ctx ends. What it fetched is verified, unpacked and named; when
// it fails nothing stays.
func (s *Store) Pull(ctx context.Context, ref string, progress func(backendai.PullProgress)) (backendai.Image, error) {
	if public, ok := s.opts.Public[ref]; ok {
		ref = public
	}
	full, err := canonical(ref)
	if err != nil {
		return backendai.Image{}, err
	}
	if !pullable(full) {
		return backendai.Image{}, s.notFound(ref, full)
	}
	return s.together(ctx, full, progress, func(ctx context.Context, report func(backendai.PullProgress)) (backendai.Image, error) {
		image, err := s.leased(s.inside(ctx), func(ctx context.Context) (backendai.Image, error) {
			return s.pull(ctx, full, report)
		})
		if err != nil {
			return image, s.pullError(full, err)
		}
		return image, nil
	})
}

// leased runs work whose blobs and layers are kept while it runs; afterwards
// all that no name came to need is collected: the layer archives, and
// everything when work failed.
func (s *Store) leased(ctx context.Context, work func(ctx context.Context) (backendai.Image, error)) (backendai.Image, error) {
	lease, err := s.leases.Create(ctx, leases.WithID(ingestLease+rand.Text()), leases.WithExpiration(leaseLife))
	if err != nil {
		return backendai.Image{}, fmt.Errorf("lease: %w", err)
	}
	image, err := work(leases.WithLease(ctx, lease.ID))
	ctx = context.WithoutCancel(ctx)
	if clean := errors.Join(s.leases.Delete(ctx, lease), s.collect(ctx)); clean != nil {
		s.log.Warn("unfinished work stays until the next collection", "err", clean)
	}
	return image, err
}

func (s *Store) pull(ctx context.Context, ref string, report func(backendai.PullProgress)) (backendai.Image, error) {
	step := backendai.PullProgress{Ref: ref, Stage: "resolving"}
	report(step)
	resolver := s.resolver()
	name, desc, err := resolver.Resolve(ctx, ref)
	if err != nil {
		return backendai.Image{}, err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return backendai.Image{}, err
	}
	im, err := s.fetchDocuments(ctx, fetcher, ref, desc)
	if err != nil {
		return backendai.Image{}, err
	}
	step.Layers = len(im.manifest.Layers)
	missing, err := s.missingLayers(ctx, im)
	if err != nil {
		return backendai.Image{}, err
	}
	for _, l := range missing {
		step.Total += l.Size
	}
	if free, err := freeSpace(s.opts.Root); err == nil && step.Total > free {
		return backendai.Image{}, fmt.Errorf("download of %s: %w", backendai.FormatSize(step.Total), syscall.ENOSPC)
	}
	step.Stage = "downloading"
	report(step)
	counter := &ingestCounter{Ingester: s.content, step: step, report: report}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	for _, l := range missing {
		group.Go(func() error { return fetch(fetching, counter, fetcher, l) })
	}
	if err := group.Wait(); err != nil {
		return backendai.Image{}, err
	}
	step.Stage, step.Done = "unpacking", step.Total
	report(step)
	return s.unpack(ctx, ref, im)
}

func (s *Store) resolver() remotes.Resolver {
	transport := s.opts.Transport
	if transport == nil {
		transport = docker.DefaultHTTPTransport(nil)
	}
	client := &http.Client{Transport: transport}
	authorization := []docker.AuthorizerOpt{docker.WithAuthClient(client)}
	if s.opts.Credentials != nil {
		authorization = append(authorization, docker.WithAuthCreds(s.opts.Credentials))
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(client),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(authorization...)),
		docker.WithPlainHTTP(func(host string) (bool, error) {
			return s.opts.PlainHTTP != nil && s.opts.PlainHTTP(host), nil
		}),
	)})
}

// fetchDocuments fetches the manifest for this machine and its configuration.
func (s *Store) fetchDocuments(ctx context.Context, fetcher remotes.Fetcher, ref string, desc ocispec.Descriptor) (documents, error) {
	if images.IsIndexType(desc.MediaType) {
		if err := s.fetchDocument(ctx, fetcher, desc); err != nil {
			return documents{}, err
		}
		var err error
		if desc, err = s.chooseManifest(ctx, ref, desc); err != nil {
			return documents{}, err
		}
	}
	if err := s.fetchDocument(ctx, fetcher, desc); err != nil {
		return documents{}, err
	}
	manifest, err := s.readManifest(ctx, desc)
	if err != nil {
		return documents{}, err
	}
	if err := s.fetchDocument(ctx, fetcher, manifest.Config); err != nil {
		return documents{}, err
	}
	return s.readDocuments(ctx, ref, desc, manifest)
}

func (s *Store) fetchDocument(ctx context.Context, fetcher remotes.Fetcher, desc ocispec.Descriptor) error {
	if desc.Size > maxDocument {
		return fmt.Errorf("%w: document %s has %d bytes, more than the limit of %d", errHostile, desc.Digest, desc.Size, maxDocument)
	}
	return fetch(ctx, s.content, fetcher, desc)
}

func fetch(ctx context.Context, into content.Ingester, fetcher remotes.Fetcher, desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errHostile, err)
	}
	err := remotes.Fetch(ctx, into, boundedFetcher{fetcher}, desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("fetch %s: %w", desc.Digest, err)
	}
	return nil
}

// boundedFetcher stops a registry that sends more than it said.
type boundedFetcher struct{ remotes.Fetcher }

func (f boundedFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := f.Fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	left := desc.Size
	return struct {
		io.Reader
		io.Closer
	}{&boundedReader{r: r, left: &left}, r}, nil
}

// chooseManifest finds this machine's manifest in an index.
func (s *Store) chooseManifest(ctx context.Context, ref string, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := s.readJSON(ctx, desc, &index); err != nil {
		return desc, fmt.Errorf("%w: read index: %w", errHostile, err)
	}
	return chooseManifest(ref, index.Manifests)
}

func chooseManifest(ref string, manifests []ocispec.Descriptor) (ocispec.Descriptor, error) {
	mine := platforms.Only(ocispec.Platform{OS: "linux", Architecture: hostArch()})
	var there []string
	var unmarked []ocispec.Descriptor
	for _, m := range manifests {
		switch {
		case !images.IsManifestType(m.MediaType):
		case m.Platform == nil:
			unmarked = append(unmarked, m)
		case mine.Match(*m.Platform):
			return m, nil
		case m.Platform.OS == "linux":
			there = append(there, m.Platform.Architecture)
		}
	}
	if len(unmarked) == 1 && len(there) == 0 {
		return unmarked[0], nil // its configuration tells the architecture
	}
	if len(there) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: there is no Linux image in it", errHostile)
	}
	slices.Sort(there)
	return ocispec.Descriptor{}, wrongArchitecture(ref, slices.Compact(there))
}

func (s *Store) readManifest(ctx context.Context, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if !images.IsManifestType(desc.MediaType) {
		return m, fmt.Errorf("%w: it is %q, not an image", errHostile, desc.MediaType)
	}
	if err := s.readJSON(ctx, desc, &m); err != nil {
		return m, fmt.Errorf("%w: read manifest: %w", errHostile, err)
	}
	// A document that says to be something else than its descriptor may be read
	// differently elsewhere.
	if m.MediaType != "" && m.MediaType != desc.MediaType {
		return m, fmt.Errorf("%w: manifest is %q inside and %q outside", errHostile, m.MediaType, desc.MediaType)
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return m, fmt.Errorf("%w: configuration: %w", errHostile, err)
	}
	return m, nil
}

// readDocuments reads the configuration, which is in the store, and checks all.
func (s *Store) readDocuments(ctx context.Context, ref string, desc ocispec.Descriptor, m ocispec.Manifest) (documents, error) {
	im := documents{target: desc, manifest: m}
	im.target = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	if err := s.readJSON(ctx, m.Config, &im.config); err != nil {
		return im, fmt.Errorf("%w: read configuration: %w", errHostile, err)
	}
	return im, im.check(ref)
}

// missingLayers are the archives of layers that are not unpacked yet, each once.
func (s *Store) missingLayers(ctx context.Context, im documents) ([]ocispec.Descriptor, error) {
	var missing []ocispec.Descriptor
	for i, chain := range chainIDs(im.config.RootFS.DiffIDs) {
		there, err := s.leaseLayer(ctx, chain)
		if err != nil {
			return nil, err
		}
		l := im.manifest.Layers[i]
		same := func(m ocispec.Descriptor) bool { return m.Digest == l.Digest }
		if !there && !slices.ContainsFunc(missing, same) {
			missing = append(missing, l)
		}
	}
	return missing, nil
}

// ingestCounter reports the bytes that come in.
type ingestCounter struct {
	content.Ingester
	report func(backendai.PullProgress)
	done   atomic.Int64

	mu   sync.Mutex
	step backendai.PullProgress
	last time.Time
}

func (c *ingestCounter) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := c.Ingester.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return countingWriter{w, c}, nil
}

func (c *ingestCounter) add(n int) {
	done := c.done.Add(int64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) < reportEvery {
		return
	}
	c.last = time.Now()
	c.step.Done = done
	c.report(c.step)
}

// ingestStore is a content store whose writers are counted.
type ingestStore struct {
	content.Store
	counter *ingestCounter
}

func (s ingestStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return s.counter.Writer(ctx, opts...)
}

type countingWriter struct {
	content.Writer
	counter *ingestCounter
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.counter.add(n)
	return n, err
}

// pullError tells a user why an image could not be had.
func (s *Store) pullError(ref string, err error) error {
	if _, ok := errors.AsType[*backendai.Error](err); ok || errorIsAny(err, context.Canceled, context.DeadlineExceeded) {
		return err
	}
	host, _, _ := strings.Cut(ref, "/")
	status := 0
	if unexpected, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		status = unexpected.StatusCode
	}
	_, isNet := errors.AsType[net.Error](err)
	switch {
	case outOfSpace(err) || errors.Is(err, syscall.ENOSPC):
		return s.diskFull(ref, err)
	case errors.Is(err, docker.ErrInvalidAuthorization) || status == http.StatusUnauthorized || status == http.StatusForbidden:
		return backendai.Errorf(backendai.CodeForbidden, "registry %s does not give %q to this server: %w", host, ref, err).
			WithHint("the image does not exist or needs credentials, which the server's configuration holds")
	case errdefs.IsNotFound(err) || status == http.StatusNotFound:
		return backendai.Errorf(backendai.CodeNotFound, "registry %s has no image %q: %w", host, ref, err).
			WithHint("check the name and tag")
	case errors.Is(err, errHostile) || errdefs.IsFailedPrecondition(err):
		return invalidImage(ref, err)
	case isNet || errorIsAny(err, syscall.ECONNREFUSED, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded):
		return s.unreachable(host, ref, err)
	}
	return backendai.Errorf(backendai.CodeUnavailable, "image %q cannot be pulled: %w", ref, err)
}

func (s *Store) unreachable(host, ref string, err error) error {
	e := backendai.Errorf(backendai.CodeUnavailable, "registry %s cannot be reached for %q: %w", host, ref, err)
	if recipe := s.recipeFor(ref); recipe != "" {
		return e.WithHint("without a network, make an image with: backend.ai image build %s; or load a file with: backend.ai image import FILE", recipe)
	}
	return e.WithHint("without a network, load a file with: backend.ai image import FILE")
}

func (s *Store) diskFull(ref string, err error) error {
	return s.noSpace(fmt.Sprintf("image %q", ref), err)
}

func (s *Store) noSpace(what string, err error) error {
	return backendai.Errorf(backendai.CodeUnavailable, "the disk has no space left for %s in %s: %w", what, s.opts.Root, err).
		WithHint("remove images with: backend.ai image rm NAME; or make the disk larger")
}

func invalidImage(ref string, err error) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "image %q is damaged or hostile: %w", ref, err)
}

// errorIsAny tells whether err is one of several.
func errorIsAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}
