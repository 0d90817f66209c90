package oci

import (
	"fmt"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The calls by which the owner of a file can take it out of its project, and with
// that out of the quota of its folder: the type and number of an ioctl, which are
// its lower 16 bits. Above are the size of its argument and what the kernel ignores.
const (
	setFlags      = 'f'<<8 | 2  // FS_IOC_SETFLAGS: that what is made in a directory inherits the project
	setAttributes = 'X'<<8 | 32 // FS_IOC_FSSETXATTR: the project
)

// filter is the seccomp profile of every session: what moby allows a process
// without capabilities, but for the calls that evade quotas.
func (m machine) filter() (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(m.specify(container{}))
	if err != nil {
		return nil, fmt.Errorf("make seccomp profile: %w", err)
	}
	for i := range profile.Syscalls {
		s := &profile.Syscalls[i]
		s.Names = slices.DeleteFunc(s.Names, func(name string) bool { return name == "ioctl" })
	}
	for _, p := range allBut([]uint64{setFlags, setAttributes}, pattern{}, 1) {
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{
			Names: []string{"ioctl"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpMaskedEqual, Value: p.mask, ValueTwo: p.value}},
		})
	}
	return profile, nil
}

// pattern is the numbers whose bits below a mask have a value.
type pattern struct{ mask, value uint64 }

// allBut gives patterns of all numbers of 16 bits, with any bits above, but for
// some: a profile can only allow, and only what equals something. The patterns
// are within one that the numbers fit, and differ from bit on.
func allBut(numbers []uint64, within pattern, bit uint64) []pattern {
	if bit == 1<<16 {
		return nil
	}
	var found []pattern
	for _, value := range []uint64{bit, 0} {
		half := pattern{within.mask | bit, within.value | value}
		var rest []uint64
		for _, n := range numbers {
			if n&bit == value {
				rest = append(rest, n)
			}
		}
		if len(rest) == 0 {
			found = append(found, half)
		} else {
			found = append(found, allBut(rest, half, bit<<1)...)
		}
	}
	return found
}
