//go:build integration && linux

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/engine/enginetest"
)

const (
	networkEnv = "BACKENDAI_TEST_NETWORK" // set in the process that has a network of its own
	builtEnv   = "BACKENDAI_TEST_BUILT"   // folder with the runner and the image
)

// TestMain gives the tests a network of their own, so that they neither see nor
// change the machine's, then a mount namespace as servers have it, and builds
// the runner and an image once.
func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare tests:", err)
		os.Exit(1)
	}
	unix.Umask(0o077) // as a careful service manager sets it
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	code := m.Run()
	if err := os.RemoveAll(os.Getenv(builtEnv)); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	os.Exit(code)
}

func prepare() error {
	if os.Getenv(networkEnv) == "" {
		if err := build(); err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), networkEnv+"=1"))
	}
	return Isolate()
}

// build makes root file systems of BusyBox, and the runners, the tests' own and
// the real one, unless they are there: .ci/vm has no compiler where it runs.
func build() error {
	if os.Getenv(builtEnv) == "" {
		dir, err := os.MkdirTemp("", "oci-test-")
		if err != nil {
			return err
		}
		if err := os.Setenv(builtEnv, dir); err != nil {
			return err
		}
		for name, source := range map[string]string{"runner": "./testdata/runner", "real": "../../../cmd/runner"} {
			cmd := exec.Command("go", "build", "-o", built(name), source)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build runner: %s: %w", out, err)
			}
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("the package busybox-static is needed: %w", err)
	}
	return errors.Join(buildImage(built("image"), busybox), buildOdd(built("odd"), busybox), buildBare(built("bare"), busybox))
}

// buildImage makes a small ordinary system with what an attacker would like to
// find in it.
func buildImage(dir string, busybox []byte) error {
	bin := filepath.Join(dir, "bin")
	for _, d := range []string{bin, filepath.Join(dir, "etc"), filepath.Join(dir, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755),
		os.Symlink("busybox", filepath.Join(bin, "sh")), os.Symlink("busybox", filepath.Join(bin, "sleep")),
		os.WriteFile(filepath.Join(bin, "su"), busybox, 0o755), os.Chmod(filepath.Join(bin, "su"), 0o4755),
		unix.Mknod(filepath.Join(dir, "memory"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))), os.Chmod(filepath.Join(dir, "memory"), 0o666),
		os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"), 0o644),
	)
}

// buildOdd makes a system whose files are where links and pipes lead nowhere.
func buildOdd(dir string, busybox []byte) error {
	for _, d := range []string{"var/home/node", "usr/bin", "real-etc", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "usr/bin/busybox"), busybox, 0o755),
		os.Symlink("usr/bin", filepath.Join(dir, "bin")),
		os.Symlink("/var/home", filepath.Join(dir, "home")),
		os.Symlink("../../../../../../tmp", filepath.Join(dir, "tmp")),
		os.Symlink("/nowhere", filepath.Join(dir, "proc")),
		os.Symlink("/proc/1/root", filepath.Join(dir, "opt")),
		os.Symlink("/etc/shadow", filepath.Join(dir, "etc/passwd")),
		unix.Mkfifo(filepath.Join(dir, "etc/group"), 0o644),
		os.Mkdir(filepath.Join(dir, "etc/hosts"), 0o755),
		os.Symlink("/run/systemd/resolve/stub-resolv.conf", filepath.Join(dir, "etc/resolv.conf")),
	)
}

// buildBare makes an image of one program and nothing else, no shell either.
func buildBare(dir string, busybox []byte) error {
	return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755))
}

func built(name string) string { return filepath.Join(os.Getenv(builtEnv), name) }

// folder is the images of the tests: plain folders.
type folder struct{}

func (folder) Layers(_ context.Context, digest, _ string) ([]string, error) {
	name, ok := map[string]string{"sha256:test": "image", "sha256:odd": "odd", "sha256:bare": "bare"}[digest]
	if !ok {
		return nil, backendai.NotFound("image", digest)
	}
	return []string{built(name)}, nil
}

func (folder) Release(context.Context, string) error { return nil }

func options(dir string) Options {
	return Options{
		StateDir: dir, RunDir: filepath.Join(dir, "run"), Images: folder{},
		Runner: built("runner"), Network: NetworkNone,
	}
}

// openEngine makes an engine that, at the end of the test, must leave nothing
// on the machine.
func openEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("make engine: %v", err)
	}
	t.Cleanup(func() { shut(t, e) })
	return e
}

// shut removes all sessions, closes the engine and looks for leftovers.
func shut(t testing.TB, e *Engine) {
	t.Helper()
	all, err := e.List(context.Background())
	if err != nil {
		t.Errorf("list: %v", err)
	}
	for _, c := range all {
		if err := e.Remove(context.Background(), c.ID, 0); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := e.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	nothingLeft(t, e)
}

// nothingLeft looks for anything on the machine that bears the engine's names.
func nothingLeft(t testing.TB, e *Engine) {
	t.Helper()
	entries, err := os.ReadDir(e.sessions)
	if err != nil || len(entries) != 0 {
		t.Errorf("the folder of sessions has %v, %v", entries, err)
	}
	for _, dir := range e.machine.cgroupDirs(e.names.cgroup()) {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("the cgroup %s is left", dir)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for _, dir := range []string{e.state, e.run} {
		if strings.Contains(string(mounts), dir) {
			t.Errorf("there are mounts below %s", dir)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Error(err)
	}
	for _, link := range links {
		if strings.Contains(link.Attrs().Name, e.names.key) {
			t.Errorf("the network device %s is left", link.Attrs().Name)
		}
	}
	packets, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := packets.ListTables()
	if err != nil {
		t.Error(err)
	}
	for _, table := range tables {
		if table.Name == e.names.table() {
			t.Errorf("the packet filter %s is left", table.Name)
		}
	}
	for _, pid := range pidsOf(t, e.names.cgroup()) {
		t.Errorf("process %d of a session is left", pid)
	}
	own, err := unix.Getsid(0)
	if err != nil {
		t.Error(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		t.Error(err)
	}
	for _, word := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(word); err == nil {
			// the others were children of an engine that was killed
			if ended, session := lookAt(pid); ended && session != own && session != pid {
				stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				t.Errorf("a process has ended and nobody waited for it: %s", stat)
			}
		}
	}
}

// pidsOf lists the living processes in a cgroup and those below it.
func pidsOf(t testing.TB, cgroup string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Error(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), cgroup) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if ended, _ := lookAt(pid); err == nil && !ended {
			pids = append(pids, pid)
		}
	}
	return pids
}

func driver(change func(*Options)) enginetest.Driver {
	return enginetest.Driver{
		Image: backendai.Image{Ref: "test", Digest: "sha256:test"}, Survives: true,
		Open: func(t *testing.T, dir string) (engine.Engine, func()) {
			o := options(dir)
			change(&o)
			e, err := New(t.Context(), o)
			if err != nil {
				t.Fatalf("make engine: %v", err)
			}
			return e, func() {
				if err := e.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		},
	}
}

func TestSuite(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"crun":              func(o *Options) { o.Runtime = "crun" },
		"runc":              func(o *Options) { o.Runtime = "runc" },
		"crun, nat":         func(o *Options) { o.Network = NetworkNAT },
		"crun, real runner": func(o *Options) { o.Runner = built("real") },
	} {
		t.Run(name, func(t *testing.T) { enginetest.Run(t, driver(change)) })
	}
}

func spec() engine.Spec { return enginetest.Spec(driver(nil)) }

func create(t testing.TB, e *Engine, s engine.Spec) engine.Spec {
	t.Helper()
	if err := e.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	return s
}

// call sends a request of the test runner's own language.
func call(t testing.TB, e *Engine, id, what string, form url.Values) (string, error) {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return e.Dial(ctx, id) },
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://runner/test/"+what, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, b)
	}
	return string(b), err
}

// inside runs a command in a session.
func inside(t testing.TB, e *Engine, id string, arg ...string) (string, error) {
	t.Helper()
	return call(t, e, id, "exec", url.Values{"arg": arg})
}

func shell(t testing.TB, e *Engine, id, script string) (string, error) {
	t.Helper()
	return inside(t, e, id, "/bin/busybox", "sh", "-c", script)
}

func mountOf(source, target string, readOnly bool) engine.Mount {
	return engine.Mount{Source: source, Target: target, ReadOnly: readOnly}
}

func ownerOf(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// run runs a program of the host.
func run(t testing.TB, name string, arg ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, arg...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
