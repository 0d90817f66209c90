package vfolder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"backendai"
)

// The quota of a user is over all folders of the user, which no file system adds
// up. So what is left of it is dealt out as the limits of the folders' projects
// (see quota.go): those that sessions mount get equal parts of it, above what they
// hold. Together they come to no more than the quota, but for what is written in
// the milliseconds of dealing. It is dealt anew when a session starts, when an
// upload takes room, and every dealTime while sessions have any of the folders: so
// a folder that is written to gets what others leave.

// dealTime is how long a session may have to wait for what another one leaves.
const dealTime = 2 * time.Second

// deals knows the owners whose folders sessions mount.
type deals struct {
	turn   sync.Mutex // held while a user's quota is dealt
	mu     sync.Mutex
	owners map[string]bool
}

func (d *deals) set(owner string, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owners == nil {
		d.owners = map[string]bool{}
	}
	if on {
		d.owners[owner] = true
	} else {
		delete(d.owners, owner)
	}
}

// keepDealing deals for all owners whose folders sessions mount, until ctx ends.
func (s *Service) keepDealing(ctx context.Context) {
	if s.opts.UserQuota == 0 {
		return
	}
	ticker := time.NewTicker(dealTime)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.deals.mu.Lock()
		owners := slices.Collect(maps.Keys(s.deals.owners))
		s.deals.mu.Unlock()
		for _, owner := range owners {
			if err := s.deal(ctx, owner); err != nil && ctx.Err() == nil {
				s.log.Warn("quota of user is not dealt out", "user", owner, "err", err)
			}
		}
	}
}

// dealAll deals for all owners, of whom nothing is known yet.
func (s *Service) dealAll(ctx context.Context) error {
	if s.opts.UserQuota == 0 {
		return nil
	}
	folders, err := s.store.Folders(ctx, Query{})
	if err != nil {
		return err
	}
	owners := map[string]bool{}
	var errs []error
	for _, f := range folders {
		if !owners[f.UserID] {
			owners[f.UserID] = true
			errs = append(errs, s.deal(ctx, f.UserID))
		}
	}
	return errors.Join(errs...)
}

// dealt tells whether the limit of a folder is one that is dealt.
func (s *Service) dealt(f *backendai.VFolder) bool {
	s.deals.mu.Lock()
	defer s.deals.mu.Unlock()
	return s.opts.UserQuota > 0 && s.deals.owners[f.UserID]
}

// dealFor deals for the owners of folders that a session mounts from now on.
func (s *Service) dealFor(ctx context.Context, mounts []backendai.Mount) {
	if s.opts.UserQuota == 0 {
		return
	}
	owners := map[string]bool{}
	for _, m := range mounts {
		f, err := s.store.Folder(ctx, m.FolderID)
		if err == nil && !owners[f.UserID] {
			owners[f.UserID] = true
			err = s.deal(ctx, f.UserID)
		}
		if err != nil {
			s.log.Warn("quota of user is not dealt out", "vfolder", m.FolderID, "err", err)
		}
	}
}

// holding is a folder whose limit is dealt.
type holding struct {
	*backendai.VFolder

	dir     string // empty when its storage does not answer: its limit stays
	held    int64  // bytes on the disk, without the directories that are the server's
	coming  int64  // bytes of uploads
	mounted bool
}

// deal sets the limits of the folders of a user.
func (s *Service) deal(ctx context.Context, owner string) error {
	if s.opts.UserQuota == 0 || owner == "" {
		return nil
	}
	s.deals.turn.Lock()
	defer s.deals.turn.Unlock()
	folders, err := s.store.Folders(ctx, Query{OwnerID: owner, Statuses: append(slices.Clone(live), backendai.FolderTrashed)})
	if err != nil {
		return err
	}
	left, mounted := s.opts.UserQuota, int64(0)
	var holdings []holding
	for _, f := range folders {
		h, err := s.holding(ctx, f)
		if err != nil {
			return err
		}
		left -= h.held + h.coming
		if h.mounted {
			mounted++
		}
		holdings = append(holdings, h)
	}
	s.deals.set(owner, mounted > 0)
	left = max(0, left)
	for _, h := range holdings {
		more := left // the server itself refuses uploads that are too much
		if h.mounted {
			more /= mounted
		}
		bytes := h.held + h.coming + more
		if limit := s.quota(h.VFolder); limit > 0 {
			bytes = min(bytes, limit)
		}
		if h.dir == "" {
			continue
		}
		if err := s.limitTo(h.VFolder, h.dir, max(1, bytes)); err != nil { // 0 would be no limit
			return err
		}
	}
	return nil
}

// holding asks what a folder holds: the file system, if it counts, else what was
// measured last.
func (s *Service) holding(ctx context.Context, f *backendai.VFolder) (holding, error) {
	sessions, err := s.store.FolderSessions(ctx, f.ID)
	if err != nil {
		return holding{}, err
	}
	h := holding{VFolder: f, held: f.UsedBytes, mounted: len(sessions) > 0}
	if err = s.probe(ctx, f.Host); err == nil {
		h.dir, err = s.folderDir(ctx, f)
	}
	if backendai.CodeOf(err) == backendai.CodeUnavailable {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	h.coming = max(0, s.reserved(f.ID)-s.uploads.arrived(h.dir))
	d, id, err := s.project(f.Host, h.dir)
	if d == nil {
		return h, err
	}
	defer d.Close()
	used, err := projectUse(d, id)
	if err != nil {
		return h, fmt.Errorf("ask what folder %s holds: %w", f.ID, err)
	}
	own, err := blocksFor(0, ownDirs(h.dir)...)
	h.held = max(0, int64(used)-int64(own))
	return h, err
}

// ownDirs are the directories of a folder that are the server's.
func ownDirs(dir string) []string {
	return []string{dir, filepath.Join(dir, stagingDir), filepath.Join(dir, contentDir)}
}

// arrived is how many bytes are here of the uploads to a folder.
func (u *uploads) arrived(dir string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	var n int64
	for _, one := range u.known {
		if strings.HasPrefix(one.dir, dir+string(os.PathSeparator)) {
			n += one.arrived.Load()
		}
	}
	return n
}
