//go:build integration && linux

package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backendai/internal/engine/enginetest"
)

// BenchmarkStart measures from Create to the runner's first answer. The metrics
// are medians; "cpu" is the processor time of start and removal together, the
// runtime's and the session's included.
func BenchmarkStart(b *testing.B) {
	for name, change := range map[string]func(*Options){
		"crun":     func(*Options) {},
		"crun+nat": func(o *Options) { o.Network = NetworkNAT },
		"runc":     func(o *Options) { o.Runtime = "runc" },
	} {
		b.Run(name, func(b *testing.B) {
			o := options(b.TempDir())
			o.Runner = built("real")
			change(&o)
			e := openEngine(b, o)
			var starts, creates, removes []time.Duration
			before := cpuTime(b)
			for b.Loop() {
				s := spec()
				s.Egress = o.Network == NetworkNAT
				began := time.Now()
				create(b, e, s)
				created := time.Now()
				if err := enginetest.Health(b.Context(), e, s); err != nil {
					b.Fatal(err)
				}
				ready := time.Now()
				if err := e.Remove(b.Context(), s.ID, 0); err != nil {
					b.Fatal(err)
				}
				creates = append(creates, created.Sub(began))
				starts = append(starts, ready.Sub(began))
				removes = append(removes, time.Since(ready))
			}
			b.ReportMetric(milliseconds(median(creates)), "create-ms")
			b.ReportMetric(milliseconds(median(starts)), "start-ms")
			b.ReportMetric(milliseconds(median(removes)), "remove-ms")
			b.ReportMetric(milliseconds(cpuTime(b)-before)/float64(b.N), "cpu-ms")
		})
	}
}

// BenchmarkBare is what Start is compared with: the runtime alone on the same
// specification, with /bin/true in place of the runner and nothing cached.
func BenchmarkBare(b *testing.B) {
	dir := b.TempDir()
	e := openEngine(b, options(dir))
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		b.Fatal(err)
	}
	config := e.machine.specify(container{
		spec: spec(), cgroup: e.names.session("bare"), rootfs: built("image"), home: home,
		runner: e.runner, seccomp: e.seccomp, // no path: the runtime makes the network namespace
	})
	config.Process.Args = []string{"/bin/busybox", "true"}
	if err := writeBundle(dir, config); err != nil {
		b.Fatal(err)
	}
	var runs []time.Duration
	for b.Loop() {
		began := time.Now()
		cmd := exec.Command(e.runtime.path, "--root", e.runtime.root, "run", "--bundle", dir, "bare")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s: %v", out, err)
		}
		runs = append(runs, time.Since(began))
	}
	b.ReportMetric(milliseconds(median(runs)), "run-ms")
}

// BenchmarkTogether starts many sessions at once and measures until the last
// one answers.
func BenchmarkTogether(b *testing.B) {
	for _, sessions := range []int{16, 100} {
		for _, network := range []string{NetworkNone, NetworkNAT} {
			b.Run(fmt.Sprintf("%d/%s", sessions, network), func(b *testing.B) {
				o := options(b.TempDir())
				o.Runner, o.Network = built("real"), network
				e := openEngine(b, o)
				var all, removes []time.Duration
				before := cpuTime(b)
				for b.Loop() {
					began := time.Now()
					ids := startAll(b, e, sessions)
					ready := time.Now()
					removeAll(b, e, ids)
					all = append(all, ready.Sub(began))
					removes = append(removes, time.Since(ready))
				}
				b.ReportMetric(milliseconds(median(all)), "start-ms")
				b.ReportMetric(milliseconds(median(removes)), "remove-ms")
				b.ReportMetric(milliseconds(cpuTime(b)-before)/float64(b.N*sessions), "cpu-ms/session")
			})
		}
	}
}

func startAll(t testing.TB, e *Engine, sessions int) []string {
	ids := make([]string, sessions)
	var group sync.WaitGroup
	for i := range sessions {
		group.Go(func() {
			s := spec()
			s.Egress = true
			ids[i] = s.ID
			if err := e.Create(t.Context(), s); err != nil {
				t.Errorf("create: %v", err)
			} else if err := enginetest.Health(t.Context(), e, s); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	return ids
}

func removeAll(t testing.TB, e *Engine, ids []string) {
	var group sync.WaitGroup
	for _, id := range ids {
		group.Go(func() {
			if err := e.Remove(context.WithoutCancel(t.Context()), id, 0); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
	group.Wait()
}

// BenchmarkDialPort measures a connection to an app, closed again.
func BenchmarkDialPort(b *testing.B) {
	e := openEngine(b, options(b.TempDir()))
	s := create(b, e, spec())
	if err := enginetest.Health(b.Context(), e, s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := e.DialPort(b.Context(), s.ID, 2200)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHundredAtOnce starts a hundred sessions together; each answers.
func TestHundredAtOnce(t *testing.T) {
	o := options(t.TempDir())
	o.Runner, o.Network = built("real"), NetworkNAT
	e := openEngine(t, o)
	ids := startAll(t, e, 100)
	removeAll(t, e, ids)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cpuTime is the processor time of this process and of all children that ended,
// sessions included.
func cpuTime(t testing.TB) time.Duration {
	var total time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			t.Fatal(err)
		}
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total
}
