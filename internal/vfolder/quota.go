package vfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"backendai"
)

// Sessions write into their folders without asking the server, so only the file
// system can refuse them a byte. Where it enforces project quotas (ext4 and XFS
// mounted with prjquota, Linux 5.14 or later), every folder is a project: its
// content and what is being uploaded beside it carry the project's number, which
// everything that is made there inherits, and the project has a hard limit. All
// is kept in the file system alone; the number is on the folder's own directory.
//
// A new folder is a project from the beginning, with a quota or without. One that
// was made before, or copied from elsewhere, is walked once, in the background of
// a sweep, when it has a quota and no session mounts it: while the walk goes on,
// nothing that has no number yet can be renamed into a directory that has. No start
// of a session walks, or waits for a walk. Links and pipes of such a folder stay
// outside, for they have no blocks to speak of; programs move them by copying.
//
// The accounting of the server goes on beside this: it counts the lengths of
// files where a file system counts blocks, and ext4 holds root to no limit. XFS
// does, so there an upload that replaces a file needs room for both. What does not
// fit fails with EDQUOT on ext4 and, as on a full disk, with ENOSPC on XFS.

// The numbers of folders' projects, far from those that people give, and from
// those of container engines, which count from below.
const (
	firstProject = 1 << 30
	projectCount = 1 << 30
)

// projects knows whose file systems enforce project quotas.
type projects struct {
	mu       sync.Mutex      // also held from the choice of a number until a directory has it
	enforced map[string]bool // by storage host
}

// enforces tells whether a storage's file system can hold folders to their
// quotas. It asks the file system once. A storage that is part of a project
// already is left to whoever limits that.
func (s *Service) enforces(host string) (bool, error) {
	s.projects.mu.Lock()
	defer s.projects.mu.Unlock()
	if on, known := s.projects.enforced[host]; known {
		return on, nil
	}
	dir, err := os.Open(s.opts.Hosts[host])
	if err != nil {
		return false, fmt.Errorf("ask for project quotas: %w", err)
	}
	defer dir.Close()
	on := os.Geteuid() == 0 && enforcesProjects(dir)
	if on {
		id, err := projectOf(dir)
		if err != nil {
			return false, fmt.Errorf("ask for the project of %s: %w", dir.Name(), err)
		}
		if on = id == 0; on {
			s.log.Info("file system holds folders to their quotas", "host", host)
		} else {
			s.log.Warn("storage host is in a project: its folders get none of their own", "host", host, "project", id)
		}
	}
	if s.projects.enforced == nil {
		s.projects.enforced = map[string]bool{}
	}
	s.projects.enforced[host] = on
	return on, nil
}

// restrict makes a folder a project, if it is none yet, and limits it.
func (s *Service) restrict(ctx context.Context, f *backendai.VFolder, dir string) error {
	on, err := s.enforces(f.Host)
	if err != nil || !on {
		return err
	}
	if err := s.enroll(ctx, f, dir); err != nil {
		return err
	}
	return s.limit(f, dir)
}

// catchUp restricts a folder that was not when it was made, and renews the limit
// of one that was: the quota in the settings may be another than then.
func (s *Service) catchUp(ctx context.Context, f *backendai.VFolder, dir string) error {
	on, err := s.enforces(f.Host)
	if err != nil || !on {
		return err
	}
	_, whole, err := folderProject(dir)
	if err == nil && !whole && s.hardLimit(f) > 0 {
		var sessions []string
		if sessions, err = s.store.FolderSessions(ctx, f.ID); err == nil && len(sessions) == 0 {
			if err = s.enroll(ctx, f, dir); err == nil {
				s.log.Info("file system holds the folder to its quota from now on", "vfolder", f.ID)
			}
		}
	}
	if err != nil {
		err = fmt.Errorf("make folder %s a project: %w", f.ID, err)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	fresh, readErr := s.store.Folder(ctx, f.ID)
	if readErr != nil {
		return err // it is purged
	}
	return errors.Join(err, s.limit(fresh, dir)) // what is in the project is limited, even when not all can be
}

// enroll makes a folder a project. The directory of uploads gets the number first,
// so that it is in use and found again; the folder's own last, when all is done.
func (s *Service) enroll(ctx context.Context, f *backendai.VFolder, dir string) error {
	id, whole, err := folderProject(dir)
	if err != nil || whole {
		return err
	}
	if id == 0 {
		if id, err = s.newProject(f, filepath.Join(dir, stagingDir)); err != nil {
			return err
		}
	}
	for _, name := range []string{stagingDir, contentDir} {
		if err := joinTree(ctx, filepath.Join(dir, name), id); err != nil {
			return err
		}
	}
	return join(dir, id)
}

// newProject chooses a number that nobody uses on the file system, and gives it
// to a directory.
func (s *Service) newProject(f *backendai.VFolder, dir string) (uint32, error) {
	s.projects.mu.Lock()
	defer s.projects.mu.Unlock()
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	id, err := chooseProject(f.Hex(), func(id uint32) (bool, error) { return projectFree(d, id) })
	if err != nil {
		return 0, fmt.Errorf("choose a project for folder %s: %w", f.ID, err)
	}
	return id, setProject(d, id, true)
}

// chooseProject gives the first free number from the one on that a folder's id,
// which is random, begins with.
func chooseProject(hex string, free func(uint32) (bool, error)) (uint32, error) {
	start, err := strconv.ParseUint(hex[:8], 16, 32)
	if err != nil {
		return 0, err
	}
	const attempts = 1000
	for i := range uint64(attempts) {
		id := firstProject + uint32((start+i)%projectCount)
		if ok, err := free(id); err != nil || ok {
			return id, err
		}
	}
	return 0, fmt.Errorf("%d numbers from %d on are in use", attempts, firstProject+start%projectCount)
}

// folderProject is the number of a folder's project, 0 when it has none, and
// whether nothing is left to be done to make the folder one. That is so too when
// somebody else has put it into a project, which stays.
func folderProject(dir string) (id uint32, whole bool, err error) {
	for _, name := range ownDirs(dir) {
		d, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, false, err
		}
		got, err := projectOf(d)
		d.Close()
		switch {
		case err != nil:
			return 0, false, fmt.Errorf("ask for a project: %w", err)
		case got == 0:
		case got < firstProject || got >= firstProject+projectCount:
			return 0, true, nil
		case id == 0:
			id, whole = got, name == dir
		}
	}
	return id, whole, nil
}

// join gives a directory a project, and all that will be made in it.
func join(dir string, id uint32) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return setProject(d, id, true)
}

// joinTree gives a directory and all that is below it a project. Directories come
// before what is in them, so nothing is missed that is made meanwhile.
func joinTree(ctx context.Context, dir string, id uint32) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := setProject(d, id, true); err != nil {
		return err
	}
	return walk(ctx, d, func(n node) error {
		if !n.mode.IsDir() && !n.mode.IsRegular() {
			return nil
		}
		f, err := openAt(n.parent, n.name, 0)
		if err != nil {
			return nil // it has gone, or is another thing now
		}
		defer f.Close()
		return setProject(f, id, n.mode.IsDir())
	})
}

// limit tells the file system how much a folder may hold. Of one that is no
// project yet nothing changes.
func (s *Service) limit(f *backendai.VFolder, dir string) error {
	if s.dealt(f) {
		return nil // with what the owner has left it gets another limit soon
	}
	return s.limitTo(f, dir, s.hardLimit(f))
}

// limitTo is limit with a number of bytes; 0 is no limit.
func (s *Service) limitTo(f *backendai.VFolder, dir string, most int64) error {
	d, id, err := s.project(f.Host, dir)
	if d == nil {
		return err
	}
	defer d.Close()
	bytes := uint64(most)
	if bytes > 0 {
		if bytes, err = blocksFor(bytes, ownDirs(dir)...); err != nil {
			return err
		}
	}
	return limitProject(d, id, bytes)
}

// hardLimit is the most bytes that a folder may come to; 0 is no limit.
func (s *Service) hardLimit(f *backendai.VFolder) int64 {
	limit := s.quota(f)
	if all := s.opts.UserQuota; all > 0 && f.UserID != "" && (limit == 0 || all < limit) {
		return all
	}
	return limit
}

// blocksFor is how much room files with so many bytes take in all, in whole
// blocks, with the first block of each of the directories that are the server's.
func blocksFor(bytes uint64, dirs ...string) (uint64, error) {
	var room uint64
	for _, dir := range dirs {
		taken, block, err := diskUse(dir)
		if err != nil {
			return 0, err
		}
		bytes = (bytes + block - 1) / block * block
		room += min(taken, block)
	}
	const most = 1 << 62 // what file systems take
	return min(bytes+room, most), nil
}

// release removes the limit of a folder whose directory is about to go.
func (s *Service) release(host, dir string) error {
	d, id, err := s.project(host, dir)
	if d == nil {
		return err
	}
	defer d.Close()
	return limitProject(d, id, 0)
}

// project opens a folder's directory and tells its project. It is nil, without an
// error, where the folder is none.
func (s *Service) project(host, dir string) (*os.File, uint32, error) {
	on, err := s.enforces(host)
	if err != nil || !on {
		return nil, 0, err
	}
	id, _, err := folderProject(dir)
	if err != nil || id == 0 {
		return nil, 0, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, 0, err
	}
	return d, id, nil
}
