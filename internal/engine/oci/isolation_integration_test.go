//go:build integration && linux

package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runtimes runs a test with each of the runtimes that the engine is made for.
func runtimes(t *testing.T, test func(t *testing.T, e *Engine)) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir())
			o.Runtime = name
			test(t, openEngine(t, o))
		})
	}
}

// must runs a script in a session that has to succeed, and gives what it prints.
func must(t testing.TB, e *Engine, id, script string) string {
	t.Helper()
	out, err := shell(t, e, id, script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(out)
}

func TestProcessesHaveNoRights(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		s := create(t, e, spec())
		for _, process := range []string{"1", "self"} {
			status := must(t, e, s.ID, "cat /proc/"+process+"/status")
			for _, line := range []string{
				"Uid:\t1000\t1000\t1000\t1000", "Gid:\t1000\t1000\t1000\t1000", "Groups:\t",
				"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
				"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
			} {
				if !slices.Contains(strings.Split(strings.ReplaceAll(status, " \n", "\n"), "\n"), line) {
					t.Errorf("process %s has no %q in\n%s", process, line, status)
				}
			}
		}
		if limits := must(t, e, s.ID, "grep core /proc/self/limits"); strings.Join(strings.Fields(limits), " ") != "Max core file size 1 1 bytes" {
			t.Errorf("core dumps: %s", limits)
		}
		for _, space := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup"} {
			host, err := os.Readlink("/proc/self/ns/" + space)
			if err != nil {
				t.Fatal(err)
			}
			if in := must(t, e, s.ID, "readlink /proc/self/ns/"+space); in == host {
				t.Errorf("the session is in the host's namespace %s", host)
			}
		}
	})
}

func TestEscapesAreRefused(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		s := create(t, e, spec())
		for _, what := range []string{
			"raw-socket", "packet-socket", "ptrace-init", "keyctl", "userns", "setuid", "mount", "mknod", "bpf", "io-uring", "vsock",
			"init-memory", "init-environ", "init-root", "init-fd", "init-exe", "pidfd-getfd", "vm-readv",
			"leave-project", "leave-project-long", "leave-inheritance",
		} {
			out, err := inside(t, e, s.ID, runnerPath, "try", what)
			if err != nil || !strings.HasPrefix(out, "refused: ") {
				t.Errorf("%s: %s, %v", what, out, err)
			}
		}
		if out, err := inside(t, e, s.ID, runnerPath, "try", "nothing"); err != nil || out != "done\n" {
			t.Errorf("what is allowed: %s, %v", out, err)
		}
	})
}

func TestFilesOfTheKernel(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		s := create(t, e, spec())
		for _, masked := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
			if out := must(t, e, s.ID, "head -c 100 "+masked+" 2>/dev/null || true"); out != "" {
				t.Errorf("%s can be read", masked)
			}
		}
		for _, masked := range []string{"/sys/firmware", "/proc/scsi"} {
			if out := must(t, e, s.ID, "ls "+masked+" 2>/dev/null || true"); out != "" {
				t.Errorf("%s has %s", masked, out)
			}
		}
		for _, fixed := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/etc/hosts", "/etc/passwd", "/dev/x", "/opt/kernel/runner"} {
			if _, err := shell(t, e, s.ID, "echo x >>"+fixed); err == nil {
				t.Errorf("%s can be written", fixed)
			}
		}
		for line := range strings.Lines(must(t, e, s.ID, "cat /proc/mounts")) {
			point, flags := strings.Fields(line)[1], strings.Split(strings.Fields(line)[3], ",")
			switch {
			case strings.HasPrefix(point, "/proc/"), strings.HasPrefix(point, "/sys/"), point == "/dev", strings.HasPrefix(point, "/dev/"):
				continue // the runtime's own
			case point == "/" && e.runtime.isCrun():
				continue // crun mounts it anew without any flags
			}
			if !slices.Contains(flags, "nosuid") || !slices.Contains(flags, "nodev") {
				t.Errorf("a mount has rights: %s", line)
			}
		}
	})
}

func TestDevices(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		s := create(t, e, spec())
		want := []string{"/dev/full", "/dev/null", "/dev/ptmx", "/dev/pts/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"}
		got := strings.Fields(must(t, e, s.ID, "find /dev -type c -o -type b | sort; readlink -f /dev/ptmx >/dev/null"))
		got = slices.DeleteFunc(got, func(name string) bool { return name == "/dev/ptmx" })
		want = slices.DeleteFunc(want, func(name string) bool { return name == "/dev/ptmx" }) // a link or a node
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("devices: %s", diff)
		}
		if _, err := shell(t, e, s.ID, "head -c 1 /memory"); err == nil {
			t.Error("a device node of the image works")
		}
		must(t, e, s.ID, "head -c 1 /dev/zero >/dev/null; echo x >/dev/null; head -c 1 /dev/urandom >/dev/null")
		if id := must(t, e, s.ID, "ln -s /bin/su /tmp/id; /tmp/id -u"); id != "1000" {
			t.Errorf("a set-user-ID program runs as %s", id)
		}
	})
}

func TestIdentity(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		sp := spec()
		sp.Hostname = "main1"
		s := create(t, e, sp)
		for script, want := range map[string]string{
			"hostname; cat /etc/hostname":              "main1\nmain1",
			"grep main1 /etc/hosts":                    "127.0.0.1\tmain1",
			"grep -c . /etc/resolv.conf":               "1",
			"grep :1000: /etc/passwd":                  "work:x:1000:1000:work:/home/work:/bin/sh",
			"id":                                       "uid=1000(work) gid=1000(work)",
			"cut -d: -f1 /etc/passwd | tr '\n' ' '":    "root daemon work",
			"stat -c '%u %a' /home/work /tmp":          "1000 755\n0 1777",
			"touch /home/work/x /tmp/x && echo made":   "made",
			"touch /x /etc/x /usr 2>/dev/null || echo": "",
		} {
			if got := must(t, e, s.ID, script); got != want {
				t.Errorf("%s: %q, want %q", script, got, want)
			}
		}
	})
}

// An image may be made with bad intent, or with nothing in it.
func TestOddImages(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		odd := spec()
		odd.Image.Digest = "sha256:odd"
		create(t, e, odd)
		got := must(t, e, odd.ID, "cat /etc/passwd /etc/group /etc/resolv.conf; touch /tmp/x /home/work/x; ls -d /opt/kernel/runner; readlink /proc/self")
		if !strings.Contains(got, "work:x:1000") || strings.Contains(got, "shadow") {
			t.Errorf("an odd image shows %s", got)
		}
		if _, err := os.Stat("/tmp/x"); err == nil {
			t.Error("the image's link led out of it")
		}
		bare := spec()
		bare.Image.Digest = "sha256:bare"
		create(t, e, bare)
		out, err := inside(t, e, bare.ID, "/busybox", "sh", "-c", "id -un; echo x >/tmp/x; cat /tmp/x; ls /")
		want := "work\nx\nbusybox\ndev\netc\nhome\nopt\nproc\nsys\ntmp\n"
		if err != nil || out != want {
			t.Errorf("an image of one program gives %q, %v, want %q", out, err, want)
		}
	})
}

// A folder of any owner belongs to the session's user inside.
func TestMounts(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		dir := t.TempDir()
		sp := spec()
		for i, owner := range []int{0, 1000, 12345} {
			folder := filepath.Join(dir, fmt.Sprint(owner))
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "old"), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{folder, filepath.Join(folder, "old")} {
				if err := os.Chown(name, owner, owner); err != nil {
					t.Fatal(err)
				}
			}
			sp.Mounts = append(sp.Mounts, mountOf(folder, fmt.Sprintf("/home/work/data/%d", i), false), mountOf(folder, fmt.Sprintf("/mnt/%d", i), true))
		}
		s := create(t, e, sp)
		for i, owner := range []int{0, 1000, 12345} {
			at := fmt.Sprintf("/home/work/data/%d", i)
			got := must(t, e, s.ID, "cat "+at+"/old; echo new >"+at+"/new; stat -c ' %U' "+at+"/new; touch /mnt/"+fmt.Sprint(i)+"/x 2>/dev/null || echo fixed")
			if got != "old work\nfixed" {
				t.Errorf("a folder of owner %d: %q", owner, got)
			}
			info, err := os.Stat(filepath.Join(dir, fmt.Sprint(owner), "new"))
			if err != nil || ownerOf(info) != owner {
				t.Errorf("a new file in a folder of owner %d: %v, %v", owner, info, err)
			}
		}
		missing := spec()
		missing.Mounts = append(missing.Mounts, mountOf(filepath.Join(dir, "missing"), "/mnt/x", false))
		if err := e.Create(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "/mnt/x") {
			t.Errorf("a missing folder: %v", err)
		}
	})
}
