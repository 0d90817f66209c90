package vfolder

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"backendai"
)

func TestChooseProject(t *testing.T) {
	used := map[uint32]bool{1<<31 - 1: true, 1 << 30: true, 1<<30 + 1: true}
	free := func(id uint32) (bool, error) { return !used[id], nil }
	for hex, want := range map[string]uint32{
		"00000002aaaa": 1<<30 + 2, "00000000aaaa": 1<<30 + 2, "ffffffffaaaa": 1<<30 + 2, "3fffffffaaaa": 1<<30 + 2, "12345678aaaa": 1<<30 + 0x12345678,
		"92345678aaaa": 1<<30 + 0x12345678,
	} {
		if got, err := chooseProject(hex, free); err != nil || got != want {
			t.Errorf("chooseProject(%q) = %#x, %v, want %#x", hex, got, err, want)
		}
	}
	if _, err := chooseProject("12345678", func(uint32) (bool, error) { return false, nil }); err == nil {
		t.Error("a number is free where none is")
	}
	ill := errors.New("the file system is ill")
	if _, err := chooseProject("12345678", func(uint32) (bool, error) { return false, ill }); !errors.Is(err, ill) {
		t.Errorf("%v, want %v", err, ill)
	}
}

func TestHardLimit(t *testing.T) {
	for _, c := range []struct {
		folder, user, own int64
		project           bool
		want              int64
	}{
		{0, 0, 0, false, 0},
		{10, 0, 0, false, 10},
		{10, 0, 20, false, 20}, // a superadmin gave it more
		{10, 100, 0, false, 10},
		{100, 10, 0, false, 10},
		{0, 10, 0, false, 10},
		{0, 10, 0, true, 0},
	} {
		f := &backendai.VFolder{UserID: "alice", MaxSize: c.own}
		if c.project {
			f.UserID, f.Group = "", "default"
		}
		s := &Service{opts: Options{FolderQuota: c.folder, UserQuota: c.user}}
		if got := s.hardLimit(f); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestBlocks(t *testing.T) {
	dir := t.TempDir()
	taken, block, err := diskUse(dir)
	if err != nil || block == 0 {
		t.Fatal(taken, block, err)
	}
	own := min(taken, block)
	for bytes, want := range map[uint64]uint64{1: block + 2*own, block: block + 2*own, block + 1: 2*block + 2*own, 1<<63 - 1: 1 << 62} {
		if got, err := blocksFor(bytes, dir, dir); err != nil || got != want {
			t.Errorf("blocksFor(%d) = %d, %v, want %d", bytes, got, err, want)
		}
	}
}

// TestKernelStructs: what the kernel reads and writes has the size that it expects.
func TestKernelStructs(t *testing.T) {
	if got := [3]uintptr{unsafe.Sizeof(attributes{}), unsafe.Sizeof(quotaRecord{}), unsafe.Sizeof(quotaState{})}; got != [3]uintptr{28, 72, 160} {
		t.Errorf("sizes are %v", got)
	}
}

// TestWithoutProjects: on file systems that enforce no project quotas folders are
// as before, and asking for their limits does no harm.
func TestWithoutProjects(t *testing.T) {
	dir, err := os.Open("/dev/shm")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if enforcesProjects(dir) {
		t.Error("a file system in memory enforces project quotas")
	}
	if id, whole, err := folderProject("/proc/self"); id != 0 || whole || err == nil {
		t.Errorf("folderProject = %d, %v, %v on what has no attributes", id, whole, err)
	}
}
