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
	init     bool
	launches chan launch   // to the launcher, for init
	over     chan struct{} // closed when Reap has ended

	mu       sync.Mutex // over fork + registration, and over wait4(-1)
	children map[int]*Child
	alone    bool          // of init: the last look found neither child nor orphan
	idle     chan struct{} // closed and renewed when a child or an orphan has ended
}

// launch is a process to start.
type launch struct {
	cmd    *exec.Cmd
	result chan<- error
}

// NewTable makes an empty table. With init set, Reap must run: it alone starts and waits.
// Otherwise each child is waited for on its own, so that the table can live in
// a process that starts others too.
func NewTable(init bool) *Table {
	return &Table{
		init: init, launches: make(chan launch), over: make(chan struct{}),
		children: map[int]*Child{}, idle: make(chan struct{}),
	}
}

// Init tells whether this process is PID 1, or a subreaper, for whom Reap must run.
func (t *Table) Init() bool { return t.init }

// Child is one started process.
type Child struct {
	PID   int
	table *Table
	done  chan struct{}
	sweep bool  // the rest of its group dies with it; guarded by the table's lock
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
	if err := t.launch(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	c := &Child{PID: cmd.Process.Pid, table: t, done: make(chan struct{})}
	t.children[c.PID] = c
	t.alone = false
	if t.init {
		return c, cmd.Process.Release()
	}
	go func() {
		state, err := cmd.Process.Wait()
		t.mu.Lock()
		defer t.mu.Unlock()
		defer t.wake()
		if err == nil {
			c.end(state.Sys().(syscall.WaitStatus))
		} else {
			c.end(syscall.WaitStatus(0))
		}
	}()
	return c, nil
}

func (t *Table) launch(cmd *exec.Cmd) error {
	if !t.init {
		return cmd.Start()
	}
	result := make(chan error, 1)
	select {
	case t.launches <- launch{cmd, result}:
		return <-result
	case <-t.over:
		return errors.New("the session has ended")
	}
}

// Reap starts processes, and collects children and orphans as they die, until
// ctx ends and nothing is left to collect. Only for PID 1 or a subreaper, and
// only once.
func (t *Table) Reap(ctx context.Context) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t.launcher(stop)
	}()
	defer func() {
		close(stop)
		<-stopped
		close(t.over)
	}()
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
	defer t.wake()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			t.alone = errors.Is(err, syscall.ECHILD)
			return
		}
		if c := t.children[pid]; c != nil {
			c.end(status)
		}
	}
}

// wake tells the waiters of WaitAll that something ended; the lock is held.
func (t *Table) wake() {
	close(t.idle)
	t.idle = make(chan struct{})
}

// SweepGroup makes the process group that the child leads end with the child:
// whatever is left of it then is killed.
func (c *Child) SweepGroup() {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	c.sweep = true
}

// SignalAll sends sig to every process: for init, to all of its PID namespace;
// otherwise to the group of each child of the table.
func (t *Table) SignalAll(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.init {
		_ = syscall.Kill(-1, sig) // nobody may be left
		return
	}
	for pid := range t.children {
		if err := syscall.Kill(-pid, sig); err != nil {
			_ = syscall.Kill(pid, sig) // it leads no group
		}
	}
}

// WaitAll blocks until no process is left: for init, no child and no orphan;
// otherwise no child of the table. It tells whether that happened before ctx ended.
func (t *Table) WaitAll(ctx context.Context) bool {
	if t.init {
		t.collect()
	}
	for {
		t.mu.Lock()
		idle, left := t.idle, len(t.children) > 0
		if t.init {
			left = !t.alone
		}
		t.mu.Unlock()
		if !left {
			return true
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return false
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
	if c.sweep {
		// As long as the group has members its number is nobody else's.
		_ = syscall.Kill(-c.PID, syscall.SIGKILL)
	}
	close(c.done)
}

// GroupLives tells whether anything is left of the process group that the child
// leads or led, be it only about to be collected.
func (c *Child) GroupLives() bool {
	return !errors.Is(syscall.Kill(-c.PID, 0), syscall.ESRCH)
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
