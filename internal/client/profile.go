package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/BurntSushi/toml"

	"backendai"
)

// Profile is what a user's client needs to know of a server. Its file belongs
// to the user alone.
type Profile struct {
	Endpoint  string `toml:"endpoint"`
	AccessKey string `toml:"access_key"`
	SecretKey string `toml:"secret_key"`
	Domain    string `toml:"domain,omitempty"`
	Group     string `toml:"group,omitempty"`
}

// ProfilePath is where the profile of the user is: backend.ai/profile.toml in
// the user's configuration folder ($XDG_CONFIG_HOME where that is set).
func ProfilePath(getenv func(string) string) (string, error) {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = userDir(getenv, ".config", os.UserConfigDir); err != nil {
			return "", fmt.Errorf("find the configuration folder: %w", err)
		}
	}
	return filepath.Join(dir, "backend.ai", "profile.toml"), nil
}

// StateDir is where the client keeps what it can find out again: backend.ai in
// the user's state folder ($XDG_STATE_HOME where that is set).
func StateDir(getenv func(string) string) (string, error) {
	dir := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = userDir(getenv, filepath.Join(".local", "state"), os.UserCacheDir); err != nil {
			return "", fmt.Errorf("find the state folder: %w", err)
		}
	}
	return filepath.Join(dir, "backend.ai"), nil
}

// userDir is a folder below the home of getenv's environment on Linux, and what
// the system says elsewhere.
func userDir(getenv func(string) string, name string, system func() (string, error)) (string, error) {
	if home := getenv("HOME"); runtime.GOOS == "linux" && filepath.IsAbs(home) {
		return filepath.Join(home, name), nil
	}
	return system()
}

// ReadProfile reads the profile at path. A file that others may read is
// refused, since it holds a secret; one that does not exist is fs.ErrNotExist.
func ReadProfile(path string) (Profile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Profile{}, fmt.Errorf("read profile: %w", err)
	}
	if others := info.Mode().Perm() & 0o077; others != 0 && runtime.GOOS != "windows" {
		return Profile{}, backendai.Errorf(backendai.CodeForbidden, "the profile %s can be read by others (mode %04o)", path, info.Mode().Perm()).
			WithHint("it holds your secret key; run: chmod 600 %s", path)
	}
	var p Profile
	meta, err := toml.DecodeFile(path, &p)
	if err != nil {
		// The decoder's text quotes the line, which may be the secret.
		var parse toml.ParseError
		if errors.As(err, &parse) {
			return Profile{}, backendai.Errorf(backendai.CodeInvalidParams, "the profile %s is not valid TOML in line %d", path, parse.Position.Line).
				WithHint("each line has the form name = \"value\"")
		}
		return Profile{}, fmt.Errorf("read profile: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Profile{}, backendai.Errorf(backendai.CodeInvalidParams, "the profile %s has the unknown key %q", path, unknown[0].String()).
			WithHint("the keys are endpoint, access_key, secret_key, domain and group")
	}
	return p, nil
}

// WriteProfile writes the profile at path for its owner alone (mode 0600) and
// makes the folders above it. A reader sees the old file or the new one whole.
func WriteProfile(path string, p Profile) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	f, err := os.CreateTemp(dir, ".profile-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	err = toml.NewEncoder(f).Encode(p)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write profile: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// readProfileIfAny is ReadProfile for a file that need not exist.
func readProfileIfAny(path string) (p Profile, found bool, err error) {
	if path == "" {
		return Profile{}, false, nil
	}
	p, err = ReadProfile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Profile{}, false, nil
	}
	return p, err == nil, err
}
