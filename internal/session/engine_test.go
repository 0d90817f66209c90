package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
)

// host is what outlives a server: containers, of which each answers as a runner
// over pipes in memory.
type host struct {
	mu         sync.Mutex
	containers map[string]*container
	watchers   map[chan engine.Exit]bool
	creating   int
	most       int      // of creating at one time
	created    []string // ids, in order
	capacity   backendai.Slots
}

// container is one of the host.
type container struct {
	spec  engine.Spec
	host  *host
	exit  *engine.Exit // nil while it runs
	log   string
	ready chan struct{} // Ready answers when it is closed

	apps    []backendai.App
	ports   map[int]bool // that something listens on
	starts  int          // of services
	batch   *control.Event
	changed chan struct{} // closed when batch is set
	dead    chan struct{} // closed at the end
	server  *http.Server
	pipes   chan net.Conn
}

func newHost(t *testing.T) *host {
	h := &host{
		containers: map[string]*container{}, watchers: map[chan engine.Exit]bool{},
		capacity: backendai.Slots{"cpu": 4000, "mem": 4 << 30},
	}
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.containers {
			c.finish(engine.Exit{Code: 137, Reason: backendai.ReasonForced})
		}
	})
	return h
}

// driver is one server's engine on the host.
type driver struct {
	*host
	mu   sync.Mutex
	dead bool
	// The hooks are called first; an error of theirs is the call's.
	onCreate func(ctx context.Context, spec engine.Spec) error
	onReady  func(c *container) // after the container is made; by default it is ready at once
	onStop   func(ctx context.Context, id string, grace time.Duration) error
	onRemove func(id string) error
	step     func(point string) // is called between what a server can die between
}

func (d *driver) at(point string) {
	if d.step != nil {
		d.step(point)
	}
}

func (d *driver) die() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

func (d *driver) alive() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	return nil
}

func (d *driver) Create(ctx context.Context, spec engine.Spec) error {
	d.host.mu.Lock()
	d.creating++
	d.most = max(d.most, d.creating)
	d.host.mu.Unlock()
	defer func() {
		d.host.mu.Lock()
		d.creating--
		d.host.mu.Unlock()
	}()
	if d.onCreate != nil {
		if err := d.onCreate(ctx, spec); err != nil {
			return err
		}
	}
	d.at("before create")
	if err := errors.Join(d.alive(), ctx.Err()); err != nil {
		return err
	}
	c := d.host.make(spec)
	if d.onReady != nil {
		d.onReady(c)
	} else {
		close(c.ready)
	}
	d.at("after create")
	return d.alive()
}

// make starts a container.
func (h *host) make(spec engine.Spec) *container {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.containers[spec.ID]; c != nil && c.exit == nil {
		return c
	}
	c := &container{
		spec: spec, host: h, ready: make(chan struct{}), ports: map[int]bool{backendai.PortSSHD: true, backendai.PortTTYD: true},
		apps: []backendai.App{
			{Name: "sshd", Protocol: "tcp", Ports: []int{2200}}, {Name: "ttyd", Protocol: "http", Ports: []int{7681}},
			{Name: "jupyter", Protocol: "http", Ports: []int{8080, 8081}, AllowedArguments: []string{"--debug"}},
		},
		changed: make(chan struct{}), dead: make(chan struct{}), pipes: make(chan net.Conn), log: "hello from " + spec.ID + "\n",
	}
	c.server = &http.Server{Handler: c.handler(), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = c.server.Serve(c) }()
	h.containers[spec.ID] = c
	h.created = append(h.created, spec.ID)
	return c
}

// finish ends a container; the host's lock is held.
func (c *container) finish(exit engine.Exit) {
	if c.exit != nil {
		return
	}
	exit.ID, exit.At = c.spec.ID, time.Now()
	c.exit = &exit
	close(c.dead)
	_ = c.server.Close()
	for w := range c.host.watchers {
		w <- exit
	}
}

// die ends a container by itself.
func (h *host) die(id string, exit engine.Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.containers[id].finish(exit)
}

func (h *host) get(id string) *container {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.containers[id]
}

func (h *host) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.containers)
}

// Accept, Close and Addr make a container the listener of its own server.
func (c *container) Accept() (net.Conn, error) {
	select {
	case conn := <-c.pipes:
		return conn, nil
	case <-c.dead:
		return nil, net.ErrClosed
	}
}
func (c *container) Close() error   { return nil }
func (c *container) Addr() net.Addr { return &net.UnixAddr{} }

func (c *container) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
	mux.HandleFunc("GET /v1/ready", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-c.ready:
			answer(w, control.Health{SessionID: c.spec.ID, Proof: control.Proof(c.spec.Runner.Secret, r.URL.Query().Get("nonce"))})
		case <-c.dead:
			panic(http.ErrAbortHandler)
		}
	})
	mux.HandleFunc("GET /v1/apps", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.apps) })
	mux.HandleFunc("POST /v1/apps/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		c.starts++
		if r.PathValue("name") != "jupyter" {
			control.WriteError(w, backendai.NotFound("app service", r.PathValue("name")))
			return
		}
		c.ports[8080] = true
		answer(w, control.StartReply{Status: control.StatusStarted, Port: 8080})
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-c.changed:
			answer(w, c.batch)
			_ = http.NewResponseController(w).Flush()
		case <-c.dead:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return
		}
		select {
		case <-r.Context().Done():
		case <-c.dead:
		}
	})
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, c.log)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-c.dead:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
		}
	})
	for _, call := range []string{"GET /v1/files", "POST /v1/files/pack"} {
		mux.HandleFunc(call, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "tar of "+r.FormValue("path"))
		})
	}
	mux.HandleFunc("GET /v1/terminals", func(w http.ResponseWriter, _ *http.Request) { answer(w, []control.Terminal{{Name: "main"}}) })
	for _, call := range []string{"DELETE /v1/terminals/{name}", "POST /v1/interrupt", "POST /v1/apps/{name}/stop"} {
		mux.HandleFunc(call, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	return mux
}

// finishBatch ends the command of a batch session.
func (h *host) finishBatch(id string, code int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.containers[id]
	c.batch = &control.Event{Type: control.EventBatchFinished, ExitCode: code, Detail: fmt.Sprintf("exit code %d", code)}
	close(c.changed)
}

func (d *driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	if d.onStop != nil {
		if err := d.onStop(ctx, id, grace); err != nil {
			return err
		}
	}
	d.at("before stop")
	if err := d.alive(); err != nil {
		return err
	}
	defer d.at("after stop")
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if c := d.containers[id]; c != nil {
		exit := engine.Exit{Reason: backendai.ReasonUserRequested}
		if grace == 0 {
			exit = engine.Exit{Code: 137, Reason: backendai.ReasonForced}
		}
		c.finish(exit)
	}
	return nil
}

func (d *driver) Remove(ctx context.Context, id string, grace time.Duration) error {
	if d.onRemove != nil {
		if err := d.onRemove(id); err != nil {
			return err
		}
	}
	d.at("before remove")
	if err := d.alive(); err != nil {
		return err
	}
	defer d.at("after remove")
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if c := d.containers[id]; c != nil {
		c.finish(engine.Exit{Code: 137, Reason: backendai.ReasonForced})
		delete(d.containers, id)
	}
	return nil
}

func (d *driver) List(context.Context) ([]engine.Container, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	var list []engine.Container
	for id, c := range d.containers {
		list = append(list, engine.Container{ID: id, Running: c.exit == nil, Exit: c.exit})
	}
	return list, d.alive()
}

func (d *driver) Watch(ctx context.Context) (<-chan engine.Exit, error) {
	w := make(chan engine.Exit, 10000)
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	d.watchers[w] = true
	context.AfterFunc(ctx, func() {
		d.host.mu.Lock()
		defer d.host.mu.Unlock()
		delete(d.watchers, w)
		close(w)
	})
	return w, nil
}

func (d *driver) Dial(ctx context.Context, id string) (net.Conn, error) {
	c := d.get(id)
	if c == nil {
		return nil, backendai.NotFound("session", id)
	}
	ours, theirs := net.Pipe()
	select {
	case c.pipes <- theirs:
		return ours, nil
	case <-c.dead:
		return nil, backendai.Errorf(backendai.CodeUnavailable, "session %s is not running", id)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *driver) DialPort(_ context.Context, id string, port int) (net.Conn, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	c := d.containers[id]
	if c == nil || !c.ports[port] {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "nothing answers on port %d of the session: %w", port, syscall.ECONNREFUSED)
	}
	ours, theirs := net.Pipe()
	go func() {
		_, _ = io.WriteString(theirs, "port "+strconv.Itoa(port))
		_ = theirs.Close()
	}()
	return ours, nil
}

func (d *driver) Logs(_ context.Context, id string, _ int64) (io.ReadCloser, error) {
	c := d.get(id)
	if c == nil {
		return nil, backendai.NotFound("session", id)
	}
	return io.NopCloser(strings.NewReader(c.log)), nil
}

func (d *driver) Capacity(context.Context) (backendai.Slots, error) { return d.capacity.Clone(), nil }
