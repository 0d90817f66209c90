package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os/exec"
	"strings"
	"syscall"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/image/service"
	"backendai/internal/runner/process"
)

// definition is how to start a service: the image's file, else what we know by heart.
func (s *Services) definition(name string) (service.Definition, error) {
	data, err := s.readDefinition(name)
	if errors.Is(err, fs.ErrNotExist) {
		if d, ok := service.Builtin(name); ok {
			return d, nil
		}
		return service.Definition{}, backendai.Errorf(backendai.CodeInternal, "the image does not say how to start app %q", name).
			WithHint("it has no file %s/%s.json", s.Definitions, name)
	}
	if err == nil {
		var d service.Definition
		if d, err = service.ParseDefinition(data); err == nil {
			return d, nil
		}
	}
	return service.Definition{}, backendai.Errorf(backendai.CodeInternal, "the image's definition of app %q is faulty: %w", name, err)
}

// start runs the prestart actions and the command and waits until the primary
// port listens. When it does not, nothing of the service is left.
func (s *Services) start(ctx context.Context, app backendai.App, def service.Definition, req control.StartRequest) error {
	if s.Prepared != nil {
		select {
		case <-s.Prepared:
		case <-ctx.Done():
			return failure(app.Name, "the session's bootstrap script has not finished", nil)
		}
	}
	if s.Listens(app.Ports[0]) {
		return nil
	}
	vars := service.NewVariables(app.Ports, s.Config.RuntimePath, s.Config.Loopback)
	for i, a := range def.Prestart {
		if err := s.act(ctx, a, vars); err != nil {
			return failure(app.Name, fmt.Sprintf("prestart action %d: %v", i+1, err), nil)
		}
	}
	cmd, err := s.command(def, vars, req)
	if err != nil {
		return failure(app.Name, err.Error(), nil)
	}
	if ctx.Err() != nil {
		return failure(app.Name, "it was stopped", nil)
	}
	run := &instance{ports: app.Ports, ooms: OOMKills(), gone: make(chan struct{}), ready: map[int]bool{}}
	if run.child, run.output, err = s.Table.StartPiped(cmd, s.Log); err != nil {
		return failure(app.Name, err.Error(), nil)
	}
	s.mu.Lock()
	s.running[app.Name], s.outputs[run.output] = run, true
	s.mu.Unlock()
	s.tasks.Go(func() { s.watch(app.Name, run) })
	if s.waitPort(ctx, run.child.Done(), app.Ports[0]) {
		run.setReady(app.Ports[0])
		s.note("app %s listens on port %d", app.Name, app.Ports[0])
		s.Publish(control.Event{Type: control.EventServiceStarted, App: app.Name})
		return nil
	}
	select {
	case <-run.child.Done():
		<-run.gone
		return failure(app.Name, s.ending(run), run)
	default:
	}
	reason := "opening the service port timed out"
	if errors.Is(ctx.Err(), context.Canceled) {
		reason = "it was stopped"
	}
	// The start's own time is over: ending has a bound of its own.
	if err := s.end(context.WithoutCancel(ctx), run); err != nil {
		s.note("app %s: %v", app.Name, err)
	}
	return failure(app.Name, reason, run)
}

// command is the service's process, in a session and group of its own.
func (s *Services) command(def service.Definition, vars service.Variables, req control.StartRequest) (*exec.Cmd, error) {
	argv, extra, err := def.Invocation(vars, request(req), s.inEnv)
	if err != nil {
		return nil, err
	}
	return s.cmd(argv, extra)
}

func (s *Services) cmd(argv []string, extra map[string]string) (*exec.Cmd, error) {
	env := maps.Clone(s.Config.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, extra)
	path, err := process.LookPath(argv[0], env, s.Config.Home)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path: path, Args: argv, Env: process.Environ(env), Dir: process.WorkDir(s.Config.Home),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}, nil
}

// watch waits for a service's end, forgets the service and tells.
func (s *Services) watch(name string, run *instance) {
	state := run.child.Wait()
	run.output.Drain()
	s.mu.Lock()
	delete(s.running, name)
	s.mu.Unlock()
	close(run.gone)
	reason := s.ending(run)
	s.note("app %s: %s", name, reason)
	s.Publish(control.Event{
		Type: control.EventServiceExited, App: name, ExitCode: state.Code, OOM: run.outOfMemory(state), Detail: reason,
	})
	// What the service left running may go on printing.
	<-run.output.Done()
	s.mu.Lock()
	delete(s.outputs, run.output)
	s.mu.Unlock()
}

// ending says how a dead service ended.
func (s *Services) ending(run *instance) string {
	state := run.child.Wait()
	run.mu.Lock()
	stopped := run.stopped
	run.mu.Unlock()
	switch {
	case run.outOfMemory(state):
		return "it was killed because the session is out of memory"
	case stopped:
		return "it was stopped"
	case state.Signal != 0:
		return "it was ended by " + state.String()
	default:
		return "it ended with " + state.String()
	}
}

func (i *instance) outOfMemory(state process.State) bool {
	return state.Signal == syscall.SIGKILL && OOMKills() > i.ooms
}

// failure is the error of a start; its Data is the service's last output and
// its hint the last line of it, which is what usually tells most.
func failure(name, reason string, run *instance) error {
	e := backendai.Errorf(backendai.CodeInternal, "app %q did not start: %s", name, reason)
	if run == nil {
		return e
	}
	tail := strings.TrimSpace(run.output.Tail())
	if tail == "" {
		return e.WithHint("it printed nothing")
	}
	last := tail[strings.LastIndexByte(tail, '\n')+1:]
	return e.WithHint("it last printed: %s", strings.TrimSpace(last)).WithData(tail)
}

// note writes a line of our own among the session's output.
func (s *Services) note(format string, args ...any) {
	// A full disk must not stop a service.
	_, _ = fmt.Fprintf(s.Log, "[backend.ai] "+format+"\n", args...)
}
