package vfolder

import (
	"context"
	"slices"
	"sync"
	"time"

	"backendai"
)

// measureTime bounds how long a question about a folder waits for its measuring;
// freshTime is how long a measurement counts while a session may write.
const (
	measureTime = 3 * time.Second
	freshTime   = 10 * time.Second
)

// usages is what is known of what folders hold.
type usages struct {
	mu        sync.Mutex
	folders   map[string]*usage      // by id
	admitting map[string]*sync.Mutex // by owner; held from looking at the usage to the reservation
}

// usage is what one folder holds. Reserved is what uploads on their way will
// add; it is not part of bytes. Changes counts what was done to the folder by
// way of the server, so that a walk knows whether it has seen all of it.
type usage struct {
	measuring sync.Mutex // held during a walk; never waited for with mu of usages held

	bytes, files int64
	reserved     int64
	at           time.Time // of the measurement; zero when it counts no more
	changes      uint64
}

// of gives a folder's usage; the caller holds mu.
func (u *usages) of(id string) *usage {
	if u.folders == nil {
		u.folders = map[string]*usage{}
	}
	one := u.folders[id]
	if one == nil {
		one = &usage{}
		u.folders[id] = one
	}
	return one
}

// spoil makes the next question measure the folder again.
func (u *usages) spoil(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.of(id)
	one.at = time.Time{}
	one.changes++
}

// empty tells that a folder that is about to be made has nothing in it.
func (u *usages) empty(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.of(id).at = at
}

// add tells that something has been put into the folder.
func (u *usages) add(id string, bytes, files int64) { u.move(id, bytes, files, 0) }

// move is add for something that reserved room was used for.
func (u *usages) move(id string, bytes, files, reserved int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.of(id)
	one.bytes += bytes
	one.files += files
	one.reserved -= reserved
	one.changes++
}

// owner is the lock of one owner's admission.
func (u *usages) owner(key string) *sync.Mutex {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.admitting == nil {
		u.admitting = map[string]*sync.Mutex{}
	}
	if u.admitting[key] == nil {
		u.admitting[key] = &sync.Mutex{}
	}
	return u.admitting[key]
}

func (u *usages) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.folders, id)
}

// measure gives what a folder holds: what is known, if that is fresh, else by
// walking its tree.
func (s *Service) measure(ctx context.Context, f *backendai.VFolder) (bytes, files int64, err error) {
	s.usage.mu.Lock()
	one := s.usage.of(f.ID)
	s.usage.mu.Unlock()
	one.measuring.Lock()
	defer one.measuring.Unlock()
	fresh, err := s.fresh(ctx, f.ID, one)
	if err != nil {
		return 0, 0, err
	}
	if fresh {
		s.usage.mu.Lock()
		defer s.usage.mu.Unlock()
		return one.bytes, one.files, nil
	}
	s.usage.mu.Lock()
	before := one.changes
	s.usage.mu.Unlock()
	bytes, files, err = s.count(ctx, f)
	if err != nil {
		return 0, 0, err
	}
	if err := s.store.SetUsage(ctx, f.ID, bytes, files); err != nil && backendai.CodeOf(err) != backendai.CodeNotFound {
		return 0, 0, err
	}
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	one.bytes, one.files = bytes, files
	if one.changes == before {
		one.at = s.now()
	}
	return bytes, files, nil
}

// fresh tells whether what is known counts: nothing but the server has written
// since it was measured, or that was only just now.
func (s *Service) fresh(ctx context.Context, id string, one *usage) (bool, error) {
	s.usage.mu.Lock()
	at := one.at
	s.usage.mu.Unlock()
	if at.IsZero() {
		return false, nil
	}
	if s.now().Sub(at) < freshTime {
		return true, nil
	}
	sessions, err := s.store.FolderSessions(ctx, id)
	return len(sessions) == 0, err
}

// count walks a folder's tree. Files with several names count once, sparse
// files with their whole length.
func (s *Service) count(ctx context.Context, f *backendai.VFolder) (bytes, files int64, err error) {
	root, err := s.content(ctx, View{VFolder: f})
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return 0, 0, s.lost(f, err)
	}
	defer dir.Close()
	seen := map[uint64]bool{}
	err = walk(ctx, dir, func(n node) error {
		if n.mode.IsDir() {
			return nil
		}
		files++
		if n.links > 1 {
			if seen[n.inode] {
				return nil
			}
			seen[n.inode] = true
		}
		if n.mode.IsRegular() {
			bytes += n.size
		}
		return nil
	})
	return bytes, files, err
}

// remeasure brings a record's usage up to date, unless that takes too long.
func (s *Service) remeasure(ctx context.Context, f *backendai.VFolder) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	bytes, files, err := s.measure(ctx, f)
	if err != nil {
		s.log.Debug("folder is not measured", "vfolder", f.ID, "err", err)
		return
	}
	f.UsedBytes, f.UsedFiles = bytes, files
}

// quota is the most bytes that a folder may hold; 0 is no limit.
func (s *Service) quota(f *backendai.VFolder) int64 {
	if f.MaxSize > 0 {
		return f.MaxSize
	}
	return s.opts.FolderQuota
}

// reserve takes room for bytes more in a folder, or refuses what is more than
// the folder or its owner may hold. Release gives the room back; it may be
// called more than once.
func (s *Service) reserve(ctx context.Context, f *backendai.VFolder, bytes int64) (release func(), err error) {
	owner := s.usage.owner(f.UserID + "/" + f.Group)
	owner.Lock()
	defer owner.Unlock()
	if err := s.fits(ctx, f, bytes); err != nil {
		return nil, err
	}
	release = s.usage.take(f.ID, bytes)
	if s.dealt(f) {
		if err := s.deal(ctx, f.UserID); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// take reserves room without asking whether there is any.
func (u *usages) take(id string, bytes int64) (release func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.of(id).reserved += bytes
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.of(id).reserved -= bytes
	})
}

// fits refuses bytes that are more than the folder or its owner may hold.
// Without quotas nothing is measured.
func (s *Service) fits(ctx context.Context, f *backendai.VFolder, bytes int64) error {
	if limit := s.quota(f); limit > 0 {
		used, _, err := s.measure(ctx, f)
		if err != nil {
			return err
		}
		if used += s.reserved(f.ID); used+bytes > limit {
			return backendai.Errorf(backendai.CodeQuota, "the folder %q may hold %s, of which %s are used: %s more do not fit",
				f.Name, backendai.FormatSize(limit), backendai.FormatSize(used), backendai.FormatSize(bytes)).
				WithHint("remove files that you do not need, or ask the administrator for more").
				WithData(map[string]any{"limit": limit, "used": used, "asked": bytes})
		}
	}
	if s.opts.UserQuota == 0 || f.UserID == "" {
		return nil
	}
	folders, err := s.store.Folders(ctx, Query{OwnerID: f.UserID, Statuses: append(slices.Clone(live), backendai.FolderTrashed)})
	if err != nil {
		return err
	}
	var total int64
	for _, one := range folders {
		used, _, err := s.measure(ctx, one)
		if err != nil {
			return err
		}
		total += used + s.reserved(one.ID)
	}
	if total+bytes > s.opts.UserQuota {
		return backendai.Errorf(backendai.CodeQuota, "the folders of %s may hold %s, of which %s are used: %s more do not fit",
			f.Creator, backendai.FormatSize(s.opts.UserQuota), backendai.FormatSize(total), backendai.FormatSize(bytes)).
			WithHint("purge folders from the trash, remove files that you do not need, or ask the administrator for more").
			WithData(map[string]any{"limit": s.opts.UserQuota, "used": total, "asked": bytes})
	}
	return nil
}

func (s *Service) reserved(id string) int64 {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	return s.usage.of(id).reserved
}
