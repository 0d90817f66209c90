package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"backendai"
)

// distribution is what the server runs on.
type distribution struct {
	id       string // debian
	release  string // 12; "" for one that has none yet
	codename string // bookworm
}

// name is as in debian12.
func (d distribution) name() string {
	if d.release == "" {
		return d.id + "-" + d.codename
	}
	return d.id + d.release
}

// readDistribution reads an os-release file (os-release(5)).
func readDistribution(path string) (distribution, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return distribution{}, fmt.Errorf("find out the distribution: %w", err)
	}
	var d distribution
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			d.id = value
		case "VERSION_ID":
			d.release = value
		case "VERSION_CODENAME":
			d.codename = value
		}
	}
	if d.id == "" || d.codename == "" {
		return d, backendai.Errorf(backendai.CodeUnavailable, "images can be built on Debian, Ubuntu and their kin only").
			WithHint("pull an image with: backend.ai image pull REGISTRY/NAME:TAG; or load a file with: backend.ai image import FILE")
	}
	return d, nil
}

// aptSources lists the files that say where a machine's packages come from.
func aptSources(dir string) ([]string, error) {
	var all []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("find apt sources: %w", err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("find apt sources: %w", err)
			}
			if namesSource(data) {
				all = append(all, f)
			}
		}
	}
	if len(all) == 0 {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the server has no apt sources in %s", dir).
			WithHint("images are built from the packages that apt-get can install on the server")
	}
	return all, nil
}

// namesSource tells whether a file of apt sources, in either form, has one.
func namesSource(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("deb ")) || bytes.HasPrefix(line, []byte("deb\t")) || bytes.HasPrefix(line, []byte("Types:")) {
			return true
		}
	}
	return false
}

// hostAptOptions are the options by which apt reaches its sources on this
// machine: proxies, time limits, checks. Without apt there are none.
func hostAptOptions(ctx context.Context) []byte {
	dump, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil
	}
	var options []byte
	for line := range bytes.Lines(dump) {
		if bytes.HasPrefix(line, []byte("Acquire::")) {
			options = append(options, line...)
		}
	}
	return options
}

// quote makes one word of s for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
