package oci

import (
	"path"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"backendai"
	"backendai/internal/engine"
)

const (
	runnerPath  = "/opt/kernel/runner"
	defaultPids = 4096
	cpuPeriod   = 100_000 // microseconds
	bpfKey      = "run.oci.seccomp_bpf_data"

	// limits of open files; the soft one stays where programs that close every
	// descriptor up to it do not notice
	softFiles = 65536
	hardFiles = 1 << 20
)

// machine is what a container's specification must know of the host.
type machine struct {
	unified   bool     // cgroup v2 alone
	roots     []string // where cgroups are mounted
	swapLimit bool     // the kernel limits swap per cgroup
	files     uint64   // this process's own hard limit of open files
	oomScore  int      // this process's own oom_score_adj
}

// container is one container to specify.
type container struct {
	spec    engine.Spec
	cgroup  string
	rootfs  string
	home    string
	runner  string
	network string         // path of the network namespace
	mounts  []engine.Mount // with sources that are bound as they are
	seccomp *specs.LinuxSeccomp
	program string // the compiled seccomp program in base64; "" lets the runtime compile
}

// specify writes the runtime's specification of a container.
func (m machine) specify(c container) *specs.Spec {
	s := &specs.Spec{
		Version:  "1.0.2", // the newest that both crun 1.8 and runc 1.1 take
		Hostname: c.spec.Hostname,
		Root:     &specs.Root{Path: c.rootfs},
		Process:  m.process(),
		Mounts:   m.mounts(c),
		Linux: &specs.Linux{
			CgroupsPath: c.cgroup,
			Resources:   m.resources(c.spec),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
				{Type: specs.NetworkNamespace, Path: c.network},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/scsi", "/proc/timer_list", "/proc/sched_debug",
				"/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Seccomp:       c.seccomp,
		},
	}
	if c.program != "" {
		s.Annotations = map[string]string{bpfKey: c.program}
	}
	return s
}

// process is PID 1: the session's user from its first instruction on.
func (m machine) process() *specs.Process {
	hard := min(m.files, hardFiles)
	score := max(m.oomScore, 100) // before the server and the host's daemons
	return &specs.Process{
		User: specs.User{UID: userID, GID: userID},
		Args: []string{runnerPath},
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cwd:  "/",
		Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{}, Effective: []string{}, Inheritable: []string{},
			Permitted: []string{}, Ambient: []string{},
		},
		NoNewPrivileges: true,
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Hard: hard, Soft: min(hard, softFiles)},
			{Type: "RLIMIT_CORE", Hard: 1, Soft: 1}, // 0 would not keep a dump from the host's handler, core(5)
		},
		OOMScoreAdj: &score,
	}
}

func (m machine) mounts(c container) []specs.Mount {
	shm := "mode=1777"
	if c.spec.Shmem > 0 {
		shm += ",size=" + strconv.FormatInt(c.spec.Shmem, 10)
	} else {
		shm += ",size=64m"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", shm}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		bind(c.home, homePath, false),
		bind(c.runner, runnerPath, true),
	}
	mounts = append(mounts, m.limitsInside(c.cgroup)...)
	for _, v := range c.mounts {
		mounts = append(mounts, bind(v.Source, path.Clean(v.Target), v.ReadOnly))
	}
	return mounts
}

// limitsInside shows a session its own cgroup, by which programs learn what they
// may use, and the runner that the memory limit has killed something. Of cgroup
// v1 only the two hierarchies that are asked for, since each costs a mount.
func (m machine) limitsInside(cgroup string) []specs.Mount {
	const inside = "/sys/fs/cgroup"
	if m.unified {
		return []specs.Mount{{
			Destination: inside, Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		}}
	}
	return []specs.Mount{
		{Destination: inside, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "nodev", "mode=755", "size=64k"}},
		bind(cgroupRoot+"/memory"+cgroup, inside+"/memory", true),
		bind(cgroupRoot+"/cpu"+cgroup, inside+"/cpu", true),
	}
}

func bind(source, target string, readOnly bool) specs.Mount {
	options := []string{"bind", "nosuid", "nodev"}
	if readOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}
}

func (m machine) resources(s engine.Spec) *specs.LinuxResources {
	pids := int64(s.Pids)
	if pids <= 0 {
		pids = defaultPids
	}
	r := &specs.LinuxResources{
		// the runtime adds null, zero, full, random, urandom, tty and terminals
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Pids:    &specs.LinuxPids{Limit: &pids},
	}
	if mem := s.Slots[backendai.SlotMem]; mem > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &mem}
		if m.swapLimit {
			r.Memory.Swap = &mem // memory and swap together: no swap
		}
	}
	if cpu := s.Slots[backendai.SlotCPU]; cpu > 0 {
		period := uint64(cpuPeriod)
		quota := max(cpu*cpuPeriod/1000, 1000) // the kernel takes no less than a millisecond
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	return r
}
