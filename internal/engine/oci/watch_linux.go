package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
)

// maxRecord bounds what is read of a session's exit record, and maxDetail what
// is shown of it.
const (
	maxRecord = 64 << 10
	maxDetail = 300
)

// watch waits for the end of a session's PID 1 and records it.
func (e *Engine) watch(s *session, pidfd *os.File) {
	s.mu.Lock()
	s.pidfd, s.exited = pidfd, make(chan struct{})
	exited := s.exited
	s.mu.Unlock()
	e.watching.Go(func() {
		stop := context.AfterFunc(e.ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		status, err := waitProcess(pidfd)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return // the engine closes; the session goes on
		}
		exit := e.explainExit(s, status)
		if err := s.ended(exit); err != nil {
			e.log.Error("record end of session", "session", s.id, "err", err)
		}
		_ = pidfd.Close()
		e.watchers.send(exit)
		close(exited)
	})
}

// end of a process as waitid tells it; known is false for a process that is not
// our child.
type processEnd struct {
	known  bool
	code   int
	signal int
}

// waitProcess waits for the end of a process. Children are reaped.
func waitProcess(pidfd *os.File) (end processEnd, err error) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return end, err
	}
	err = raw.Read(func(fd uintptr) bool {
		var info waitInfo
		waitErr := unix.Waitid(unix.P_PIDFD, int(fd), info.siginfo(), unix.WEXITED|unix.WNOHANG, nil)
		switch {
		case errors.Is(waitErr, unix.EAGAIN), errors.Is(waitErr, unix.EINTR):
			return false
		case waitErr != nil: // ECHILD: someone else's, which epoll still tells of
			n, pollErr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return pollErr == nil && n > 0
		case info.pid() == 0:
			return false
		}
		end = info.end()
		return true
	})
	return end, err
}

// explainExit puts together why a session ended: the platform's own wish, its
// memory limit, the runner's record, the code of PID 1.
func (e *Engine) explainExit(s *session, end processEnd) engine.Exit {
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	exit := engine.Exit{ID: s.id, Code: -1, At: time.Now().UTC(), Reason: backendai.ReasonLost}
	if end.known {
		exit.Code, exit.Reason = end.code, backendai.ReasonSelfTerminated
		if end.signal != 0 {
			exit.Code = 128 + end.signal
			exit.Detail = "PID 1 was ended by " + unix.SignalName(unix.Signal(end.signal))
		}
	}
	record, recorded := readRecord(s.path(recordFile))
	if recorded {
		exit.Reason, exit.Detail = record.Reason, record.Detail
		if !end.known {
			exit.Code = record.ExitCode
		}
		if !record.At.IsZero() && record.At.Before(exit.At) {
			exit.At = record.At
		}
	}
	killed := end.signal == int(unix.SIGKILL) || !end.known
	switch {
	case ending != "" && !(recorded && record.Reason != backendai.ReasonSelfTerminated && record.Reason != backendai.ReasonUserRequested):
		exit.Reason = ending
	case !recorded && killed && e.machine.oomKills(e.names.session(s.id)) > 0,
		exit.Reason == backendai.ReasonOutOfMemory:
		exit.Reason, exit.OOM = backendai.ReasonOutOfMemory, true
		exit.Detail = "the session used more memory than its limit"
	case exit.Reason == backendai.ReasonLost:
		exit.Detail = "the session ended while no server was there to see it"
	}
	return exit
}

// readRecord reads the runner's last word. It comes out of the session, so that
// no more is believed than one of the known reasons and a short line.
func readRecord(name string) (record control.ExitRecord, ok bool) {
	f, err := os.Open(name)
	if err != nil {
		return record, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil || json.Unmarshal(b, &record) != nil {
		return control.ExitRecord{}, false
	}
	known := []string{
		backendai.ReasonUserRequested, backendai.ReasonSelfTerminated, backendai.ReasonTaskFinished, backendai.ReasonTaskFailed,
		backendai.ReasonTaskTimeout, backendai.ReasonFailedToStart, backendai.ReasonOutOfMemory,
	}
	if !slices.Contains(known, record.Reason) {
		record.Reason = backendai.ReasonSelfTerminated
	}
	record.ExitCode &= 0xff
	record.Detail = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, record.Detail)
	record.Detail = strings.ToValidUTF8(record.Detail[:min(len(record.Detail), maxDetail)], "")
	return record, true
}

// watchers are those who want to hear of ends. The zero value is ready.
type watchers struct {
	mu     sync.Mutex
	queues map[*queue]bool
	closed bool
	group  sync.WaitGroup
}

// queue holds what one watcher has not taken yet, so that a slow one delays nobody.
type queue struct {
	exits []engine.Exit
	wake  chan struct{} // holds one token when there is something new
	stop  context.CancelFunc
}

func (w *watchers) add(ctx context.Context) <-chan engine.Exit {
	ctx, stop := context.WithCancel(ctx)
	q := &queue{wake: make(chan struct{}, 1), stop: stop}
	out := make(chan engine.Exit)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		stop()
	}
	if w.queues == nil {
		w.queues = map[*queue]bool{}
	}
	w.queues[q] = true
	w.group.Go(func() {
		defer close(out)
		defer w.drop(q)
		for {
			select {
			case <-q.wake:
			case <-ctx.Done():
				return
			}
			for _, exit := range w.take(q) {
				select {
				case out <- exit:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	return out
}

func (w *watchers) take(q *queue) []engine.Exit {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := q.exits
	q.exits = nil
	return taken
}

func (w *watchers) drop(q *queue) {
	q.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.queues, q)
}

func (w *watchers) send(exit engine.Exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for q := range w.queues {
		q.exits = append(q.exits, exit)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// close ends all watches.
func (w *watchers) close() {
	w.mu.Lock()
	w.closed = true
	for q := range w.queues {
		q.stop()
	}
	w.mu.Unlock()
	w.group.Wait()
}
