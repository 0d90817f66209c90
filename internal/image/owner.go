package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"backendai"
)

// Owners are sessions that use an image. Who uses what stands in one small file
// an owner, which is written on every start of a session and therefore not
// through the database, whose every change waits for the disk. A file that a
// power failure loses is no loss: the session is gone too. The database learns
// of owners only when an image loses its name while in use: then a lease keeps it.

const (
	usedLease    = "used-" // + digest: keeps a nameless image for its owners
	ingestLease  = "ingest-"
	labelDigest  = "backend.ai/digest"
	maxOwnerName = 128
)

// Layers gives the folders of an image's layers, top first, as overlayfs's
// lowerdir wants them, and keeps them for the owner (a session id) until
// Release. An owner has one image: asking for another releases the first.
func (s *Store) Layers(ctx context.Context, imageDigest, owner string) ([]string, error) {
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	want := digest.Digest(imageDigest)
	s.mu.RLock()
	had, owned := s.catalog.owners[owner]
	s.mu.RUnlock()
	if owned && had != want {
		if err := s.Release(ctx, owner); err != nil {
			return nil, err
		}
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.catalog.digests[want]
	if !ok {
		return nil, backendai.NotFound("image", imageDigest).WithHint("see what there is with: backend.ai image list")
	}
	if s.catalog.owners[owner] != want {
		if err := s.owners.WriteFile(owner, []byte(imageDigest), 0o600); err != nil {
			return nil, fmt.Errorf("keep image %s for %q: %w", imageDigest, owner, err)
		}
		s.catalog.owners[owner] = want
	}
	return slices.Clone(r.lower), nil
}

// Release ends an owner's use; of an owner that has nothing it is no error.
func (s *Store) Release(ctx context.Context, owner string) error {
	if err := checkOwner(owner); err != nil {
		return err
	}
	ctx = s.inside(ctx)
	garbage, err := s.release(ctx, owner)
	if err != nil {
		return fmt.Errorf("release image of %q: %w", owner, err)
	}
	if !garbage {
		return nil
	}
	return s.collect(ctx)
}

// release forgets an owner and tells whether its image is garbage now.
func (s *Store) release(ctx context.Context, owner string) (garbage bool, err error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.owners.Remove(owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	s.mu.Lock()
	used := s.catalog.owners[owner]
	delete(s.catalog.owners, owner)
	s.catalog.forget(used)
	_, kept := s.catalog.digests[used]
	s.mu.Unlock()
	if used == "" || kept {
		return false, nil
	}
	err = s.leases.Delete(ctx, leases.Lease{ID: usedLease + used.String()})
	if err != nil && !errdefs.IsNotFound(err) {
		return false, err
	}
	return true, nil
}

// Owners lists who uses images, for the sweep after a crash.
func (s *Store) Owners(context.Context) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	owners := make([]string, 0, len(s.catalog.owners))
	for owner := range s.catalog.owners {
		owners = append(owners, owner)
	}
	slices.Sort(owners)
	return owners, nil
}

// GC removes what neither a name, nor a session, nor work under way needs.
// Everything else here calls it where it is due; it is for operators.
func (s *Store) GC(ctx context.Context) error { return s.collect(s.inside(ctx)) }

func (s *Store) collect(ctx context.Context) error {
	if _, err := s.db.GarbageCollect(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("collect unused images: %w", err)
	}
	return nil
}

// keepWhileUsed leases the image that is about to lose the name ref, if that is
// its last one and sessions use it. The caller holds changes.
func (s *Store) keepWhileUsed(ctx context.Context, r *record, ref string) error {
	d := r.target.Digest
	s.mu.RLock()
	used := false
	for _, other := range s.catalog.owners {
		used = used || other == d
	}
	for name, other := range s.catalog.names {
		used = used && (name == ref || other.target.Digest != d)
	}
	s.mu.RUnlock()
	if !used {
		return nil
	}
	lease, err := s.leases.Create(ctx, leases.WithID(usedLease+d.String()), leases.WithLabel(labelDigest, d.String()))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		err = s.leases.AddResource(ctx, lease, leases.Resource{ID: d.String(), Type: "content"})
	}
	if err != nil {
		return fmt.Errorf("keep image %q for the sessions that use it: %w", ref, err)
	}
	return nil
}

// recover fills the catalog and clears what a crash left: unfinished pulls and
// builds, and images that nobody needs any more.
func (s *Store) recover(ctx context.Context) error {
	if err := s.sweepBuilds(); err != nil {
		return err
	}
	if err := s.reload(ctx); err != nil {
		return err
	}
	used, err := s.readOwners()
	if err != nil {
		return err
	}
	all, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, lease := range all {
		d := digest.Digest(lease.Labels[labelDigest])
		if strings.HasPrefix(lease.ID, usedLease) && slices.Contains(used, d) {
			if err := s.loadUsed(ctx, d); err != nil {
				s.log.Error("image of a session is unusable", "image", d, "err", err)
			}
			continue
		}
		if err := s.leases.Delete(ctx, lease); err != nil {
			return fmt.Errorf("delete lease %q: %w", lease.ID, err)
		}
	}
	return s.collect(ctx)
}

// loadUsed puts an image that has no name but sessions back into the catalog.
func (s *Store) loadUsed(ctx context.Context, d digest.Digest) error {
	if _, ok := s.catalog.digests[d]; ok {
		return nil
	}
	info, err := s.content.Info(ctx, d)
	if err != nil {
		return err
	}
	r, err := s.load(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: info.Size})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.catalog.digests[d] = r
	s.mu.Unlock()
	return nil
}

// readOwners reads the files of owners and gives the digests in use.
func (s *Store) readOwners() ([]digest.Digest, error) {
	entries, err := fs.ReadDir(s.owners.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list users of images: %w", err)
	}
	var used []digest.Digest
	for _, e := range entries {
		data, err := s.owners.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("read user of image: %w", err)
		}
		d, err := digest.Parse(string(data))
		if err != nil { // torn by a crash while it was written: that session never started
			if err := s.owners.Remove(e.Name()); err != nil {
				return nil, fmt.Errorf("remove damaged user of image: %w", err)
			}
			continue
		}
		s.catalog.owners[e.Name()] = d
		used = append(used, d)
	}
	return used, nil
}

// sweepBuilds takes away the folders, and mounts, of builds that a crash ended.
func (s *Store) sweepBuilds() error {
	dir := filepath.Join(s.opts.Root, "build")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep builds: %w", err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if err := removeScratch(p); err != nil {
			return fmt.Errorf("sweep builds: %w", err)
		}
	}
	return nil
}

func checkOwner(owner string) error {
	if owner == "" || len(owner) > maxOwnerName || owner == "." || owner == ".." || strings.ContainsAny(owner, "/\\\x00") {
		return backendai.Errorf(backendai.CodeInvalidParams, "%q is not a session id", owner)
	}
	return nil
}
