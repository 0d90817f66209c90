//go:build integration && linux

package sftp_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestLargeFileIsFlat reads a sparse file of 10 GiB; what the server holds
// does not grow with it.
func TestLargeFileIsFlat(t *testing.T) {
	const size = 10 << 30
	home := t.TempDir()
	file, err := os.Create(filepath.Join(home, "large"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte("the end"), size-7)
	noError(t, err, file.Close())
	c := raw(t, home)
	handle := c.handle(c.ask(typeOpen, text("large"), number(1), number(0)))
	before := heap()
	var peak uint64
	var last []byte
	for offset := uint64(0); offset < size; {
		reply := c.ask(typeRead, text(handle), long(offset), number(255<<10))
		data := c.data(reply)
		if offset += uint64(len(data)); offset < size-(64<<20) {
			offset += uint64(3 * len(data)) // a quarter of it is enough
		}
		if offset%(1<<30) < 255<<12 {
			peak = max(peak, heap())
		}
		last = data
	}
	if !bytes.HasSuffix(last, []byte("the end")) {
		t.Errorf("it ends with %q", last[max(0, len(last)-7):])
	}
	if peak > before+(4<<20) {
		t.Errorf("the heap grew from %d to %d bytes", before, peak)
	}
	if status := c.status(c.ask(typeRead, text(handle), long(size), number(10))); status != 1 {
		t.Errorf("behind the end the status is %d", status)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMillionEntriesAreFlat lists a folder of a million names.
func TestMillionEntriesAreFlat(t *testing.T) {
	const count = 1_000_000
	home, err := os.MkdirTemp("/dev/shm", "million") //nolint:usetesting // a disk would take minutes
	if err != nil {
		t.Skip("there is no filesystem in memory here:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	noError(t, os.WriteFile(filepath.Join(home, "first"), nil, 0o600))
	for i := range count - 1 {
		name := filepath.Join(home, strings.Repeat("n", 20)+string(rune('a'+i%26))+time.Duration(i).String())
		if err := os.Link(filepath.Join(home, "first"), name); err != nil {
			t.Skip("this filesystem takes no such folder:", err)
		}
	}
	c := raw(t, home)
	handle := c.handle(c.ask(typeOpendir, text(".")))
	before, peak := heap(), uint64(0)
	seen := 0
	for i := 0; ; i++ {
		reply := c.ask(typeReaddir, text(handle))
		if reply[0] == typeStatus {
			break
		}
		seen += c.names(reply)
		if i%500 == 0 {
			peak = max(peak, heap())
		}
	}
	if seen != count+2 {
		t.Errorf("%d names of %d", seen, count+2)
	}
	if peak > before+(4<<20) {
		t.Errorf("the heap grew from %d to %d bytes", before, peak)
	}
}

func (c *rawClient) data(reply []byte) []byte { c.t.Helper(); return c.field(reply, typeData, 5) }

func (c *rawClient) names(reply []byte) int {
	c.t.Helper()
	if reply[0] != typeName {
		c.t.Fatalf("the answer is of type %d, not names", reply[0])
	}
	return int(binary.BigEndian.Uint32(reply[5:]))
}
