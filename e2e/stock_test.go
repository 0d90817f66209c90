//go:build integration

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// stockCache keeps built images between runs: building takes minutes.
const stockCache = "/var/cache/backend.ai-e2e"

// stockImages gives the folder of an image store with the stock images, which
// nobody may change; cloneImages makes one to work with.
var stockImages = sync.OnceValues(func() (string, error) {
	key, err := stockKey()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(stockCache, key)
	if now := time.Now(); os.Chtimes(dir, now, now) == nil {
		return dir, nil
	}
	if err := os.MkdirAll(stockCache, 0o700); err != nil {
		return "", err
	}
	if err := dropOldImages(); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(stockCache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintln(os.Stderr, "building the stock images, once for all runs on this machine")
	p := newPlatform(scratch)
	if err := p.boot(); err != nil {
		return "", err
	}
	for _, name := range []string{"base", "python"} {
		cmd := exec.Command(program, "image", "build", name)
		cmd.Env = p.admin.env
		if out, err := cmd.CombinedOutput(); err != nil {
			p.kill()
			return "", fmt.Errorf("build image %s: %w\n%s", name, err, out[max(0, len(out)-4000):])
		}
	}
	if err := p.stop(); err != nil {
		return "", err
	}
	images := filepath.Join(scratch, "server", "images")
	if err := os.RemoveAll(filepath.Join(images, "packages")); err != nil { // serves later builds only
		return "", err
	}
	if err := os.Rename(images, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else another run was faster
			return "", err
		}
	}
	return dir, nil
})

// dropOldImages removes what nobody has made use of lately: images of other
// recipes, and what runs that were cut off had begun to build.
func dropOldImages() error {
	entries, err := os.ReadDir(stockCache)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < 24*time.Hour {
			continue // another run may have removed it, or be at it
		}
		if err := os.RemoveAll(filepath.Join(stockCache, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// stockKey names what the stock images are made of: the recipes, and the code
// that builds and stores.
func stockKey() (string, error) {
	sum := sha256.New()
	for _, pattern := range []string{"../images/*.toml", "../internal/image/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %d\n%s", file, len(text), text)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// cloneImages makes a copy of an image store. The files of images are shared by
// hard links, for sessions only read them; databases are copied.
func cloneImages(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-al", from, to).CombinedOutput(); err != nil {
		// Another file system takes no links.
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if again, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			return fmt.Errorf("copy images: %w: %s%s", err, out, again)
		}
		return nil
	}
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "fs" && d.IsDir():
			return filepath.SkipDir // the files of a layer
		case filepath.Ext(path) != ".db":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
}
