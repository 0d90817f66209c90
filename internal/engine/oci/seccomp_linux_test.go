package oci

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestIoctls: all are allowed but for two, whatever the size of their arguments
// and the bits that the kernel ignores.
func TestIoctls(t *testing.T) {
	profile, err := machine{}.filter()
	if err != nil {
		t.Fatal(err)
	}
	rules := slices.DeleteFunc(slices.Clone(profile.Syscalls), func(s specs.LinuxSyscall) bool { return !slices.Contains(s.Names, "ioctl") })
	allowed := func(request uint64) (allowed bool) {
		for _, r := range rules {
			if r.Action != specs.ActAllow || len(r.Args) != 1 || r.Args[0].Index != 1 || r.Args[0].Op != specs.OpMaskedEqual {
				t.Fatalf("an unknown rule: %+v", r)
			}
			allowed = allowed || request&r.Args[0].Value == r.Args[0].ValueTwo
		}
		return allowed
	}
	for request := range uint64(1 << 16) {
		if got, want := allowed(request), request != 0x6602 && request != 0x5820; got != want {
			t.Errorf("allowed(%#x) = %v, want %v", request, got, want)
		}
	}
	for request, want := range map[uint64]bool{
		0x40086602: false, 0x40046602: false, 0x401c5820: false, 0x1_401c5820: false, 0xffffffff_40086602: false,
		0x80086601: true, 0x801c581f: true, 0x5401: true, 0x40049409: true,
	} {
		if got := allowed(request); got != want {
			t.Errorf("allowed(%#x) = %v, want %v", request, got, want)
		}
	}
}
