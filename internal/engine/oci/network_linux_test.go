package oci

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestUndisturbedLists(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		interruptions int
		end           error
		want          []int
		err           error
	}{
		"at once":     {0, nil, []int{1, 2}, nil},
		"interrupted": {3, nil, []int{1, 2}, nil},
		"broken":      {1, broken, nil, broken},
		"always":      {maxLists + 1, nil, []int{1}, netlink.ErrDumpInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got, err := undisturbed(func() ([]int, error) {
				if asked++; asked <= tt.interruptions {
					return []int{1}, netlink.ErrDumpInterrupted
				}
				if tt.end != nil {
					return nil, tt.end
				}
				return []int{1, 2}, nil
			})
			if !cmp.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
