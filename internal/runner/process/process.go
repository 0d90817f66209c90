// Package process starts the processes of a session and learns how each ended,
// also where this process is PID 1 and inherits every orphan.
//
// A PID 1 that calls wait4(-1) steals the exit codes that os/exec waits for.
// So all children of the runner are started here: Start holds the table's lock
// over fork and registration, Reap holds it over each wait4(-1), and what Reap
// collects is handed to the Child if there is one and dropped if it was an orphan.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

// Table knows the children of this process.
type Table struct {
	init bool

	mu       sync.Mutex // over fork + registration, and over wait4(-1)
	children map[int]*Child
}

// NewTable makes an empty table. With init set, Reap must run: it alone waits.
// Otherwise each child is waited for on its own, so that the table can live in
// a process that starts others too.
func NewTable(init bool) *Table {
	return &Table{init: init, children: map[int]*Child{}}
}

// Child is one started process.
type Child struct {
	PID   int
	table *Table
	done  chan struct{}
	state State // frozen when done is closed
}

// State is how a process ended.
type State struct {
	Code   int            // exit code; 128 + Signal when a signal ended it
	Signal syscall.Signal // 0 when it exited by itself
	Core   bool           // it dumped core
}

// String says it in words for people: "exit code 3", "signal: killed".
func (s State) String() string {
	if s.Signal != 0 {
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// Start starts cmd, whose Stdin, Stdout and Stderr must be nil or *os.File:
// nobody calls cmd.Wait, which would end the copying of others.
func (t *Table) Start(cmd *exec.Cmd) (*Child, error) {
	for _, stream := range []any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		if _, ok := stream.(*os.File); stream != nil && !ok {
			return nil, errors.New("start process: a standard stream is not a file")
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	c := &Child{PID: cmd.Process.Pid, table: t, done: make(chan struct{})}
	t.children[c.PID] = c
	if t.init {
		return c, cmd.Process.Release()
	}
	go func() {
		state, err := cmd.Process.Wait()
		t.mu.Lock()
		defer t.mu.Unlock()
		if err == nil {
			c.end(state.Sys().(syscall.WaitStatus))
		} else {
			c.end(syscall.WaitStatus(0))
		}
	}()
	return c, nil
}

// Reap collects children and orphans as they die, until ctx ends and nothing
// is left to collect. Only for PID 1 or a subreaper, and only once.
func (t *Table) Reap(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	for {
		t.collect()
		select {
		case <-signals:
		case <-ctx.Done():
			t.collect()
			return
		}
	}
}

func (t *Table) collect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c := t.children[pid]; c != nil {
			c.end(status)
		}
	}
}

// end records how c ended; the table's lock is held.
func (c *Child) end(status syscall.WaitStatus) {
	delete(c.table.children, c.PID)
	c.state = State{Code: status.ExitStatus()}
	if status.Signaled() {
		c.state = State{Code: 128 + int(status.Signal()), Signal: status.Signal(), Core: status.CoreDump()}
	}
	close(c.done)
}

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait blocks until the process has ended; any number may wait.
func (c *Child) Wait() State {
	<-c.done
	return c.state
}

// Signal sends sig to the process, never to another one that has its number by
// now. A process that has ended is no error.
func (c *Child) Signal(sig syscall.Signal) error { return c.signal(c.PID, sig) }

// SignalGroup sends sig to the process group that the child leads.
func (c *Child) SignalGroup(sig syscall.Signal) error { return c.signal(-c.PID, sig) }

func (c *Child) signal(pid int, sig syscall.Signal) error {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", c.PID, err)
	}
	return nil
}
