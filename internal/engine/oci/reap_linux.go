package oci

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// reapStrangers waits for the processes that are this one's children without its
// doing, until ctx ends: crun leaves one each time that it starts a container,
// and whoever adopts orphans has to wait for them.
func (e *Engine) reapStrangers(ctx context.Context) {
	ends := make(chan os.Signal, 1) // one is enough: all are looked at
	signal.Notify(ends, unix.SIGCHLD)
	e.watching.Go(func() {
		defer signal.Stop(ends)
		e.reapOnce()
		for {
			select {
			case <-ends:
				e.reapOnce()
			case <-ctx.Done():
				return
			}
		}
	})
}

// reapOnce looks at the children of the first thread, which is where orphans come.
func (e *Engine) reapOnce() {
	self := strconv.Itoa(os.Getpid())
	b, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if err != nil {
		return // a kernel that does not tell
	}
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	known := e.containers()
	var ended []int
	for _, word := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil || known[pid] {
			continue
		}
		// A child of ours that someone waits for is of our session, and the
		// PID 1 of a container leads one.
		if dead, session := lookAt(pid); dead && session != own && session != pid {
			ended = append(ended, pid)
		}
	}
	if len(ended) == 0 {
		return
	}
	// One that was started meanwhile, and killed before it led a session, is known now.
	known = e.containers()
	for _, pid := range ended {
		if !known[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// containers gives the process ids of all PID 1s.
func (e *Engine) containers() map[int]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	pids := make(map[int]bool, len(e.byID))
	for _, s := range e.byID {
		pids[s.snapshot().PID] = true
	}
	return pids
}

// lookAt tells whether a child has ended and of which session it is (setsid(2)).
func lookAt(pid int) (ended bool, session int) {
	fields, err := statOf(pid)
	if err != nil {
		return false, 0
	}
	session, err = strconv.Atoi(fields[3])
	return err == nil && fields[0] == "Z", session
}

// statOf reads the fields of /proc/<pid>/stat from the third, the state, on.
func statOf(pid int) ([]string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, fmt.Errorf("read process %d: %w", pid, err)
	}
	// the name before, in parentheses, may hold anything
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("read process %d: %q", pid, b)
	}
	return fields, nil
}
