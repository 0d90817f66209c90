package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
	"backendai/internal/runner"
	"backendai/internal/runner/process"
)

// Engine runs sessions as plain processes of this host. Close it.
type Engine struct {
	options Options
	sockets string // folder of the control sockets

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	watchers map[*watcher]bool
	tasks    sync.WaitGroup
}

// session is one container; its folder outlives it until Remove.
type session struct {
	id       string
	dir      string
	socket   string
	loopback string
	kill     context.CancelFunc
	ended    chan struct{} // closed when exit is set
	exit     engine.Exit
}

// New makes an engine that keeps its sessions' folders below Options.Dir. What
// an earlier engine left there is listed as dead.
func New(o Options) (*Engine, error) {
	e := &Engine{options: o, sessions: map[string]*session{}, watchers: map[*watcher]bool{}}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make engine folder: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("read engine folder: %w", err)
	}
	for _, entry := range entries {
		s := &session{id: entry.Name(), dir: filepath.Join(o.Dir, entry.Name()), kill: func() {}, ended: make(chan struct{})}
		s.exit = lastWord(s)
		close(s.ended)
		e.sessions[s.id] = s
	}
	// Beside Dir, whose path may be longer than a socket's can be.
	if e.sockets, err = os.MkdirTemp("", "fake"); err != nil {
		return nil, fmt.Errorf("make folder for sockets: %w", err)
	}
	return e, nil
}

// lastWord is the end of a session that another engine ran.
func lastWord(s *session) engine.Exit {
	exit := engine.Exit{ID: s.id, Code: -1, Reason: backendai.ReasonLost, At: time.Now()}
	var record control.ExitRecord
	if data, err := os.ReadFile(filepath.Join(s.dir, "record")); err == nil && json.Unmarshal(data, &record) == nil {
		exit = exitOf(s.id, record)
	}
	return exit
}

func exitOf(id string, r control.ExitRecord) engine.Exit {
	return engine.Exit{ID: id, Code: r.ExitCode, Reason: r.Reason, Detail: r.Detail, At: r.At}
}

// Close kills every session, keeping their folders, and waits for all of them.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	for _, s := range e.sessions {
		s.kill()
	}
	e.mu.Unlock()
	e.tasks.Wait()
	return os.RemoveAll(e.sockets)
}

// Create implements engine.Engine. A session that runs already is no error.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) error {
	if err := checkID(spec.ID); err != nil {
		return err
	}
	if e.options.FailCreate != nil {
		if err := e.options.FailCreate(spec); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errors.New("create session: the engine is closed")
	}
	if s := e.sessions[spec.ID]; s != nil && s.running() {
		return nil
	}
	s := &session{id: spec.ID, dir: filepath.Join(e.options.Dir, spec.ID), ended: make(chan struct{})}
	_, err := os.Stat(s.dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := e.start(ctx, s, spec); err != nil {
		if fresh {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
		return fmt.Errorf("create session %s: %w", spec.ID, err)
	}
	e.sessions[spec.ID] = s
	return nil
}

var idRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$`)

// checkID keeps ids from being anything but one folder's name.
func checkID(id string) error {
	if !idRE.MatchString(id) {
		return backendai.Errorf(backendai.CodeInvalidParams, "invalid session id %q", id)
	}
	return nil
}

// start runs the session's runner in this process; the engine's lock is held.
func (e *Engine) start(ctx context.Context, s *session, spec engine.Spec) error {
	var err error
	if s.loopback, err = freeLoopback(ctx); err != nil {
		return err
	}
	config := localize(spec.Runner, filepath.Join(s.dir, "home"), s.loopback)
	if err := link(spec.Mounts, spec.Runner.Home, config.Home); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	record, err := os.OpenFile(filepath.Join(s.dir, "record"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("open exit record: %w", err), log.Close())
	}
	s.socket = filepath.Join(e.sockets, strconv.FormatUint(rand.Uint64(), 36))
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", s.socket)
	if err != nil {
		return errors.Join(fmt.Errorf("open control socket: %w", err), log.Close(), record.Close())
	}
	r, err := runner.New(runner.Options{
		Config: config, Listener: listener, Log: log, Record: record,
		Table: process.NewTable(false), Definitions: e.options.Definitions,
	})
	if err != nil {
		return errors.Join(err, listener.Close(), log.Close(), record.Close())
	}
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	s.kill = kill
	e.tasks.Go(func() {
		defer kill()
		exit := exitOf(s.id, r.Run(life))
		log.Close()
		record.Close()
		e.finish(s, exit)
	})
	return nil
}

// localize moves a session into its folder and to its address of the host.
func localize(c control.Config, home, loopback string) control.Config {
	env := map[string]string{"PATH": os.Getenv("PATH")}
	for name, value := range c.Env {
		env[name] = value
	}
	env["HOME"] = home
	c.Env, c.Home, c.Loopback = env, home, loopback
	return c
}

// link shows folders in the home, which is where a session looks for them.
func link(mounts []engine.Mount, inside, home string) error {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("make home: %w", err)
	}
	for _, m := range mounts {
		below, err := filepath.Rel(inside, m.Target)
		if err != nil || !filepath.IsLocal(below) || below == "." {
			continue // the host's own folders stay as they are
		}
		at := filepath.Join(home, below)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		if err := os.Symlink(filepath.Join(m.Source, m.Subpath), at); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// freeLoopback finds an address of 127.0.0.0/8 on which nobody runs a session.
func freeLoopback(ctx context.Context) (string, error) {
	const attempts = 64
	var last error
	for range attempts {
		ip := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254))).String()
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(backendai.PortSSHD)))
		if err == nil {
			return ip, l.Close()
		}
		last = err
	}
	return "", fmt.Errorf("find a loopback address: %w", last)
}

// finish records a session's end and tells it.
func (e *Engine) finish(s *session, exit engine.Exit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.exit = exit
	close(s.ended)
	for w := range e.watchers {
		w.send(exit)
	}
}

func (s *session) running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

func (e *Engine) session(id string) *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sessions[id]
}

// Stop implements engine.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	s := e.session(id)
	if s == nil || !s.running() {
		return nil
	}
	if grace > 0 {
		client := control.NewClient(s.dial, nil)
		defer client.Close()
		asking, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		// A runner that does not take the request is killed like one that does not end.
		if err := client.Shutdown(asking); err == nil {
			select {
			case <-s.ended:
				return nil
			case <-asking.Done():
			}
		}
	}
	s.kill()
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop session %s: %w", id, ctx.Err())
	}
}

// Remove implements engine.Engine.
func (e *Engine) Remove(ctx context.Context, id string, grace time.Duration) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := e.Stop(ctx, id, grace); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[id]; s != nil && s.running() {
		return fmt.Errorf("remove session %s: it was started again", id)
	}
	delete(e.sessions, id)
	if err := os.RemoveAll(filepath.Join(e.options.Dir, id)); err != nil {
		return fmt.Errorf("remove session %s: %w", id, err)
	}
	return nil
}

// List implements engine.Engine.
func (e *Engine) List(context.Context) ([]engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]engine.Container, 0, len(e.sessions))
	for _, s := range e.sessions {
		c := engine.Container{ID: s.id, Running: s.running()}
		if !c.Running {
			exit := s.exit
			c.Exit = &exit
		}
		list = append(list, c)
	}
	return list, nil
}

// Dial implements engine.Engine.
func (e *Engine) Dial(ctx context.Context, id string) (net.Conn, error) {
	s, err := e.alive(id)
	if err != nil {
		return nil, err
	}
	return s.dial(ctx)
}

func (s *session) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", s.socket)
	if err != nil {
		return nil, fmt.Errorf("dial runner of session %s: %w", s.id, err)
	}
	return conn, nil
}

// DialPort implements engine.Engine.
func (e *Engine) DialPort(ctx context.Context, id string, port int) (net.Conn, error) {
	s, err := e.alive(id)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.loopback, strconv.Itoa(port)))
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "nothing listens on port %d of the session: %w", port, err)
	}
	return conn, nil
}

// alive gives a session that runs.
func (e *Engine) alive(id string) (*session, error) {
	s := e.session(id)
	if s == nil {
		return nil, backendai.NotFound("session", id)
	}
	if !s.running() {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "session %s does not run", id)
	}
	return s, nil
}

// Logs implements engine.Engine.
func (e *Engine) Logs(_ context.Context, id string, limit int64) (io.ReadCloser, error) {
	s := e.session(id)
	if s == nil {
		return nil, backendai.NotFound("session", id)
	}
	f, err := os.Open(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("open log of session %s: %w", id, err)
	}
	info, err := f.Stat()
	if err == nil && limit > 0 && info.Size() > limit {
		_, err = f.Seek(-limit, io.SeekEnd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read log of session %s: %w", id, err), f.Close())
	}
	return f, nil
}
