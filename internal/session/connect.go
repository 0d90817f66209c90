package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"backendai"
	"backendai/internal/control"
)

// The bounds of what may be said to an app.
const (
	maxArguments = 64
	maxArgument  = 8 << 10 // bytes
	maxListening = 256     // services that are remembered to run
)

var appRE = regexp.MustCompile(`^[\w.-]{1,64}$`)

// Connect implements API. A service that was started before is dialled at once,
// without a word to the runner; only when nobody answers is it started again.
func (s *Service) Connect(ctx context.Context, caller backendai.Caller, ref string, req ConnectRequest) (net.Conn, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	l, err := s.running(caller, ref)
	if err != nil {
		return nil, err
	}
	port, err := fixedPort(l.now(), req)
	if err != nil {
		return nil, err
	}
	if port != 0 {
		return s.opts.Engine.DialPort(ctx, l.id, port)
	}
	if port := l.listens(req); port != 0 {
		conn, err := s.opts.Engine.DialPort(ctx, l.id, port)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
	}
	reply, err := l.control.Start(ctx, req.App, control.StartRequest{Port: req.Port, Arguments: req.Arguments, Envs: req.Envs})
	if err != nil {
		return nil, err
	}
	conn, err := s.opts.Engine.DialPort(ctx, l.id, reply.Port)
	if err != nil {
		return nil, err
	}
	l.nowListens(req, reply.Port)
	return conn, nil
}

// fixedPort gives the port of an app that needs no start: the built-in ones,
// preopen ports and plain numbers; 0 for a service. It refuses what the app
// does not have.
func fixedPort(one *backendai.Session, req ConnectRequest) (int, error) {
	if !appRE.MatchString(req.App) {
		return 0, backendai.NotFound("app service", req.App)
	}
	if err := checkArguments(req); err != nil {
		return 0, err
	}
	var app backendai.App
	i := slices.IndexFunc(one.Apps, func(a backendai.App) bool { return a.Name == req.App })
	number, err := strconv.Atoi(req.App)
	switch {
	case i >= 0:
		app = one.Apps[i]
	case err != nil:
		return 0, nil // perhaps it was installed meanwhile; the runner knows
	case number < 1 || number > 65535:
		return 0, badParam("app", "%s is not a port", req.App)
	default:
		app = backendai.App{Name: req.App, Protocol: backendai.ProtocolPreopen, Ports: []int{number}}
	}
	port := app.Ports[0]
	if req.Port != 0 {
		if port = req.Port; !slices.Contains(app.Ports, port) {
			return 0, badParam("port", "app %q has no port %d; it has %s", app.Name, port, joinPorts(app.Ports, ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(req.Arguments)) {
		if !slices.Contains(app.AllowedArguments, name) {
			return 0, notAllowed("arguments", app.Name, name, app.AllowedArguments)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(req.Envs)) {
		if !slices.Contains(app.AllowedEnvs, name) {
			return 0, notAllowed("envs", app.Name, name, app.AllowedEnvs)
		}
	}
	if app.Name == backendai.AppSSHD || app.Name == backendai.AppTTYD || app.Protocol == backendai.ProtocolPreopen {
		return port, nil
	}
	return 0, nil
}

func badParam(field, format string, args ...any) *backendai.Error {
	text := fmt.Sprintf(format, args...)
	return backendai.Errorf(backendai.CodeInvalidParams, "%s", text).WithData(map[string]string{field: text})
}

func notAllowed(field, app, name string, allowed []string) error {
	e := badParam(field, "app %q does not take %q", app, name)
	if len(allowed) == 0 {
		return e.WithHint("it takes none")
	}
	return e.WithHint("it takes: %s", strings.Join(allowed, ", "))
}

// checkArguments bounds what goes to the runner.
func checkArguments(req ConnectRequest) error {
	size, n := 0, len(req.Envs)
	for name, values := range req.Arguments {
		size, n = size+len(name), n+max(1, len(values))
		for _, v := range values {
			size += len(v)
		}
	}
	for name, value := range req.Envs {
		size += len(name) + len(value)
	}
	if n > maxArguments || size > maxArgument {
		return badParam("arguments", "there are more than %d arguments and variables, or more than %s of them",
			maxArguments, backendai.FormatSize(maxArgument))
	}
	return nil
}

func listeningKey(req ConnectRequest) string { return req.App + "/" + strconv.Itoa(req.Port) }

// listens gives the port of a service that is known to run, 0 otherwise.
func (l *live) listens(req ConnectRequest) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listening[listeningKey(req)]
}

func (l *live) nowListens(req ConnectRequest, port int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.listening) >= maxListening {
		clear(l.listening) // no honest session has so many
	}
	l.listening[listeningKey(req)] = port
}

// forgetListening forgets which services run.
func (l *live) forgetListening() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.listening)
}
