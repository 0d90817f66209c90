package oci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
)

// Engine runs sessions on this machine. It implements [engine.Engine].
type Engine struct {
	images   Images
	log      *slog.Logger
	names    names
	machine  machine
	runtime  ociRuntime
	capacity backendai.Slots
	state    string // folder of what lasts
	sessions string // folder of the sessions' folders
	run      string // folder of what ends with this process, in memory
	frames   frames
	runner   string // path of the runner's file
	seccomp  *specs.LinuxSeccomp
	program  string  // compiled form of seccomp, if the runtime takes one
	bridge   *bridge // nil when no session has a way to the outside
	owners   owners

	watchers watchers
	watching sync.WaitGroup // one for each session that is waited for, and one for strangers
	ctx      context.Context
	cancel   context.CancelFunc // ends the waiting; sessions go on
	closing  sync.Once
	closed   error // of the one close

	mu   sync.Mutex // guards byID; never held while anything blocks
	byID map[string]*session
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine, takes over the sessions of an earlier run and removes
// what that left half made or half removed. Close ends it; ctx bounds New only.
func New(ctx context.Context, o Options) (_ *Engine, err error) {
	if o.Images == nil || !filepath.IsAbs(o.StateDir) {
		return nil, errors.New("make engine: it needs images and an absolute state directory")
	}
	if os.Geteuid() != 0 {
		return nil, backendai.Errorf(backendai.CodeForbidden, "the native engine needs root").WithHint("run the server as root")
	}
	e := &Engine{
		images: o.Images, log: o.Logger, capacity: o.Capacity, byID: map[string]*session{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	// what sessions see must be readable for them; what they must not see is
	// below the state directory, which only root can enter
	unix.Umask(0o022)
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	e.reapStrangers(e.ctx)
	if e.machine, err = inspect(); err != nil {
		return nil, err
	}
	if err := e.openFolders(o); err != nil {
		return nil, err
	}
	if err := e.prepareRuntime(ctx, o); err != nil {
		return nil, err
	}
	if err := e.openNetwork(o.Network); err != nil {
		return nil, err
	}
	if err := e.adopt(ctx); err != nil {
		return nil, err
	}
	if e.bridge != nil {
		if err := e.bridge.sweep(); err != nil {
			return nil, err
		}
		e.bridge.run()
	}
	return e, nil
}

// openFolders makes the engine's folders and names what it has on the machine.
func (e *Engine) openFolders(o Options) (err error) {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("make engine folder: %w", err)
	}
	if e.state, err = filepath.EvalSymlinks(o.StateDir); err != nil {
		return fmt.Errorf("make engine folder: %w", err)
	}
	e.names = newNames(e.state)
	e.sessions, e.frames.dir = filepath.Join(e.state, "sessions"), filepath.Join(e.state, "frames")
	for _, dir := range []string{e.sessions, e.frames.dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make engine folder: %w", err)
		}
	}
	run := filepath.Join(cmp.Or(o.RunDir, "/run/backend.ai"), e.names.key)
	if err := openScratch(run); err != nil {
		return err
	}
	e.run = run
	return nil
}

// prepareRuntime finds the runtime and makes the runner's file and the seccomp
// program.
func (e *Engine) prepareRuntime(ctx context.Context, o Options) error {
	path, err := findRuntime(o.Runtime)
	if err != nil {
		return err
	}
	if e.runtime, err = e.runtimeAt(path).seal(); err != nil {
		e.log.Warn("runtime is run from the disk", "runtime", path, "err", err)
	}
	if e.runner, err = installRunner(e.state, o.Runner); err != nil {
		return err
	}
	if e.seccomp, err = e.machine.filter(); err != nil {
		return err
	}
	e.program, err = e.runtime.compileFilter(ctx, e.machine, probe{
		profile: e.seccomp, runner: e.runner,
		bundle: filepath.Join(e.run, "probe"), cgroup: e.names.session(probeCgroup),
	}, e.state)
	return err
}

// runtimeAt gives the runtime with a path. What a plain one keeps of containers
// nobody needs later; others need it to remove them after a restart.
func (e *Engine) runtimeAt(path string) ociRuntime {
	r := ociRuntime{path: path, root: filepath.Join(e.run, "runtimes", filepath.Base(path))}
	if !r.plain() {
		r.root = filepath.Join(e.state, "runtimes", filepath.Base(path))
	}
	return r
}

// installRunner puts the runner where sessions can have it: owned by root and
// only executable, so that the kernel lets no process of the session, which has
// the same uid, read PID 1's memory or descriptors.
func installRunner(stateDir, from string) (_ string, err error) {
	open := embeddedRunner
	if from != "" {
		open = func() (io.ReadCloser, error) { return os.Open(from) }
	}
	source, err := open()
	if err != nil {
		return "", err
	}
	defer source.Close()
	old, err := filepath.Glob(filepath.Join(stateDir, "runner-*"))
	if err != nil {
		return "", fmt.Errorf("list runners: %w", err)
	}
	for _, path := range old { // sessions that use one keep its inode
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("remove old runner: %w", err)
		}
	}
	next := filepath.Join(stateDir, "runner-next")
	sum, err := copyRunner(next, source)
	if err != nil {
		return "", fmt.Errorf("install runner: %w", err)
	}
	name := filepath.Join(stateDir, "runner-"+hex.EncodeToString(sum[:8]))
	if err := os.Rename(next, name); err != nil {
		return "", fmt.Errorf("install runner: %w", err)
	}
	return name, nil
}

// copyRunner writes the runner's file and gives the sum of it. It holds no more
// than a piece of it in memory.
func copyRunner(path string, from io.Reader) (sum []byte, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), from)
	if err := errors.Join(err, f.Chmod(0o111), f.Close()); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

func (e *Engine) openNetwork(kind string) (err error) {
	switch kind {
	case NetworkNone:
		return nil
	case NetworkNAT, "":
	default:
		return fmt.Errorf("make engine: unknown network %q", kind)
	}
	servers := hostResolver(resolverFiles)
	if len(servers.servers) == 0 {
		e.log.Warn("sessions have no DNS: this machine names no server that they could reach", "files", resolverFiles)
	}
	e.bridge, err = openBridge(e.names, servers, e.log)
	if err != nil {
		e.bridge = nil
		e.log.Warn("sessions have no network: the host's cannot be set up", "err", err)
	}
	return nil
}

// Close ends the engine's own work. Sessions go on, and a later engine with the
// same directories takes them over. Closing again does nothing.
func (e *Engine) Close() error {
	e.closing.Do(func() { e.closed = e.close() })
	return e.closed
}

func (e *Engine) close() error {
	e.cancel()
	e.watching.Wait()
	e.watchers.close()
	e.owners.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	running, outside := false, false
	for _, s := range e.byID {
		running = running || s.snapshot().PID != 0
		outside = s.closeHandles() || outside
	}
	var err error
	if !running {
		err = e.machine.removeCgroup(e.names.cgroup())
	}
	if e.bridge != nil {
		err = errors.Join(err, e.bridge.close(outside))
	}
	if e.runtime.copy != nil {
		err = errors.Join(err, e.runtime.copy.Close())
	}
	if e.run != "" {
		err = errors.Join(err, closeScratch(e.run))
	}
	return err
}

// find gives an existing session.
func (e *Engine) find(id string) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.byID[id]
	if !ok {
		return nil, backendai.NotFound("container of session", id)
	}
	return s, nil
}

// acquire takes a session for a change of it, which others then wait for. With
// make set it is made if it does not exist; else nil is returned. The caller
// calls s.release.
func (e *Engine) acquire(ctx context.Context, id string, make bool) (*session, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for {
		e.mu.Lock()
		s, ok := e.byID[id]
		if !ok && make {
			s = e.newSession(id)
			e.byID[id] = s
		}
		e.mu.Unlock()
		if s == nil {
			return nil, nil
		}
		select {
		case s.busy <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		e.mu.Lock()
		current := e.byID[id] == s
		e.mu.Unlock()
		if current {
			return s, nil
		}
		s.release() // it was removed while we waited
	}
}

func (e *Engine) forget(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byID, s.id)
}

// List implements [engine.Engine].
func (e *Engine) List(context.Context) ([]engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]engine.Container, 0, len(e.byID))
	for _, s := range e.byID {
		if c, ok := s.container(); ok {
			all = append(all, c)
		}
	}
	return all, nil
}

// Watch implements [engine.Engine].
func (e *Engine) Watch(ctx context.Context) (<-chan engine.Exit, error) {
	return e.watchers.add(ctx), nil
}
