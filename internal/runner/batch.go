package runner

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/process"
	"backendai/internal/runner/service"
)

// batchGrace is how long a batch command may take to end after its timeout.
const batchGrace = 5 * time.Second

// bootstrapFile is where the bootstrap script stands below the home (API section 13).
const bootstrapFile = "bootstrap.sh"

// foreground is what an interrupt is meant for.
type foreground struct {
	mu    sync.Mutex
	child *process.Child
}

func (f *foreground) set(c *process.Child) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.child = c
}

func (f *foreground) interrupt() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.child == nil {
		return nil
	}
	return f.child.SignalGroup(syscall.SIGINT)
}

// command is a process of the session, in a session and group of its own.
func (r *Runner) command(path string, args ...string) *exec.Cmd {
	return &exec.Cmd{
		Path: path, Args: append([]string{path}, args...), Env: process.Environ(r.Config.Env), Dir: process.WorkDir(r.Config.Home),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
}

// bootstrap runs the user's script before services start. What goes wrong is
// told in the log and stops nothing.
func (r *Runner) bootstrap(ctx context.Context) {
	if r.Config.Bootstrap == "" {
		return
	}
	file := control.File{Path: bootstrapFile, Mode: 0o755, Data: []byte(r.Config.Bootstrap)}
	if err := writeFiles(r.Config.Home, []control.File{file}); err != nil {
		r.note("the bootstrap script does not run: %v", err)
		return
	}
	state, err := r.runToEnd(ctx, r.command("/bin/sh", bootstrapFile), 0)
	switch {
	case ctx.Err() != nil: // the session was ended, not its script
	case err != nil:
		r.note("the bootstrap script does not run: %v", err)
	case state.Code != 0:
		r.note("the bootstrap script ended with %s", state)
	}
}

// batch runs the command of a batch session and publishes its end.
func (r *Runner) batch(ctx context.Context) {
	if r.Config.Batch == nil {
		return
	}
	var state process.State
	kills := service.OOMKills()
	shell, err := process.Shell(r.Config.Env)
	if err == nil {
		state, err = r.runToEnd(ctx, r.command(shell, "-c", r.Config.Batch.Command), r.Config.Batch.Timeout)
	}
	if ctx.Err() != nil {
		return // the session was ended, not its task
	}
	event := control.Event{Type: control.EventBatchFinished, ExitCode: state.Code, Detail: state.String()}
	_, late := errors.AsType[timeoutError](err)
	switch {
	case late:
		event.Reason, event.Detail = backendai.ReasonTaskTimeout, err.Error()
	case err != nil:
		// As a shell would say of a command that cannot be run.
		event.ExitCode, event.Reason, event.Detail = 126, backendai.ReasonTaskFailed, err.Error()
		r.note("the batch command does not run: %v", err)
	case state.Code == 0:
		event.Reason = backendai.ReasonTaskFinished
	case service.OOMKills() > kills:
		// What was killed may have been a child of the command, which then failed.
		event.Reason, event.OOM, event.Detail = backendai.ReasonOutOfMemory, true, "it used more memory than the session has"
	default:
		event.Reason = backendai.ReasonTaskFailed
	}
	r.setResult(event)
	r.events.publish(event)
}

// timeoutError says that a command took too long.
type timeoutError struct{ limit time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("it took longer than %s", e.limit) }

// runToEnd runs cmd in the foreground, its output going to the log, and waits
// for its end. After limit (0 is none) or when ctx ends its group is ended, at
// last by force; after limit the error is a timeoutError, beside a valid state.
func (r *Runner) runToEnd(ctx context.Context, cmd *exec.Cmd, limit time.Duration) (process.State, error) {
	if err := ctx.Err(); err != nil {
		return process.State{}, err
	}
	child, output, err := r.Table.StartPiped(cmd, r.log)
	if err != nil {
		return process.State{}, err
	}
	r.keep(output)
	r.foreground.set(child)
	defer r.foreground.set(nil)
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	var cause error
	select {
	case <-child.Done():
	case <-late:
		cause = timeoutError{limit}
	case <-ctx.Done():
		cause = ctx.Err()
	}
	if cause != nil {
		child.SweepGroup()
		if err := child.SignalGroup(syscall.SIGTERM); err != nil {
			r.note("%v", err)
		}
		timer := time.NewTimer(batchGrace)
		defer timer.Stop()
		select {
		case <-child.Done():
		case <-timer.C:
			if err := child.SignalGroup(syscall.SIGKILL); err != nil {
				r.note("%v", err)
			}
		}
	}
	state := child.Wait()
	output.Drain()
	return state, cause
}

// note writes a line of our own among the session's output.
func (r *Runner) note(format string, args ...any) {
	// A full disk must not stop a session.
	_, _ = fmt.Fprintf(r.log, "[backend.ai] "+format+"\n", args...)
}
