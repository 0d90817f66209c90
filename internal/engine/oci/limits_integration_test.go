//go:build integration && linux

package oci

import (
	"bufio"
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
	"backendai/internal/engine/enginetest"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// exits watches an engine and gives a function that waits for the next exit.
func exits(t *testing.T, e *Engine) func() engine.Exit {
	t.Helper()
	ends, err := e.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func() engine.Exit {
		t.Helper()
		select {
		case end := <-ends:
			return end
		case <-time.After(patience):
			t.Fatal("no exit was told")
			return engine.Exit{}
		}
	}
}

func TestExits(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		next := exits(t, e)
		s := create(t, e, spec())
		_, _ = call(t, e, s.ID, "exit", url.Values{"code": {"3"}}) // the answer may not come any more
		if got := next(); got.ID != s.ID || got.Code != 3 || got.Reason != backendai.ReasonSelfTerminated || got.OOM {
			t.Errorf("an exit with 3 is told as %+v", got)
		}
		s = create(t, e, spec())
		if err := e.byID[s.ID].signal(9); err != nil {
			t.Fatal(err)
		}
		if got := next(); got.ID != s.ID || got.Code != 137 || got.OOM || !strings.Contains(got.Detail, "SIGKILL") {
			t.Errorf("a kill from outside is told as %+v", got)
		}
	})
}

func TestMemoryLimit(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		next := exits(t, e)
		sp := spec()
		sp.Slots[backendai.SlotMem] = 64 << 20
		s := create(t, e, sp)
		// A greedy process dies, and the session goes on …
		if out, err := shell(t, e, s.ID, "tail /dev/zero"); err == nil {
			t.Errorf("a process took more memory than the session has: %s", out)
		}
		if err := enginetest.Health(t.Context(), e, s); err != nil {
			t.Errorf("after a process was killed: %v", err)
		}
		// … unless it is PID 1.
		_, _ = call(t, e, s.ID, "eat", nil)
		got := next()
		if got.ID != s.ID || got.Code != 137 || got.Reason != backendai.ReasonOutOfMemory || !got.OOM {
			t.Errorf("the end by the memory limit is told as %+v", got)
		}
	})
}

func TestProcessLimit(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		sp := spec()
		sp.Pids = 64
		s := create(t, e, sp)
		// what cannot fork any more goes on trying, and what is there stays
		_, _ = shell(t, e, s.ID, "exec >/dev/null 2>&1; f() { f & f & sleep 1000; }; f & i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done")
		if n := len(pidsOf(t, e.names.session(s.ID))); n > 64 {
			t.Errorf("the session has %d processes", n)
		}
		if err := enginetest.Health(t.Context(), e, s); err != nil {
			t.Errorf("after a fork bomb: %v", err)
		}
		if err := e.Stop(t.Context(), s.ID, patience); err != nil {
			t.Error(err)
		}
	})
}

func TestProcessorLimit(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		sp := spec()
		sp.Slots[backendai.SlotCPU] = 200
		s := create(t, e, sp)
		began := time.Now()
		out := must(t, e, s.ID, "timeout 1 sh -c 'while :; do :; done' & timeout 1 sh -c 'while :; do :; done' & wait; times >/tmp/times; tail -n 1 /tmp/times")
		took := time.Since(began)
		used := time.Duration(0)
		for _, part := range strings.Fields(out) { // 0m0.123s
			d, err := time.ParseDuration(part)
			if err != nil {
				t.Fatalf("times printed %q", out)
			}
			used += d
		}
		if share := used.Seconds() / took.Seconds(); share > 0.35 || used == 0 {
			t.Errorf("a session with a fifth of a processor had %.2f of one", share)
		}
	})
}

func TestSharedMemoryLimit(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		sp := spec()
		sp.Shmem = 8 << 20
		s := create(t, e, sp)
		must(t, e, s.ID, "head -c 7000000 /dev/zero >/dev/shm/x")
		if out, err := shell(t, e, s.ID, "head -c 9000000 /dev/zero >/dev/shm/x"); err == nil {
			t.Errorf("more shared memory than the limit: %s, %v", out, err)
		}
	})
}

// A session that fills its disk leaves what the file system reserves for root.
func TestDiskReserve(t *testing.T) {
	disk := smallDisk(t, 192<<20)
	o := options(filepath.Join(disk, "state"))
	e := openEngine(t, o)
	s := create(t, e, spec())
	for _, file := range []string{"/tmp/fill", "/home/work/fill"} {
		if out, err := shell(t, e, s.ID, "cat /dev/zero >"+file); err == nil || !strings.Contains(out, "No space left") {
			t.Fatalf("filling the disk by %s: %s, %v", file, out, err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "host"), make([]byte, 4<<20), 0o600); err != nil {
		t.Errorf("the host has no space after a session filled the disk: %v", err)
	}
	other := spec()
	err := e.Create(t.Context(), other)
	if backendai.CodeOf(err) != backendai.CodeUnavailable || !strings.Contains(err.Error(), "left") {
		t.Errorf("a session on a full disk: %v", err)
	}
	if err := e.Remove(t.Context(), s.ID, 0); err != nil {
		t.Fatal(err)
	}
	create(t, e, other)
}

// smallDisk mounts a file system of its own with a reserve of a tenth for root.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-m", "10", image)
	run(t, "mount", "-o", "loop", image, point)
	t.Cleanup(func() {
		if err := unmount(point); err != nil {
			t.Error(err)
		}
	})
	return point
}

func TestLogOfPID1(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		s := create(t, e, spec())
		if err := enginetest.Health(t.Context(), e, s); err != nil {
			t.Fatal(err)
		}
		r, err := e.Logs(t.Context(), s.ID, 1000)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var text [1000]byte
		n, _ := r.Read(text[:])
		if want := "runner of " + s.ID + "\n"; string(text[:n]) != want {
			t.Errorf("the log is %q, want %q", text[:n], want)
		}
	})
}

// What the limits of a session are in the cgroup that the runtime made.
func TestLimitsInCgroup(t *testing.T) {
	runtimes(t, func(t *testing.T, e *Engine) {
		sp := spec()
		sp.Slots = backendai.Slots{backendai.SlotCPU: 1500, backendai.SlotMem: 96 << 20}
		sp.Pids = 77
		s := create(t, e, sp)
		files := map[string]string{
			"memory.max": strconv.Itoa(96 << 20), "cpu.max": "150000 100000", "pids.max": "77",
		}
		dir := cgroupRoot
		if !e.machine.unified {
			files = map[string]string{
				"/memory/memory.limit_in_bytes": strconv.Itoa(96 << 20), "/memory/memory.memsw.limit_in_bytes": strconv.Itoa(96 << 20),
				"/cpu/cpu.cfs_quota_us": "150000", "/cpu/cpu.cfs_period_us": "100000", "/pids/pids.max": "77",
			}
		}
		own := map[string]string{"/sys/fs/cgroup/memory.max": strconv.Itoa(96 << 20)}
		if !e.machine.unified {
			own = map[string]string{
				"/sys/fs/cgroup/memory/memory.limit_in_bytes": strconv.Itoa(96 << 20), "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
			}
		}
		for file, want := range own {
			if got := must(t, e, s.ID, "cat "+file); got != want {
				t.Errorf("the session sees %q in %s, want %q", got, file, want)
			}
			if _, err := shell(t, e, s.ID, "echo -1 >"+file); err == nil {
				t.Errorf("the session can change %s", file)
			}
		}
		for file, want := range files {
			at := dir + e.names.session(s.ID) + "/" + file
			if !e.machine.unified {
				hierarchy, name := filepath.Split(file)
				at = dir + hierarchy + e.names.session(s.ID) + "/" + name
			}
			if got := word(at); got != want {
				t.Errorf("%s is %q, want %q", at, got, want)
			}
		}
	})
}

// The real runner, too, lives on when its session has no process left to have.
func TestRunnerOutlivesForkBomb(t *testing.T) {
	o := options(t.TempDir())
	o.Runner = built("real")
	e := openEngine(t, o)
	s := spec()
	s.Pids = 96
	// what fails to fork ends; what it has forked stays
	s.Runner.Batch = &control.Batch{Command: "sh -c 'while :; do sleep 1000 & done'; echo full; exec sleep 1000"}
	create(t, e, s)
	runner := control.NewClient(func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, s.ID) }, s.Runner.Secret)
	defer runner.Close()
	log, err := runner.Logs(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	for lines := bufio.NewScanner(log); lines.Scan() && lines.Text() != "full"; {
		t.Log(lines.Text())
	}
	if n := len(pidsOf(t, e.names.session(s.ID))); n < 20 {
		t.Fatalf("the bomb has left only %d processes", n)
	}
	var group sync.WaitGroup
	for range 25 { // each takes a thread of the runner for a moment
		group.Go(func() {
			if _, err := runner.Apps(t.Context()); err != nil {
				t.Errorf("after a fork bomb: %v", err)
			}
			if _, err := runner.Start(t.Context(), "no-such-app", control.StartRequest{}); backendai.CodeOf(err) != backendai.CodeNotFound {
				t.Errorf("after a fork bomb: %v", err)
			}
			c, err := e.DialPort(t.Context(), s.ID, backendai.PortSSHD)
			if err != nil {
				t.Errorf("after a fork bomb: %v", err)
				return
			}
			defer c.Close()
			if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "SSH-2.0-") {
				t.Errorf("after a fork bomb the SSH server says %q, %v", line, err)
			}
		})
	}
	group.Wait()
	next := exits(t, e)
	if err := e.Stop(t.Context(), s.ID, patience); err != nil {
		t.Error(err)
	}
	if got := next(); got.Reason != backendai.ReasonTaskFailed && got.Reason != backendai.ReasonUserRequested {
		t.Errorf("the end of the session is told as %+v", got)
	}
}

// A batch command that runs into the memory limit is told so.
func TestBatchOutOfMemory(t *testing.T) {
	o := options(t.TempDir())
	o.Runner = built("real")
	e := openEngine(t, o)
	s := spec()
	s.Slots[backendai.SlotMem] = 64 << 20
	s.Runner.Batch = &control.Batch{Command: "/bin/busybox tail /dev/zero; exit 5"}
	create(t, e, s)
	runner := control.NewClient(func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, s.ID) }, s.Runner.Secret)
	defer runner.Close()
	var got control.Event
	err := runner.Events(t.Context(), func(event control.Event) bool {
		got = event
		return event.Type != control.EventBatchFinished
	})
	if err != nil || got.ExitCode != 5 || got.Reason != backendai.ReasonOutOfMemory || !got.OOM {
		t.Errorf("the end of the command is told as %+v, %v", got, err)
	}
	next := exits(t, e)
	if err := e.Stop(t.Context(), s.ID, patience); err != nil {
		t.Error(err)
	}
	if end := next(); end.Reason != backendai.ReasonOutOfMemory || !end.OOM || end.Code != 5 {
		t.Errorf("the end of the session is told as %+v", end)
	}
}
