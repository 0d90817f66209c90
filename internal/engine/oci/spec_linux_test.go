package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"backendai"
	"backendai/internal/engine"
)

func TestSpecification(t *testing.T) {
	for name, m := range map[string]machine{
		"cgroup v1":       {files: 1024, swapLimit: true},
		"cgroup v2":       {unified: true, files: 1 << 30, swapLimit: true, oomScore: 500},
		"no swap account": {files: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.specify(container{
				spec: engine.Spec{
					Hostname: "main1", Shmem: 1 << 20, Pids: 77,
					Slots: backendai.Slots{backendai.SlotCPU: 1, backendai.SlotMem: 1 << 30},
				},
				cgroup: "/group", rootfs: "/root", home: "/here", runner: "/runner", network: "/net",
				mounts: []engine.Mount{{Source: "/a", Target: "/data//x/", ReadOnly: true}},
			})
			checkProcess(t, m, s.Process)
			r := s.Linux.Resources
			if *r.Memory.Limit != 1<<30 || (r.Memory.Swap != nil) != m.swapLimit || *r.Pids.Limit != 77 || *r.CPU.Quota != 1000 || *r.CPU.Period != cpuPeriod {
				t.Errorf("resources: %+v", r)
			}
			if len(r.Devices) != 1 || r.Devices[0].Allow {
				t.Errorf("devices: %+v", r.Devices)
			}
			has := func(destination string, options ...string) {
				t.Helper()
				i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == destination })
				if i < 0 {
					t.Errorf("nothing is mounted at %s", destination)
					return
				}
				for _, o := range options {
					if !slices.Contains(s.Mounts[i].Options, o) && !strings.Contains(strings.Join(s.Mounts[i].Options, ","), o) {
						t.Errorf("the mount at %s has the options %v, without %s", destination, s.Mounts[i].Options, o)
					}
				}
			}
			has("/data/x", "ro", "nosuid", "nodev")
			has("/home/work", "nosuid", "nodev")
			has("/dev/shm", "size=1048576", "noexec")
			has("/sys", "ro")
			if m.unified {
				has("/sys/fs/cgroup", "ro")
			}
		})
	}
	if s := (machine{}).specify(container{}); s.Linux.Resources.Memory != nil || s.Linux.Resources.CPU != nil || *s.Linux.Resources.Pids.Limit != defaultPids {
		t.Errorf("without limits: %+v", s.Linux.Resources)
	}
}

func checkProcess(t *testing.T, m machine, p *specs.Process) {
	t.Helper()
	c := p.Capabilities
	if n := len(c.Bounding) + len(c.Effective) + len(c.Inheritable) + len(c.Permitted) + len(c.Ambient); n != 0 {
		t.Errorf("PID 1 has %d capabilities", n)
	}
	if p.User.UID != userID || p.User.GID != userID || !p.NoNewPrivileges || len(p.User.AdditionalGids) != 0 {
		t.Errorf("PID 1 is %+v", p.User)
	}
	// a limit above our own, or a score below, would need a right that root may lack
	for _, limit := range p.Rlimits {
		if limit.Type == "RLIMIT_NOFILE" && (limit.Hard > m.files || limit.Soft > limit.Hard) {
			t.Errorf("limit of open files: %+v", limit)
		}
	}
	if *p.OOMScoreAdj < m.oomScore {
		t.Errorf("oom score %d", *p.OOMScoreAdj)
	}
}
