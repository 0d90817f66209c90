// Package server builds the parts of the platform, gives them to each other and
// owns their lives. It is the only place that knows all of them.
//
// A server has two lifetimes. When its context ends it takes no more
// connections and lets requests finish for a short while; then it cuts what
// is left: tunnels, event streams, and calls that wait for a session. Sessions
// go on, and the next server on the same state directory adopts them.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/api"
	"backendai/internal/config"
	"backendai/internal/dotfile"
	"backendai/internal/session"
	"backendai/internal/tunnel"
	"backendai/internal/version"
	"backendai/internal/vfolder"
)

// The time limits of connections.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	drainTime  = time.Second
	maxHeader  = 64 << 10 // bytes
)

// errStopped is why what is left is cut at the end.
var errStopped = errors.New("the server stops")

// parts are what stands behind the API. close ends what run does not.
type parts struct {
	sessions session.API
	accounts account.API
	images   api.Images
	folders  vfolder.API
	dotfiles dotfile.API
	capacity func(ctx context.Context) (backendai.Slots, error)
	run      func(ctx context.Context) error // blocks until ctx ends
	close    func() error
}

// Server is one server on one state directory.
type Server struct {
	cfg      *config.Config
	log      *slog.Logger
	lock     *os.File
	listener net.Listener
	parts    *parts
	handler  *api.Handler
	admin    backendai.Keypair
	first    bool
	ready    chan struct{}
	close    sync.Once
}

// newServer is New on the parts that open gives.
func newServer(ctx context.Context, cfg *config.Config, logger *slog.Logger,
	open func(context.Context, *config.Config, *slog.Logger) (*parts, error),
) (_ *Server, err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: logger, ready: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.lock, err = lockFolder(cfg.StateDir); err != nil {
		return nil, err
	}
	// Taken before anything that takes long, so that a taken port is told at once.
	if s.listener, err = listen(ctx, cfg); err != nil {
		return nil, err
	}
	if s.parts, err = open(ctx, cfg, logger); err != nil {
		return nil, err
	}
	s.handler, err = api.New(api.Options{
		Sessions: s.parts.sessions, Accounts: s.parts.accounts, Images: s.parts.images, Folders: s.parts.folders, Dotfiles: s.parts.dotfiles,
		Capacity: s.parts.capacity, Proxies: cfg.Proxies(),
		Version: version.String(), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	if err := s.introduce(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// listen opens the port, with TLS if there is a certificate.
func listen(ctx context.Context, cfg *config.Config) (net.Listener, error) {
	var secure *tls.Config
	if cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "the certificate %s cannot be used: %w", cfg.TLSCert, err).
				WithHint("check tls-cert and tls-key")
		}
		// A tunnel takes its connection over, which HTTP/2 does not allow.
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the address %s is in use", cfg.Listen).
			WithHint("another program or server listens there; choose another address with --listen")
	}
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the address %s cannot be listened on: %w", cfg.Listen, err).
			WithHint("choose another address with --listen")
	}
	if secure != nil {
		return tls.NewListener(tunnel.UnderTLS(l), secure), nil
	}
	return l, nil
}

// Run serves until ctx ends or a part fails, and closes the server. It returns
// nil when ctx ended.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	hard, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errStopped)
	web := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext:  func(net.Listener) context.Context { return hard },
		ErrorLog:     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	g, soft := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		if err := s.parts.run(soft); err != nil && soft.Err() == nil {
			return fmt.Errorf("run sessions: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-soft.Done()
		drain, done := context.WithTimeout(hard, drainTime)
		defer done()
		if web.Shutdown(drain) != nil {
			cut(errStopped)
			_ = web.Close()
		}
		cut(errStopped)
		s.handler.End(errStopped)
		return nil
	})
	s.log.Info("server is ready", "address", s.Endpoint(), "state_dir", s.cfg.StateDir)
	close(s.ready)
	return g.Wait()
}

// Close gives everything back; sessions go on. Run does it by itself.
func (s *Server) Close() (err error) {
	s.close.Do(func() {
		if s.listener != nil {
			if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
				err = errors.Join(err, e)
			}
		}
		if s.parts != nil {
			err = errors.Join(err, s.parts.close())
		}
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
	})
	return err
}

// Ready is closed when the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Endpoint is the URL under which this machine reaches the server.
func (s *Server) Endpoint() string {
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	host, _, _ := net.SplitHostPort(s.cfg.Listen)
	switch ip := addr.IP; {
	case net.ParseIP(host) == nil && host != "":
		// The name that the server was told to listen on is the one in its certificate.
	case ip.IsUnspecified() && ip.To4() == nil:
		host = "localhost"
	case ip.IsUnspecified():
		host = "127.0.0.1"
	default:
		host = ip.String()
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// Admin is the administrator's keypair, and whether this start made it.
func (s *Server) Admin() (keypair backendai.Keypair, first bool) { return s.admin, s.first }
