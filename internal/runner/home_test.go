package runner

import (
	"os"
	"path/filepath"
	"testing"

	"backendai/internal/control"
)

func TestFilesStayBelowTheHome(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	outside := filepath.Join(dir, "outside")
	for _, p := range []string{home, outside} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"folder": outside, "file": victim, "inner": "sub"} {
		if err := os.Symlink(target, filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	data := []byte("written")
	for _, c := range []struct {
		path string
		ok   bool
	}{
		{".bashrc", true}, {"sub/deep/file", true}, {".ssh/config", true},
		{"file", true}, // the link is replaced, its target is not
		{"folder/victim", false}, {"inner/file", false}, {".bashrc/x", false},
		{"../outside/victim", false}, {victim, false}, {".", false}, {"", false},
	} {
		err := writeFiles(home, []control.File{{Path: c.path, Mode: 0o640, Data: data}})
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.path, err)
			continue
		}
		if !c.ok {
			continue
		}
		info, err := os.Lstat(filepath.Join(home, c.path))
		if err != nil || info.Mode() != 0o640 {
			t.Errorf("%q: %v, %v", c.path, info, err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "untouched" {
		t.Errorf("outside of the home: %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(home, ".ssh")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf(".ssh: %v, %v", info, err)
	}
	// One that cannot be written does not keep the others back.
	err := writeFiles(home, []control.File{{Path: "../x"}, {Path: "after", Data: data}})
	if _, missing := os.Stat(filepath.Join(home, "after")); err == nil || missing != nil {
		t.Errorf("%v, %v", err, missing)
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) > 20 {
			t.Errorf("a temporary file is left: %s", e.Name())
		}
	}
}
