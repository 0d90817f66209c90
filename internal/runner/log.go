package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sessionLog appends what the session prints to a file that it keeps below a
// limit, and lets others follow. It is safe for concurrent use.
type sessionLog struct {
	limit int64

	mu     sync.Mutex
	file   *os.File
	size   int64         // of the file
	base   int64         // how much was dropped from its beginning
	grown  chan struct{} // closed at the next change; nil when nobody waits
	closed bool
}

// newSessionLog goes on with a file that is open for reading and appending.
func newSessionLog(file *os.File, limit int64) (*sessionLog, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open session log: %w", err)
	}
	return &sessionLog{limit: limit, file: file, size: info.Size()}, nil
}

// Write appends; of a text beyond half the limit only the end stays.
func (l *sessionLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := p[max(0, int64(len(p))-l.limit/2):]
	if l.size+int64(len(text)) > l.limit {
		if err := l.shrink(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	l.wake()
	if err != nil {
		return n, err
	}
	return len(p), nil
}

// shrink drops the oldest half, in place and in small pieces, because the
// runner's memory is small and the file's inode belongs to the engine.
func (l *sessionLog) shrink() error {
	buf := make([]byte, 64<<10)
	from := max(0, l.size-l.limit/2)
	n, err := l.file.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("shrink session log: %w", err)
	}
	if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
		from += int64(i) + 1 // begin with a whole line
	}
	conn, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("shrink session log: %w", err)
	}
	var moveErr error
	if err := conn.Control(func(fd uintptr) { moveErr = moveDown(int(fd), from, l.size, buf) }); err != nil {
		moveErr = err
	}
	if moveErr != nil {
		return fmt.Errorf("shrink session log: %w", moveErr)
	}
	l.base += from
	l.size -= from
	return nil
}

// moveDown moves the bytes between from and end to the beginning and cuts the
// rest off. A file that is open for appending ignores where a write should go
// (pwrite(2), BUGS), so it is not for that time.
func moveDown(fd int, from, end int64, buf []byte) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_APPEND); err != nil {
		return err
	}
	at := int64(0)
	for from < end && err == nil {
		var n int
		if n, err = unix.Pread(fd, buf[:min(int64(len(buf)), end-from)], from); err != nil || n == 0 {
			break
		}
		if n, err = unix.Pwrite(fd, buf[:n], at); err == nil {
			from, at = from+int64(n), at+int64(n)
		}
	}
	if err == nil {
		err = unix.Ftruncate(fd, at)
	}
	if _, restored := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err == nil {
		err = restored
	}
	return err
}

func (l *sessionLog) wake() {
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// Close ends those who follow, once they have all.
func (l *sessionLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

// Copy sends what there is to w, and with follow what will come, until ctx ends
// or the log is closed. A reader slower than the log loses what was dropped.
func (l *sessionLog) Copy(ctx context.Context, w io.Writer, follow bool) error {
	buf := make([]byte, 16<<10)
	at, end := int64(0), int64(-1)
	for {
		n, total, grown, err := l.read(buf, &at)
		if end < 0 && !follow {
			end = total
		}
		if err != nil {
			return err
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		if end >= 0 && at >= end {
			return nil
		}
		if n > 0 {
			continue
		}
		if grown == nil {
			return nil // closed
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read gives the bytes at an offset that counts from the log's very beginning,
// moving it forward over what was dropped. When there are none, grown is what
// to wait for, or nil when none will come.
func (l *sessionLog) read(buf []byte, at *int64) (n int, total int64, grown chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*at = max(*at, l.base)
	total = l.base + l.size
	if *at < total {
		n, err = l.file.ReadAt(buf[:min(int64(len(buf)), total-*at)], *at-l.base)
		if err == io.EOF && n > 0 {
			err = nil
		}
		return n, total, nil, err
	}
	if l.closed {
		return 0, total, nil, nil
	}
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	return 0, total, l.grown, nil
}
