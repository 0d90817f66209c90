package ttyd

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// lines is what `seq -f %0<width>.0f from to` prints on a terminal.
func lines(from, to, width int) []byte {
	var b bytes.Buffer
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "%0*d\r\n", width, i)
	}
	return b.Bytes()
}

// TestNoByteIsLostOverCuts floods a terminal and cuts its viewer hundreds of
// times, at random places, most often in the middle of what is on its way.
func TestNoByteIsLostOverCuts(t *testing.T) {
	const last, cuts = 1_200_000, 300
	r := serve(t, fmt.Sprintf("stty -echo; echo go; read go; seq -f %%015.0f 1 %d | cat", last))
	want := sha256.Sum256(append([]byte("go\r\n"), lines(1, last, 15)...))
	random := rand.New(rand.NewPCG(1, 2))
	total := uint64(last*17 + len("go\r\n"))
	sum := sha256.New()
	var got uint64
	from := &resume{}
	sink := func(p []byte) {
		p = p[:min(uint64(len(p)), total-got)] // the notice of the end comes behind
		sum.Write(p)
		got += uint64(len(p))
	}
	for cut := 0; got < total; cut++ {
		c := r.connect(t, "flood", std, from)
		c.sink = sink
		c.until("state", func() bool { return c.states > 0 })
		if c.state.Reset != (cut == 0) || c.offset != from.Offset {
			t.Fatalf("cut %d: reset %v, offset %d after %d", cut, c.state.Reset, c.offset, from.Offset)
		}
		if cut == 0 {
			c.until("readiness", func() bool { return got > 0 })
			c.typed("\n")
		}
		stop := total
		if cut < cuts {
			stop = min(total, got+random.Uint64N(2*total/cuts))
		}
		if random.IntN(4) == 0 && cut < cuts {
			c.noAck = true // leaves the window full
			stop = min(stop, got+window)
		}
		c.until("output", func() bool { return got >= stop })
		from = &resume{Instance: c.state.Instance, Offset: c.offset}
		c.cut()
		if cut > 2*cuts {
			t.Fatal("no progress")
		}
	}
	if [32]byte(sum.Sum(nil)) != want {
		t.Fatal("the output is not what was written")
	}
}

// TestNoKeyIsLostOverCuts types through a connection that is cut again and
// again, each time with keys on their way.
func TestNoKeyIsLostOverCuts(t *testing.T) {
	r := serve(t, "stty raw -echo; echo up; exec head -c 100000")
	c := r.connect(t, "keys", std, &resume{Client: "page"})
	c.wait("up\n")
	random := rand.New(rand.NewPCG(3, 4))
	want := make([]byte, 100_000)
	for i := range want {
		want[i] = 'a' + byte(random.IntN(26))
	}
	for c.state.Input < uint64(len(want)) {
		rest := want[c.state.Input:]
		for sent := 0; sent < min(1000, len(rest)); {
			n := min(1+random.IntN(20), len(rest)-sent)
			c.typed(string(rest[sent : sent+n]))
			sent += n
		}
		old := c
		c = r.connect(t, "keys", std, &resume{c.state.Instance, c.offset, "page"})
		c.output.Write(old.output.Bytes()) // the new connection has come before the old one is cut
		c.until("state", func() bool { return c.states > 0 })
		old.cut()
	}
	c.until("the end", func() bool { return c.exit != nil })
	if got, _, _ := bytes.Cut(c.output.Bytes(), []byte("\x1b")); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came of %d", len(got), len(want))
	}
}

func TestReloadShowsTheNewestTenThousandLines(t *testing.T) {
	const last = 400_000 // more than the ring holds
	r := serve(t, fmt.Sprintf(`printf '\033[?2004h\033[1;35m\033]0;long\007'; seq -f %%020.0f 1 %d | cat; read x`, last))
	first := r.connect(t, "x", std, &resume{})
	first.sink = func([]byte) {}
	first.until("the end", func() bool { return first.offset > last*22 })
	for _, from := range []*resume{{}, {Instance: first.state.Instance, Offset: 5}, {Instance: first.state.Instance, Offset: 1 << 40}, {Instance: "other", Offset: first.offset}} {
		c := r.connect(t, "x", std, from)
		c.until("replay", func() bool { return c.states == 1 && c.offset == c.state.Live && c.offset > 0 })
		text := c.output.Bytes()
		if !c.state.Reset || !bytes.HasSuffix(lines(1, last, 20), text) || bytes.Count(text, []byte("\n")) < 10_000 {
			t.Fatalf("from %+v: state %+v, %d bytes: %.60q…", from, c.state, len(text), text)
		}
	}
	plain := r.connect(t, "x", std, nil)
	plain.wait("\x1bc\x1b]0;long\x07\x1b[?2004h\x1b[1m\x1b[35m0")
	plain.wait(fmt.Sprintf("%020d\r\n", last))
}

func TestViewersShareATerminal(t *testing.T) {
	r := serve(t, "/bin/sh")
	a, b := r.connect(t, "x", size{100, 40}, &resume{}), (*client)(nil)
	a.wait("ready> ")
	b = r.connect(t, "x", size{90, 20}, &resume{})
	b.until("the lead", func() bool { return b.answers == "1" })
	a.until("the lead's loss", func() bool { return a.answers == "0" })
	newest := func(c *client, z size) func() bool {
		return func() bool { return len(c.sizes) > 0 && c.sizes[len(c.sizes)-1] == z }
	}
	a.until("the size of the other", newest(a, size{90, 20}))
	a.typed("echo sha''red\r")
	b.wait("shared")
	b.until("the size of the active one", newest(b, size{100, 40}))
	a.cut()
	b.until("its own size", newest(b, size{90, 20}))
	b.until("the lead", func() bool { return b.answers == "1" })
}

func TestASlowViewerDelaysNobody(t *testing.T) {
	const last = 1_500_000 // 33 MB
	r := serve(t, fmt.Sprintf("stty -echo; read go; seq -f %%020.0f 1 %d | cat; read x", last))
	slow, fast := r.connect(t, "x", std, &resume{}), r.connect(t, "x", std, &resume{})
	slow.until("state", func() bool { return slow.states > 0 })
	fast.typed("\n")
	fast.sink = func([]byte) {}
	// The slow one reads nothing meanwhile, and is not cut off for it: its next state comes on the same connection.
	fast.until("all output", func() bool { return fast.offset >= last*22 })
	slow.until("the end", func() bool { return slow.offset >= last*22 })
	if slow.states < 2 || !slow.state.Reset {
		t.Errorf("the slow viewer was not set forward: %+v", slow.state)
	}
	if !bytes.HasSuffix(lines(1, last, 20), slow.output.Bytes()) {
		t.Error("the slow viewer's end is not right")
	}
}

func TestInterruptUnderAFlood(t *testing.T) {
	for _, from := range []*resume{nil, {}} {
		t.Run(fmt.Sprintf("extended=%v", from != nil), func(t *testing.T) {
			r := serve(t, "/bin/sh")
			c := r.connect(t, "x", std, from)
			c.wait("ready> ")
			best := time.Hour // of several: the machine may be busy with other things
			for range 5 {
				c.typed("yes\r")
				c.wait(strings.Repeat("y\r\n", 100_000))
				start := time.Now()
				c.typed("\x03")
				c.wait("ready> ")
				best = min(best, time.Since(start))
			}
			if best > 100*time.Millisecond {
				t.Errorf("Ctrl+C took %v", best)
			}
		})
	}
}

func TestStormOfResizes(t *testing.T) {
	r := serve(t, `trap 'n=$((n+1))' WINCH; echo up; while :; do read x && echo "$(stty size) after $n"; done`)
	c := r.connect(t, "x", std, &resume{})
	c.wait("up")
	start := time.Now()
	for i := range 1000 {
		c.send(msgResize, fmt.Sprintf(`{"columns":%d,"rows":%d}`, 50+i%100, 10+i%50))
	}
	c.send(msgResize, `{"columns":77,"rows":33}`)
	c.until("the last size", func() bool { return len(c.sizes) > 0 && c.sizes[len(c.sizes)-1] == size{77, 33} })
	if most := int(time.Since(start)/resizeTime) + 3; len(c.sizes) > most {
		t.Errorf("%d sizes, want at most %d", len(c.sizes), most)
	}
	c.typed("\r")
	c.wait("33 77 after")
	c.send(msgResize, `{"columns":-5,"rows":99999}`)
	c.until("a sane size", func() bool { return c.sizes[len(c.sizes)-1] == size{minCols, maxRows} })
}

func TestAlternateScreenIsPaintedAgain(t *testing.T) {
	r := serve(t, `trap 'printf "\033[Hpainted"' WINCH; printf '\033[?1049h\033[?1003h'; seq -f %020.0f 1 300000 | cat; echo up; while :; do read x; done`)
	c := r.connect(t, "x", std, &resume{})
	c.sink = func([]byte) {}
	c.until("the flood", func() bool { return c.offset > 300_000*22 })
	late := r.connect(t, "x", std, nil)
	late.wait("\x1bc\x1b[?1049h\x1b[?1003h")
	late.wait("painted")
	late.until("the true size", func() bool { return r.Terminals()[0].Rows == 24 })
}

// TestFloodHasFlatMemory looks at the heap while much flows by.
func TestFloodHasFlatMemory(t *testing.T) {
	r := serve(t, "stty -echo; read go; yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 100000000; echo END; read x")
	c := r.connect(t, "x", std, &resume{})
	c.typed("\n")
	var high uint64
	c.sink = func([]byte) {}
	next := uint64(0)
	c.until("the end", func() bool {
		if c.offset > next {
			next += 10_000_000
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			high = max(high, m.HeapAlloc)
		}
		return c.offset > 100_000_000
	})
	if high > 4*ringLimit {
		t.Errorf("heap grew to %d MiB", high>>20)
	}
}
