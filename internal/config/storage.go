package config

import (
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"backendai"
)

// LocalHost is the storage host that every server has.
const LocalHost = "local:default"

// foldersDir is where LocalHost is in the state directory.
const foldersDir = "folders"

var hostRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$`)

// Hosts are the directories of the storage hosts by their names.
func (c *Config) Hosts() map[string]string {
	hosts := map[string]string{LocalHost: filepath.Join(c.StateDir, foldersDir)}
	maps.Copy(hosts, c.StorageHosts)
	return hosts
}

// Quotas are the most bytes of one folder and of all of one user, and the most
// folders of one user; 0 is no limit.
func (c *Config) Quotas() (folder, user int64, folders int) {
	size := func(text string) int64 {
		n, err := backendai.ParseSize(text)
		if err != nil {
			return 0
		}
		return n
	}
	folders, err := strconv.Atoi(c.MaxFolders)
	if err != nil {
		folders = 0
	}
	return size(c.FolderQuota), size(c.UserQuota), folders
}

// TrashTime is the trash-retention.
func (c *Config) TrashTime() time.Duration {
	d, err := parseDays(c.TrashRetention)
	if err != nil {
		return 0
	}
	return d
}

// Proxies are the trusted-proxies.
func (c *Config) Proxies() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range c.TrustedProxies {
		if p, err := parseNetwork(text); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// parseNetwork reads a network, or an address, which is a network of its own.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

func (c *Config) validateStorage(fault func(key, format string, args ...any)) {
	for _, name := range slices.Sorted(maps.Keys(c.StorageHosts)) {
		if !hostRE.MatchString(name) {
			fault("storage-hosts", "%q is not a name such as nas or nas:volume1", name)
		}
		if dir := c.StorageHosts[name]; !filepath.IsAbs(dir) {
			fault("storage-hosts", "%s: %q is not an absolute path", name, dir)
		}
	}
	if _, ok := c.Hosts()[c.DefaultHost]; !ok {
		fault("default-storage-host", "%q is none of the storage-hosts", c.DefaultHost)
	}
	for key, text := range map[string]string{"folder-quota": c.FolderQuota, "user-quota": c.UserQuota} {
		if _, err := backendai.ParseSize(text); err != nil && text != "" {
			fault(key, "%w", err)
		}
	}
	if n, err := strconv.Atoi(c.MaxFolders); c.MaxFolders != "" && (err != nil || n < 0) {
		fault("max-folders", "%q is not a number", c.MaxFolders)
	}
	if _, err := parseDays(c.TrashRetention); err != nil {
		fault("trash-retention", "%w", err)
	}
	for _, text := range c.TrustedProxies {
		if _, err := parseNetwork(text); err != nil {
			fault("trusted-proxies", "%q is neither an address nor a network", text)
		}
	}
}
