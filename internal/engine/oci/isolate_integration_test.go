//go:build integration && linux

package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCgroupsAreTrimmed looks for hierarchies that sessions do not need, and for
// what runtimes would leave where one was hidden.
func TestCgroupsAreTrimmed(t *testing.T) {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return // there is one hierarchy
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d hierarchies, %v", len(entries), err)
	}
	for _, e := range entries {
		for _, c := range strings.Split(e.Name(), ",") {
			if !slices.Contains(usedHierarchies, c) {
				t.Errorf("%s is there", e.Name())
			}
		}
	}
	if err := os.Mkdir(filepath.Join(cgroupRoot, "unified"), 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("a folder beside the hierarchies: %v", err)
	}
}

// TestRuntimeIsSealed reads the program that the engine runs.
func TestRuntimeIsSealed(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		o := options(t.TempDir())
		o.Runtime = name
		e := openEngine(t, o)
		if e.runtime.copy == nil {
			t.Fatalf("%s is run from the disk", name)
		}
		seals, err := unix.FcntlInt(e.runtime.copy.Fd(), unix.F_GET_SEALS, 0)
		if want := unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL; err != nil || seals&want != want {
			t.Errorf("%s has the seals %#x, %v", name, seals, err)
		}
	}
}
