package ttyd

import (
	"context"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkFlood measures how fast a viewer gets the output of a program that
// never stops, against a plain read of a PTY in the same run.
func BenchmarkFlood(b *testing.B) {
	const script = "stty -echo; echo up; read go; exec yes 'a line of output as compilers write it, of eighty characters or so, and no more.'"
	const piece = 1 << 20
	var raw float64
	b.Run("raw", func(b *testing.B) {
		master, end := rawPTY(b, script, "up\r\n")
		defer end()
		buf := make([]byte, readSize)
		_, _ = master.WriteString("\n")
		b.SetBytes(piece)
		b.ResetTimer()
		start := time.Now()
		for range b.N {
			for n := 0; n < piece; {
				m, err := master.Read(buf)
				if err != nil {
					b.Fatal(err)
				}
				n += m
			}
		}
		raw = float64(b.N) * piece / time.Since(start).Seconds()
		b.StopTimer()
	})
	b.Run("viewer", func(b *testing.B) {
		r := serve(b, script)
		c := r.connect(b, "", std, &resume{})
		c.wait("up\r\n")
		c.sink = func([]byte) {}
		c.typed("\n")
		from := c.offset
		b.SetBytes(piece)
		b.ResetTimer()
		start := time.Now()
		c.until("output", func() bool { return c.offset-from >= uint64(b.N)*piece })
		rate := float64(b.N) * piece / time.Since(start).Seconds()
		b.ReportMetric(rate/raw, "of-raw")
		b.StopTimer()
		r.stop()
	})
}

// BenchmarkKeyLatency measures a key from the WebSocket message in to the echo
// out, while another terminal floods its viewer; "raw" is the same key on a
// plain PTY beside the same flood.
func BenchmarkKeyLatency(b *testing.B) {
	r := serve(b, "stty raw -echo; echo up; read kind; case $kind in flood) exec yes;; *) exec cat;; esac")
	flood := r.connect(b, "flood", std, &resume{})
	flood.wait("up")
	flood.typed("flood\n")
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood.sink = func([]byte) {}
		for ctx.Err() == nil && flood.next() {
		}
	}()
	defer func() { cancel(); <-done; r.stop() }()
	var raw time.Duration
	b.Run("raw", func(b *testing.B) {
		master, end := rawPTY(b, "stty raw -echo; echo up; exec cat", "up\n")
		defer end()
		buf := make([]byte, 1)
		raw = keys(b, func() {
			_, _ = master.WriteString("k")
			if _, err := io.ReadFull(master, buf); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("viewer", func(b *testing.B) {
		c := r.connect(b, "", std, &resume{})
		c.wait("up\n")
		c.typed("cat\n")
		c.typed("x")
		c.wait("x")
		median := keys(b, func() {
			c.typed("k")
			c.wait("k")
		})
		b.ReportMetric(float64((median - raw).Microseconds()), "µs-added")
	})
}

// keys times b.N strokes, a millisecond apart, and reports the median.
func keys(b *testing.B, stroke func()) time.Duration {
	times := make([]time.Duration, 0, b.N)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	b.ResetTimer()
	for range b.N {
		<-pace.C
		start := time.Now()
		stroke()
		times = append(times, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(times)
	median := times[len(times)/2]
	b.ReportMetric(float64(median.Microseconds()), "µs-median")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "µs-p99")
	return median
}

// rawPTY runs script on a PTY and reads what it says first.
func rawPTY(b *testing.B, script, first string) (*os.File, func()) {
	b.Helper()
	master, slave, err := openPTY(std)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = slave.Close()
	if _, err := io.ReadFull(master, make([]byte, len(first))); err != nil {
		b.Fatal(err)
	}
	return master, func() {
		_ = master.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
