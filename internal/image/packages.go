package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// aptArchives is where a machine that keeps its downloaded packages has them.
const aptArchives = "/var/cache/apt/archives"

// packages are the downloaded packages for one build: a folder of its own in the
// cache that all builds on the machine share, because the package manager locks
// and changes its folder. The files in both are the same by hard links.
type packages struct {
	cache string
	dir   string
	lock  *os.File // tells others that the folder is in use
	taken []string // names of the files that came from the cache
}

// checkOut makes the folder for a build. The caller closes it.
func checkOut(cache string) (_ *packages, err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of packages: %w", err)
	}
	all, err := lockFolder(cache, true)
	if err != nil {
		return nil, fmt.Errorf("lock folder of packages: %w", err)
	}
	defer all.Close()
	if err := sweepPackages(cache); err != nil {
		return nil, err
	}
	p := &packages{cache: cache}
	if p.dir, err = os.MkdirTemp(cache, "build-"); err != nil {
		return nil, fmt.Errorf("make folder of packages: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := os.Chmod(p.dir, 0o755); err != nil { // apt downloads as a user of its own
		return nil, fmt.Errorf("make folder of packages: %w", err)
	}
	if p.lock, err = lockFolder(p.dir, false); err != nil {
		return nil, fmt.Errorf("lock folder of packages: %w", err)
	}
	for _, from := range []string{cache, aptArchives} {
		files, _ := filepath.Glob(filepath.Join(from, "*.deb")) // the pattern is well formed
		for _, file := range files {
			name := filepath.Base(file)
			// what cannot be linked is downloaded
			if os.Link(file, filepath.Join(p.dir, name)) == nil && from == cache {
				p.taken = append(p.taken, name)
			}
		}
	}
	return p, nil
}

// sweepPackages removes the folders of builds that a crash ended. The caller has
// the cache locked.
func sweepPackages(cache string) error {
	folders, _ := filepath.Glob(filepath.Join(cache, "build-*")) // the pattern is well formed
	for _, dir := range folders {
		lock, err := lockFolder(dir, false)
		if err != nil {
			continue // in use
		}
		_ = lock.Close() // nothing was written
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove packages of an unfinished build: %w", err)
		}
	}
	return nil
}

// checkIn puts what the build downloaded into the cache. After a build that was
// complete, what the package manager found out of date leaves the cache. What
// fails here only costs another download.
func (p *packages) checkIn(complete bool) {
	files, _ := filepath.Glob(filepath.Join(p.dir, "*.deb")) // the pattern is well formed
	for _, file := range files {
		kept := filepath.Join(p.cache, filepath.Base(file))
		mine, err := os.Lstat(file)
		if err != nil {
			continue
		}
		if other, err := os.Lstat(kept); err == nil {
			if os.SameFile(mine, other) {
				continue
			}
			_ = os.Remove(kept) // one that was damaged: apt has fetched it anew
		}
		_ = os.Link(file, kept)
	}
	if !complete {
		return
	}
	for _, name := range p.taken {
		if _, err := os.Lstat(filepath.Join(p.dir, name)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Join(p.cache, name))
		}
	}
}

// close removes the build's folder; nothing may be mounted from it any more.
func (p *packages) close() error {
	err := os.RemoveAll(p.dir)
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("remove packages of the build: %w", err)
	}
	return nil
}
