package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openLog(t *testing.T, limit int64) (*sessionLog, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	log, err := newSessionLog(file, limit)
	if err != nil {
		t.Fatal(err)
	}
	return log, path
}

func TestLogDropsTheOldestHalf(t *testing.T) {
	const limit = 200 << 10 // more than the pieces that are moved
	log, path := openLog(t, limit)
	var all bytes.Buffer
	for i := range 20000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		if n, err := log.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	left, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > limit || len(left) < limit/2-64 {
		t.Errorf("%d bytes are left", len(left))
	}
	if !bytes.HasSuffix(all.Bytes(), left) {
		t.Error("what is left is not the end of what was written")
	}
	if !bytes.HasPrefix(left, []byte("line ")) {
		t.Errorf("the log begins with %q", left[:20])
	}
	var copied bytes.Buffer
	if err := log.Copy(t.Context(), &copied, false); err != nil || !bytes.Equal(copied.Bytes(), left) {
		t.Errorf("copy of %d bytes, want %d; %v", copied.Len(), len(left), err)
	}
	// A second runner goes on where the first one ended.
	again, err := newSessionLog(log.file, limit)
	if err != nil || again.size != int64(len(left)) {
		t.Errorf("opened again with %d bytes, %v", again.size, err)
	}
}

func TestLogKeepsTheEndOfAHugeWrite(t *testing.T) {
	log, path := openLog(t, 1000)
	if n, err := log.Write([]byte(strings.Repeat("a", 5000) + "end")); n != 5003 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if left, err := os.ReadFile(path); err != nil || len(left) != 500 || !bytes.HasSuffix(left, []byte("end")) {
		t.Errorf("%d bytes are left, %v", len(left), err)
	}
}

func TestFollow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log, _ := openLog(t, 64<<10)
	fmt.Fprintln(log, "before")
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- log.Copy(ctx, writer, true)
		writer.Close()
	}()
	lines := bufio.NewScanner(reader)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	if got := next(); got != "before" {
		t.Fatalf("first line %q", got)
	}
	// A reader that waits for each line sees all of them, over many drops.
	for i := range 20000 {
		want := fmt.Sprintf("%d", i)
		fmt.Fprintln(log, want)
		if got := next(); got != want {
			t.Fatalf("line %q, want %q", got, want)
		}
	}
	// One that is too slow goes on at what is left.
	for range 20000 {
		fmt.Fprintln(log, "flood")
	}
	fmt.Fprintln(log, "last")
	log.Close()
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if err := <-done; err != nil || last != "last" {
		t.Errorf("the end is %q, %v", last, err)
	}
}

func TestFollowEndsWithItsReader(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log, _ := openLog(t, 1000)
	done := make(chan error, 1)
	go func() { done <- log.Copy(ctx, io.Discard, true) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
