package ttyd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"backendai/internal/control"
	"backendai/internal/runner/process"
)

// Limits of one session's terminals.
const (
	maxTerminals = 64
	maxViewers   = 32 // of one terminal
	// maxMessage bounds a client's message; our page sends less at a time.
	maxMessage = 1 << 20
)

// ErrNoTerminal says that no terminal has the name.
var ErrNoTerminal = errors.New("no such terminal")

// errFull says that every terminal is in use.
var errFull = fmt.Errorf("%d terminals are open, the most there can be: end one", maxTerminals)

// Options of New. Table and Shell are required.
type Options struct {
	// Env gives the environment of a new shell; TERM and its like are added.
	Env func() map[string]string
	// Home is where a shell starts.
	Home string
	// Table starts the shells.
	Table *process.Table
	// Shell gives the program to run; its error is shown in the terminal.
	Shell func() (string, error)
	// Hosts are names, beside localhost and every IP address, that the page may
	// be opened under. Any other name is refused: it could be an attacker's who
	// lets it lead to this machine.
	Hosts []string
	// Logger tells of terminals that open and end; nil is silent.
	Logger *slog.Logger
}

// Server is the web terminal of a session.
type Server struct {
	opts  Options
	log   *slog.Logger
	token string
	page  func() map[string]asset // read at its first use

	tasks sync.WaitGroup // shells and viewers

	mu        sync.Mutex
	closed    bool
	terminals map[string]*terminal
}

// New makes a server that has no terminal yet.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Env == nil {
		opts.Env = func() map[string]string { return nil }
	}
	return &Server{
		opts:      opts,
		log:       opts.Logger,
		token:     randomHex(16),
		page:      sync.OnceValue(loadPage),
		terminals: map[string]*terminal{},
	}
}

// Serve answers on l, which it closes, until ctx ends; then it hangs up every
// terminal and returns when all shells and connections are gone. Only once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           s.handler(ctx),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded{l}) }()
	var err error
	select {
	case <-ctx.Done():
		cancel()
		_ = server.Close()
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = fmt.Errorf("serve terminals: %w", ended)
		}
	case err = <-served:
		err = fmt.Errorf("serve terminals: %w", err)
		cancel()
		_ = server.Close()
	}
	s.close()
	return err
}

// close ends every terminal and waits for all that was started.
func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	open := make([]*terminal, 0, len(s.terminals))
	for _, t := range s.terminals {
		open = append(open, t)
	}
	s.mu.Unlock()
	for _, t := range open {
		t.end()
	}
	s.tasks.Wait()
}

// Terminals lists those whose shell lives, oldest first.
func (s *Server) Terminals() []control.Terminal {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []control.Terminal{}
	for _, t := range s.terminals {
		if info, alive := t.info(); alive {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b control.Terminal) int { return a.Started.Compare(b.Started) })
	return list
}

// End hangs up a terminal's shell, kills it if it does not go, and forgets the
// terminal. It returns [ErrNoTerminal] for a name that is not there.
func (s *Server) End(name string) error {
	s.mu.Lock()
	t := s.terminals[name]
	delete(s.terminals, name)
	s.mu.Unlock()
	if t == nil {
		return fmt.Errorf("end terminal %q: %w", name, ErrNoTerminal)
	}
	t.end()
	return nil
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

const maxName = 64

// join adds v to the terminal of that name, which is made when there is none;
// an empty name makes a new one.
func (s *Server) join(name string, v *viewer) (*terminal, error) {
	if name == "" {
		name = "t-" + randomHex(4)
	}
	if len(name) > maxName || !validName.MatchString(name) {
		return nil, fmt.Errorf("terminal name %.24q: only letters, digits, dot, dash and underscore, at most %d", name, maxName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the session is ending")
	}
	t := s.terminals[name]
	if t == nil {
		if len(s.terminals) >= maxTerminals && !s.evict() {
			return nil, errFull
		}
		t = newTerminal(s, name)
		s.terminals[name] = t
		t.mu.Lock()
		t.size, t.want, t.left = v.size, v.size, t.started
		t.marks = []sizeMark{{size: v.size, seq: 1}}
		t.startShell()
		t.mu.Unlock()
	}
	return t, t.attach(v)
}

// evict makes room by ending the terminal that has been without viewers for
// longest, among those whose shell has ended or sits at its prompt without a
// job. The lock is held.
func (s *Server) evict() bool {
	var oldest *terminal
	var since time.Time
	for _, t := range s.terminals {
		if left, idle := t.idle(); idle && (oldest == nil || left.Before(since)) {
			oldest, since = t, left
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.terminals, oldest.name)
	s.tasks.Go(oldest.end)
	return true
}

// forget drops t if its shell has ended and nobody watches. Else it tells how
// long to wait before asking again, 0 for not at all.
func (s *Server) forget(t *terminal) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	over, wait := t.abandoned()
	if over && s.terminals[t.name] == t {
		delete(s.terminals, t.name)
	}
	return wait
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// bounded keeps the kernel's part of what is on its way to a client small, so
// that Ctrl+C under a flood shows at once also at clients without a window.
type bounded struct{ net.Listener }

const socketBuffer = 128 << 10

func (l bounded) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(socketBuffer)
	}
	return conn, err
}
