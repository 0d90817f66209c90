// Package service runs the services of a session (API section 12): it knows
// which there are, starts one when it is first used, tells why one did not
// start, and forgets one that died, so that its next use starts it again.
package service

import (
	"context"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/image/service"
	"backendai/internal/runner/process"
)

// The limits that Options can change.
const (
	DefaultStartTimeout = 30 * time.Second
	DefaultStopGrace    = 5 * time.Second
)

// sweepLimit bounds the wait for processes that were killed.
const sweepLimit = 2 * time.Second

// Options are what Services are made of.
type Options struct {
	Config       control.Config // Env, Home, Loopback, ServicePorts, RuntimePath and Preopen count
	Definitions  string         // directory of the image's definitions; "" is service.DefinitionDir
	Builtin      []backendai.App
	Table        *process.Table
	Log          io.Writer           // takes the output of all services
	Publish      func(control.Event) // must not block
	Prepared     <-chan struct{}     // no service starts before it is closed; nil is at once
	StartTimeout time.Duration       // from the first action to the listening port; 0 is DefaultStartTimeout
	StopGrace    time.Duration       // from SIGTERM to SIGKILL; 0 is DefaultStopGrace
	Listens      func(port int) bool // tells whether a port listens on the loopback; nil asks the kernel
}

// Services are the services of one session.
type Services struct {
	Options
	labelled []backendai.App // of the image's label
	tasks    sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	running  map[string]*instance
	starting map[string]*flight
	outputs  map[*process.Output]bool // those that are still carried
}

// instance is a service's process.
type instance struct {
	child  *process.Child
	output *process.Output
	ports  []int
	ooms   int           // of the session when the service started
	gone   chan struct{} // closed when the process is dead and forgotten

	mu      sync.Mutex
	ready   map[int]bool // ports that were seen to listen
	stopped bool         // by us
}

// flight is a start under way, which several callers may wait for.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // frozen when done is closed
}

// New makes the services of a session. A faulty label is reported in the log
// and taken as empty. Close ends what was started.
func New(o Options) *Services {
	if o.Definitions == "" {
		o.Definitions = service.DefinitionDir
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = DefaultStartTimeout
	}
	if o.StopGrace == 0 {
		o.StopGrace = DefaultStopGrace
	}
	if o.Listens == nil {
		o.Listens = listens(o.Config.Loopback)
	}
	s := &Services{Options: o, running: map[string]*instance{}, starting: map[string]*flight{}, outputs: map[*process.Output]bool{}}
	apps, err := service.ParseServicePorts(o.Config.ServicePorts)
	if err != nil {
		s.note("the image's services are left out: %v", err)
	}
	s.labelled = apps
	return s
}

// Apps lists what a tunnel can lead to: the built-in apps, preopen ports, the
// image's services, and well-known apps that are installed now.
func (s *Services) Apps() []backendai.App {
	apps := s.fixed()
	for i, a := range apps {
		if slices.ContainsFunc(s.labelled, func(l backendai.App) bool { return l.Name == a.Name }) {
			if d, err := s.definition(a.Name); err == nil {
				apps[i] = describe(a, d)
			}
		}
	}
	for _, k := range s.installed(apps) {
		apps = append(apps, describe(k.App, k.Definition))
	}
	return apps
}

// fixed are the apps that do not depend on what is installed.
func (s *Services) fixed() []backendai.App {
	apps := slices.Clone(s.Builtin)
	for _, port := range s.Config.Preopen {
		apps = append(apps, backendai.App{Name: strconv.Itoa(port), Protocol: backendai.ProtocolPreopen, Ports: []int{port}})
	}
	return append(apps, s.labelled...)
}

func (s *Services) installed(taken []backendai.App) []service.Known {
	return service.Detect(func(program string) (string, error) {
		return process.LookPath(program, s.Config.Env, s.Config.Home)
	}, taken)
}

func describe(a backendai.App, d service.Definition) backendai.App {
	a.URLTemplate, a.AllowedArguments, a.AllowedEnvs = d.URLTemplate, d.AllowedArguments, d.AllowedEnvs
	return a
}

// Start makes a service run and returns when its port listens. A caller that
// goes away does not end a start that others may wait for.
func (s *Services) Start(ctx context.Context, name string, req control.StartRequest) (control.StartReply, error) {
	if port, err := strconv.ParseUint(name, 10, 16); err == nil && port > 0 {
		return control.StartReply{Status: control.StatusRunning, Port: int(port)}, nil
	}
	app, def, err := s.find(name)
	if err != nil {
		return control.StartReply{}, err
	}
	port := app.Ports[0]
	if req.Port != 0 {
		if port = req.Port; !slices.Contains(app.Ports, port) {
			return control.StartReply{}, backendai.Errorf(backendai.CodeInvalidParams, "app %q has no port %d", name, port).
				WithHint("its ports are %s", joinPorts(app.Ports))
		}
	}
	reply := control.StartReply{Status: control.StatusRunning, Port: port}
	if def == nil || def.Noop {
		return reply, nil
	}
	if err := s.checkRequest(name, *def, req); err != nil {
		return control.StartReply{}, err
	}
	run, start, mine := s.ensure(ctx, app, *def, req)
	if start != nil {
		select {
		case <-start.done:
		case <-ctx.Done():
			return control.StartReply{}, ctx.Err()
		}
		if start.err != nil {
			return control.StartReply{}, start.err
		}
		if run = s.current(name); run != nil && mine {
			reply.Status = control.StatusStarted
		}
	}
	if run == nil { // the user's own program listens there
		return reply, nil
	}
	return reply, s.await(ctx, name, run, port)
}

func (s *Services) current(name string) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[name]
}

// ensure gives the running service, or the start under way, making one if there
// is neither; mine tells that. The start outlives the caller's ctx.
func (s *Services) ensure(ctx context.Context, app backendai.App, def service.Definition, req control.StartRequest) (run *instance, start *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if start = s.starting[app.Name]; start != nil {
		return nil, start, false
	}
	if run = s.running[app.Name]; run != nil {
		return run, nil, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.StartTimeout)
	start = &flight{cancel: cancel, done: make(chan struct{})}
	if s.closed {
		cancel()
		start.err = backendai.Errorf(backendai.CodeUnavailable, "the session is ending")
		close(start.done)
		return nil, start, true
	}
	s.starting[app.Name] = start
	s.tasks.Go(func() {
		start.err = s.start(ctx, app, def, req)
		cancel()
		s.mu.Lock()
		delete(s.starting, app.Name)
		s.mu.Unlock()
		close(start.done)
	})
	return nil, start, true
}

// await waits until a port of a running service listens, usually the second
// port of one that was started for its first.
func (s *Services) await(ctx context.Context, name string, run *instance, port int) error {
	if run.isReady(port) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	defer cancel()
	if s.waitPort(ctx, run.child.Done(), port) {
		run.setReady(port)
		return nil
	}
	select {
	case <-run.child.Done():
		return failure(name, s.ending(run), run)
	default:
		return failure(name, "opening the service port "+strconv.Itoa(port)+" timed out", run)
	}
}

// find gives an app and how to start it; no definition means that there is
// nothing to start.
func (s *Services) find(name string) (backendai.App, *service.Definition, error) {
	fixed := s.fixed()
	for _, a := range fixed {
		if a.Name != name {
			continue
		}
		builtin := slices.ContainsFunc(s.Builtin, func(b backendai.App) bool { return b.Name == name })
		if builtin || a.Protocol == backendai.ProtocolPreopen {
			return a, nil, nil
		}
		def, err := s.definition(name)
		if err != nil {
			return a, nil, err
		}
		return a, &def, nil
	}
	for _, k := range s.installed(fixed) {
		if k.App.Name == name {
			// A file of the image wins over what we know by heart.
			if def, err := s.definition(name); err == nil {
				return k.App, &def, nil
			}
			return k.App, &k.Definition, nil
		}
	}
	names := []string{}
	for _, a := range s.Apps() {
		names = append(names, a.Name)
	}
	return backendai.App{}, nil, backendai.NotFound("app service", name).
		WithHint("this session has %s; a port number works too", strings.Join(names, ", "))
}

// checkRequest refuses what the definition does not allow users to set.
func (s *Services) checkRequest(name string, def service.Definition, req control.StartRequest) error {
	limits := service.Definition{AllowedArguments: def.AllowedArguments, AllowedEnvs: def.AllowedEnvs}
	if _, _, err := limits.Invocation(nil, request(req), s.inEnv); err != nil {
		e := backendai.Errorf(backendai.CodeInvalidParams, "app %q cannot be started so: %w", name, err)
		if len(def.AllowedArguments)+len(def.AllowedEnvs) > 0 {
			return e.WithHint("it takes: %s", strings.Join(slices.Concat(def.AllowedArguments, def.AllowedEnvs), ", "))
		}
		return e.WithHint("it takes neither arguments nor variables")
	}
	return nil
}

func request(req control.StartRequest) service.Request {
	return service.Request{Arguments: req.Arguments, Envs: req.Envs}
}

func (s *Services) inEnv(name string) bool {
	_, ok := s.Config.Env[name]
	return ok
}

// Stop ends a service and what it started. One that does not run is no error.
func (s *Services) Stop(ctx context.Context, name string) error {
	if _, def, err := s.find(name); err != nil && backendai.CodeOf(err) == backendai.CodeNotFound {
		return err
	} else if err == nil && def == nil {
		return backendai.Errorf(backendai.CodeInvalidParams, "app %q is not a service that can be stopped", name)
	}
	s.mu.Lock()
	start, run := s.starting[name], s.running[name]
	s.mu.Unlock()
	if start != nil {
		start.cancel()
		select {
		case <-start.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		run = s.current(name)
	}
	if run == nil {
		return nil
	}
	return s.end(ctx, run)
}

// end terminates a service's group, at last by force, and waits for its end.
func (s *Services) end(ctx context.Context, run *instance) error {
	run.mu.Lock()
	run.stopped = true
	run.mu.Unlock()
	run.child.SweepGroup()
	if err := run.child.SignalGroup(syscall.SIGTERM); err != nil {
		return err
	}
	grace := time.NewTimer(s.StopGrace)
	defer grace.Stop()
	select {
	case <-run.gone:
	case <-grace.C:
		if err := run.child.SignalGroup(syscall.SIGKILL); err != nil {
			return err
		}
	case <-ctx.Done():
		if err := run.child.SignalGroup(syscall.SIGKILL); err != nil {
			return err
		}
	}
	<-run.gone // nothing survives SIGKILL
	s.sweep(run)
	return nil
}

// sweep waits while the rest of a dead service's group, which was killed with
// its leader, still holds a port: a start right now would take it for running.
func (s *Services) sweep(run *instance) {
	limit := time.NewTimer(sweepLimit)
	defer limit.Stop()
	timer := time.NewTimer(firstPause)
	defer timer.Stop()
	for pause := firstPause; run.child.GroupLives() && slices.ContainsFunc(run.ports, s.Listens); pause = min(pause*3/2, lastPause) {
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-limit.C:
			return
		}
	}
}

// Drain refuses new starts and ends those under way. What runs goes on.
func (s *Services) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, start := range s.starting {
		start.cancel()
	}
}

// Close lets go of every service's output and waits for all goroutines. The
// processes must have ended or be about to.
func (s *Services) Close() {
	s.Drain()
	s.mu.Lock()
	outputs := slices.Collect(maps.Keys(s.outputs))
	s.mu.Unlock()
	for _, o := range outputs {
		o.Drain()
		o.Close()
	}
	s.tasks.Wait()
}

func (s *Services) readDefinition(name string) ([]byte, error) {
	// Not blocking, should something that is no file stand there.
	f, err := os.OpenFile(s.Definitions+"/"+name+".json", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, service.MaxDefinition+1))
}

func joinPorts(ports []int) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(p)
	}
	return strings.Join(texts, ", ")
}

func (i *instance) isReady(port int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ready[port]
}

func (i *instance) setReady(port int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ready[port] = true
}
