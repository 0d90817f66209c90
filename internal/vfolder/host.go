package vfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"backendai"
)

// The names below a storage host and below a folder's directory.
const (
	markFile   = ".backend.ai" // tells a storage from the empty directory that it is mounted on
	removedDir = ".removed"    // folders whose files are being deleted
	contentDir = "data"
	stagingDir = "upload"
)

// contentID owns the content on the host when the server may choose: sessions
// run as this user.
const contentID = 1000

// probeTime is how long a storage may take to answer before a session is refused.
const probeTime = 5 * time.Second

// makeHosts checks the storage hosts; the default one is made.
func (s *Service) makeHosts() error {
	if _, ok := s.opts.Hosts[s.opts.DefaultHost]; !ok {
		return backendai.Errorf(backendai.CodeInvalidParams, "the default storage host %q is none of the storage hosts", s.opts.DefaultHost).
			WithHint("name it in storage-hosts")
	}
	if err := os.MkdirAll(s.opts.Hosts[s.opts.DefaultHost], 0o711); err != nil {
		return backendai.Errorf(backendai.CodeUnavailable, "the directory of the storage host %q cannot be made: %w", s.opts.DefaultHost, err).
			WithHint("check the directory in storage-hosts")
	}
	return nil
}

// Hosts names the storage hosts and the default one.
func (s *Service) Hosts() (names []string, standard string) {
	return slices.Sorted(maps.Keys(s.opts.Hosts)), s.opts.DefaultHost
}

// Space is how many bytes a storage host has left, and has in all.
func (s *Service) Space(ctx context.Context, host string) (free, total int64, err error) {
	if err := s.probe(ctx, host); err != nil {
		return 0, 0, err
	}
	dir, err := s.hostDir(ctx, host)
	if err != nil {
		return 0, 0, err
	}
	return freeSpace(dir)
}

// hostDir is the directory of a storage host that is there.
func (s *Service) hostDir(ctx context.Context, host string) (string, error) {
	dir, ok := s.opts.Hosts[host]
	if !ok {
		return "", backendai.Errorf(backendai.CodeUnavailable, "there is no storage host %q any more", host).
			WithHint("the administrator names the storage hosts in the server's configuration")
	}
	mark := filepath.Join(dir, markFile)
	_, err := os.Lstat(mark)
	if err == nil {
		return dir, nil
	}
	gone := func(err error) error {
		s.log.Error("storage host is not there", "host", host, "err", err)
		return backendai.Errorf(backendai.CodeUnavailable, "the storage host %q is not there: %w", host, err).
			WithHint("is its file system mounted on the server? ask the administrator")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", gone(err)
	}
	// A directory without the mark is new, or the empty one below a missing mount.
	folders, err := s.store.Folders(ctx, Query{Host: host})
	if err != nil {
		return "", err
	}
	if len(folders) > 0 {
		return "", gone(fmt.Errorf("%s does not exist, but there are %d folders", mark, len(folders)))
	}
	if err := os.WriteFile(mark, []byte("the folders of a Backend.AI server\n"), 0o600); err != nil {
		return "", gone(err)
	}
	return dir, nil
}

// folderDir is the directory of a folder's record on its host.
func (s *Service) folderDir(ctx context.Context, f *backendai.VFolder) (string, error) {
	dir, err := s.hostDir(ctx, f.Host)
	if err != nil {
		return "", err
	}
	hex := f.Hex()
	return filepath.Join(dir, hex[:2], hex[2:]), nil
}

// makeDir makes the directories of a new folder, which belong to the sessions' user.
func (s *Service) makeDir(ctx context.Context, dir string, f *backendai.VFolder) error {
	mode := fs.FileMode(0o755)
	if f.Name == ".ssh" {
		mode = 0o700 // sshd wants it
	}
	err := os.MkdirAll(filepath.Dir(dir), 0o711)
	if err == nil {
		err = os.Mkdir(dir, 0o711)
	}
	for _, name := range []string{stagingDir, contentDir} {
		if err == nil {
			err = os.Mkdir(filepath.Join(dir, name), 0o700)
		}
	}
	if err == nil {
		spread(filepath.Join(dir, stagingDir))
		err = giveAway(filepath.Join(dir, contentDir), mode)
	}
	if err == nil {
		err = s.restrict(ctx, f, dir)
	}
	if err != nil {
		s.discard(f.Host, dir)
		return fullDisk(f.Name, err)
	}
	return nil
}

// discard removes the directories of a folder that was not to be; why it was not
// tells more than what else may go wrong.
func (s *Service) discard(host, dir string) {
	_ = s.release(host, dir)
	_ = os.RemoveAll(dir)
}

// giveAway makes the sessions' user own a directory that nobody else can reach yet.
func giveAway(dir string, mode fs.FileMode) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, contentID, contentID); err != nil {
			return err
		}
	}
	return os.Chmod(dir, mode)
}

// own makes the sessions' user own what was made in a folder.
func own(root *os.Root, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return root.Lchown(name, contentID, contentID)
}

// content opens what a user sees of a folder. The caller closes it.
func (s *Service) content(ctx context.Context, v View) (*os.Root, error) {
	dir, err := s.folderDir(ctx, v.VFolder)
	if err != nil {
		return nil, err
	}
	if v.base != "" {
		if err := s.makeBase(dir, v); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(filepath.Join(dir, contentDir))
	if err != nil {
		return nil, s.lost(v.VFolder, err)
	}
	if v.base == "" {
		return root, nil
	}
	defer root.Close()
	part, err := root.OpenRoot(v.base)
	if err != nil {
		return nil, s.lost(v.VFolder, err)
	}
	return part, nil
}

// makeBase makes the part of a project's folder that one member has alone.
func (s *Service) makeBase(dir string, v View) error {
	root, err := os.OpenRoot(filepath.Join(dir, contentDir))
	if err != nil {
		return s.lost(v.VFolder, err)
	}
	defer root.Close()
	err = root.Mkdir(v.base, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = own(root, v.base)
	}
	if err != nil {
		return fullDisk(v.Name, err)
	}
	return nil
}

// lost is the error of a folder whose directory cannot be opened.
func (s *Service) lost(f *backendai.VFolder, err error) error {
	s.log.Error("folder cannot be opened", "vfolder", f.ID, "host", f.Host, "err", err)
	return backendai.Errorf(backendai.CodeVFolderFailed, "the files of the folder %q cannot be reached on the storage host %s: %w", f.Name, f.Host, err).
		WithHint("ask the administrator")
}

// probes are the storage hosts that are being asked whether they answer: a
// network file system whose server is gone blocks whoever touches it.
type probes struct {
	mu      sync.Mutex
	pending map[string]chan struct{}
}

// probe tells whether a storage answers in time. At most one goroutine for each
// host hangs with it.
func (s *Service) probe(ctx context.Context, host string) error {
	s.probes.mu.Lock()
	done, asked := s.probes.pending[host]
	if !asked {
		done = make(chan struct{})
		if s.probes.pending == nil {
			s.probes.pending = map[string]chan struct{}{}
		}
		s.probes.pending[host] = done
		go func() {
			_, _ = os.Lstat(filepath.Join(s.opts.Hosts[host], markFile)) // whether it answers is what counts
			s.probes.mu.Lock()
			delete(s.probes.pending, host)
			s.probes.mu.Unlock()
			close(done)
		}()
	}
	s.probes.mu.Unlock()
	timer := time.NewTimer(probeTime)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		s.log.Error("storage host does not answer", "host", host)
		return backendai.Errorf(backendai.CodeUnavailable, "the storage host %q does not answer", host).
			WithHint("its file system hangs on the server; ask the administrator")
	}
}
