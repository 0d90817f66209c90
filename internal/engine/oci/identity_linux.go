package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"backendai/internal/engine"
)

// identity is what a session's /etc says of it and its surroundings.
type identity struct {
	hostname string
	address  string // on the session's network; "" without one
	resolver resolver
}

// write makes the files of an identity in dir and gives them as mounts.
func (who identity) write(dir string) ([]engine.Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make session's etc: %w", err)
	}
	address := who.address
	if address == "" {
		address = "127.0.0.1"
	}
	var mounts []engine.Mount
	for _, file := range []struct{ name, content string }{
		{"hostname", who.hostname + "\n"},
		{"hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + address + "\t" + who.hostname + "\n"},
		{"resolv.conf", who.resolver.file()},
	} {
		source := filepath.Join(dir, file.name)
		if err := os.WriteFile(source, []byte(file.content), 0o644); err != nil {
			return nil, fmt.Errorf("write session's etc: %w", err)
		}
		mounts = append(mounts, engine.Mount{Source: source, Target: "/etc/" + file.name, ReadOnly: true})
	}
	return mounts, nil
}

// makeHome makes a session's home unless it is there, with the directory .ssh that
// every session gets. A cgroup that the first page of a directory was charged to
// stays in the kernel after the session, until that page goes; and with each that
// stays all starts get slower.
func makeHome(dir string) error {
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("make home: %w", err)
	}
	keys := filepath.Join(dir, ".ssh")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return fmt.Errorf("make home: %w", err)
	}
	for _, name := range []string{keys, dir} {
		if err := os.Lchown(name, userID, userID); err != nil {
			return fmt.Errorf("give home to its user: %w", err)
		}
	}
	return nil
}
