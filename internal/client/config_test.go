package client_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/client"
)

func lookup(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestLoadConfig(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "sub", "profile.toml")
	if err := client.WriteProfile(profile, client.Profile{Endpoint: "https://profile", AccessKey: "AKIAPROFILE", SecretKey: "from profile", Group: "lab"}); err != nil {
		t.Fatal(err)
	}
	got, err := client.LoadConfig(lookup(map[string]string{
		"BACKEND_ENDPOINT": " http://one:1 ,, https://two/path ", "SORNA_ACCESS_KEY": "AKIAOLD", "BACKEND_VFOLDER_MOUNTS": "a, b",
		"BACKEND_SKIP_SSLCERT_VALIDATION": "T", "BACKEND_CONNECTION_TIMEOUT": "0.5",
	}), profile)
	want := []any{
		[]string{"http://one:1", "https://two/path"}, "AKIAOLD", "from profile", "default", "lab", []string{"a", "b"}, true, 500 * time.Millisecond,
	}
	read := []any{got.Endpoints, got.AccessKey, got.SecretKey, got.Domain, got.Group, got.Mounts, got.SkipTLSVerify, got.ConnectTimeout}
	if diff := cmp.Diff(want, read); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for name, from := range map[string]string{
		"ENDPOINT": "BACKEND_ENDPOINT", "ACCESS_KEY": "SORNA_ACCESS_KEY", "SECRET_KEY": profile, "DOMAIN": "default", "GROUP": profile,
		"VFOLDER_MOUNTS": "BACKEND_VFOLDER_MOUNTS", "SKIP_SSLCERT_VALIDATION": "BACKEND_SKIP_SSLCERT_VALIDATION", "READ_TIMEOUT": "default",
	} {
		if got.Sources[name] != from {
			t.Errorf("%s comes from %q, not from %q", name, got.Sources[name], from)
		}
	}
	got, err = client.LoadConfig(lookup(nil), "")
	if err != nil || len(got.Endpoints) != 1 || got.Endpoints[0] != client.DefaultEndpoint || got.ConnectTimeout != 10*time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"BACKEND_ENDPOINT": "ftp://x", "SORNA_ENDPOINT": "http://", "BACKEND_ENDPOINT_TYPE": "session",
		"BACKEND_SKIP_SSLCERT_VALIDATION": "perhaps", "BACKEND_READ_TIMEOUT": "-1", "BACKEND_CONNECTION_TIMEOUT": "NaN",
	} {
		_, err := client.LoadConfig(lookup(map[string]string{name: bad}), "")
		problemOf(t, err, backendai.CodeInvalidParams, name, bad)
	}
}

func TestProfile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "profile.toml")
	want := client.Profile{Endpoint: "http://127.0.0.1:8090", AccessKey: "AKIA", SecretKey: `with "quotes" and \`}
	for range 2 {
		if err := client.WriteProfile(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.ReadProfile(path)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		_, err = client.ReadProfile(path)
		problemOf(t, err, backendai.CodeForbidden, path, "0640")
	}
	if _, err := client.ReadProfile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for text, part := range map[string]string{"secret_key = " + secretKey: "line 1", "secret_key = \"x\"\nsecrt = 1": `"secrt"`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := client.ReadProfile(path)
		problemOf(t, err, backendai.CodeInvalidParams, path, part)
	}
}

func TestPlaces(t *testing.T) {
	abs := t.TempDir()
	for name, f := range map[string]func(func(string) string) (string, error){"XDG_CONFIG_HOME": client.ProfilePath, "XDG_STATE_HOME": client.StateDir} {
		got, err := f(lookup(map[string]string{name: abs}))
		if err != nil || !strings.HasPrefix(got, filepath.Join(abs, "backend.ai")) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if runtime.GOOS != "linux" {
			continue
		}
		// A relative one does not count, as the standard says.
		got, err = f(lookup(map[string]string{name: "relative", "HOME": abs}))
		if err != nil || !strings.HasPrefix(got, filepath.Join(abs, ".")) {
			t.Errorf("HOME: %q, %v", got, err)
		}
	}
}
