package vfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"backendai"
)

// wake lets the sweep run now.
func (s *Service) wake() {
	select {
	case s.sweeping <- struct{}{}:
	default: // it is about to run already
	}
}

// Run does what goes on in the background until ctx ends: what is set aside is
// deleted, the trash is emptied in time, uploads nobody comes back for go, and
// tasks run. It returns when they have ended.
func (s *Service) Run(ctx context.Context) error {
	if err := s.brokenClones(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	s.tasks.mu.Lock()
	s.tasks.ctx = ctx
	s.tasks.mu.Unlock()
	defer s.tasks.work.Wait()
	if err := s.dealAll(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("quotas of users are not dealt out", "err", err)
	}
	var dealing sync.WaitGroup
	dealing.Go(func() { s.keepDealing(ctx) })
	defer dealing.Wait()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("storage is not swept", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-s.sweeping:
		}
	}
}

// Sweep deletes everything that nobody needs any more.
func (s *Service) Sweep(ctx context.Context) error {
	errs := []error{s.emptyTrash(ctx)}
	folders, err := s.store.Folders(ctx, Query{})
	if err != nil {
		return err
	}
	known := make(map[string]*backendai.VFolder, len(folders)) // by host and id without dashes
	for _, f := range folders {
		known[f.Host+"/"+f.Hex()] = f
	}
	for host, dir := range s.opts.Hosts {
		if err := s.probe(ctx, host); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.removeAll(ctx, host, filepath.Join(dir, removedDir)))
		err := eachFolder(ctx, dir, func(id, folder string) {
			if f := known[host+"/"+id]; f != nil {
				errs = append(errs, s.sweepUploads(folder), s.catchUp(ctx, f, folder))
			} else {
				s.sweepUnknown(host, folder)
			}
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeAll deletes the folders that are aside on a host.
func (s *Service) removeAll(ctx context.Context, host, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		folder := filepath.Join(dir, e.Name())
		errs = append(errs, s.release(host, folder), os.RemoveAll(folder))
	}
	return errors.Join(errs...)
}

// eachFolder visits the directories of folders on a host.
func eachFolder(ctx context.Context, dir string, visit func(id, folder string)) error {
	first, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, a := range first {
		if len(a.Name()) != 2 || !a.IsDir() {
			continue
		}
		second, err := os.ReadDir(filepath.Join(dir, a.Name()))
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		for _, b := range second {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			visit(a.Name()+b.Name(), filepath.Join(dir, a.Name(), b.Name()))
		}
	}
	return nil
}

// sweepUnknown removes the empty directories of a folder that was being made
// when the server ended. Files of a folder that the database does not know stay:
// the database may have come from an old backup.
func (s *Service) sweepUnknown(host, folder string) {
	if info, err := os.Stat(folder); err != nil || s.now().Sub(info.ModTime()) < sweepEvery {
		return
	}
	for _, name := range []string{contentDir, stagingDir} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("directory belongs to no folder", "host", host, "dir", folder)
			return
		}
	}
	if err := errors.Join(s.release(host, folder), os.Remove(folder)); err != nil {
		s.log.Warn("directory belongs to no folder", "host", host, "dir", folder, "err", err)
	}
}

// sweepUploads removes the uploads of a folder that nobody goes on with.
func (s *Service) sweepUploads(folder string) error {
	entries, err := os.ReadDir(filepath.Join(folder, stagingDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep uploads: %w", err)
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(folder, stagingDir, e.Name())
		if u := s.uploads.get(e.Name()); u != nil && u.dir == dir {
			u.mu.Lock()
			idle := s.now().Sub(u.active)
			u.mu.Unlock()
			if idle > uploadTime {
				errs = append(errs, s.drop(u))
			}
			continue
		}
		if s.fills.has(dir) {
			continue
		}
		at, whole := lastChange(dir)
		idle := s.now().Sub(at)
		// Without its content an upload was published when the server ended.
		if idle > uploadTime || !whole && idle > time.Minute {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// lastChange is when an upload got its last byte, and whether its content is there.
func lastChange(dir string) (at time.Time, whole bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return time.Time{}, false
	}
	if info, err := os.Stat(dir); err == nil {
		at = info.ModTime()
	}
	for _, e := range entries {
		whole = whole || e.Name() == contentFile
		if info, err := e.Info(); err == nil && info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	return at, whole
}

// emptyTrash purges the folders that have been in the trash for TrashTime.
func (s *Service) emptyTrash(ctx context.Context) error {
	if s.opts.TrashTime <= 0 {
		return nil
	}
	folders, err := s.store.Folders(ctx, Query{Statuses: []backendai.FolderStatus{backendai.FolderTrashed, backendai.FolderDeleted}})
	if err != nil {
		return err
	}
	for _, f := range folders {
		if s.now().Sub(f.TrashedAt) < s.opts.TrashTime {
			continue
		}
		err := s.erase(ctx, f, func(f *backendai.VFolder) error { return s.store.DeleteFolder(ctx, f.ID) })
		if err != nil {
			s.log.Warn("folder stays in the trash", "vfolder", f.ID, "err", err)
		}
	}
	return nil
}
