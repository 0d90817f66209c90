package runner

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/process"
	"backendai/internal/runner/sshd"
	"backendai/internal/runner/ttyd"
)

// server is an app that runs in the runner itself. Serve closes the listener.
type server interface {
	Serve(ctx context.Context, l net.Listener) error
}

// terminals are the open web terminals.
type terminals interface {
	Terminals() []control.Terminal
	// End ends one; ttyd.ErrNoTerminal when there is none of the name.
	End(name string) error
}

type builtin struct {
	name     string
	server   server
	listener net.Listener
}

// builtinApps are listed first in every session (API section 13).
func builtinApps() []backendai.App {
	return []backendai.App{
		{Name: backendai.AppSSHD, Protocol: backendai.ProtocolTCP, Ports: []int{backendai.PortSSHD}},
		{Name: backendai.AppTTYD, Protocol: backendai.ProtocolHTTP, Ports: []int{backendai.PortTTYD}},
	}
}

// openBuiltin makes sshd and ttyd and opens their ports. A session that was
// given no host keys has everything but sshd.
func (r *Runner) openBuiltin() error {
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	if len(r.Config.SSH.HostKeys) > 0 {
		if err := r.openSSHD(logger); err != nil {
			return err
		}
	}
	web := ttyd.New(ttyd.Options{
		Env:  func() map[string]string { return maps.Clone(r.Config.Env) },
		Home: r.Config.Home, Table: r.Table, Logger: logger,
		Shell: func() (string, error) { return process.Shell(r.Config.Env) },
	})
	if err := r.open(backendai.AppTTYD, backendai.PortTTYD, web); err != nil {
		return err
	}
	r.mu.Lock()
	r.terminals = web
	r.mu.Unlock()
	return nil
}

// openSSHD lays out the session's keys, too. What is wrong with them or with the
// home is told in the log: the terminal still leads in.
func (r *Runner) openSSHD(logger *slog.Logger) error {
	keys, err := sshd.PrepareKeys(r.Config.Home, r.Config.SSH, logger)
	if err != nil {
		r.note("%v", err)
	}
	r.mu.Lock()
	r.keys = keys
	r.mu.Unlock()
	server, err := sshd.New(sshd.Options{
		HostKeys: r.Config.SSH.HostKeys, AuthorizedKeys: keys.Authorized, Table: r.Table,
		Home: r.Config.Home, Env: r.Config.Env, MOTD: r.Config.MOTD, Logger: logger,
	})
	if err != nil {
		r.note("sshd does not run: %v", err)
		return nil
	}
	return r.open(backendai.AppSSHD, backendai.PortSSHD, server)
}

func (r *Runner) open(name string, port int, s server) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(r.Config.Loopback, strconv.Itoa(port)))
	if err != nil {
		for _, b := range r.builtin {
			b.listener.Close()
		}
		return fmt.Errorf("open %s: %w", name, err)
	}
	r.builtin = append(r.builtin, &builtin{name: name, server: s, listener: l})
	return nil
}
