//go:build linux

package sshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"backendai/internal/runner/process"
)

// Port is where the runner listens inside a session.
const Port = 2200

// Bounds on what clients may hold. All of them are the session's own user, or
// a process in the session that was let near the port.
const (
	maxConnections = 1024             // accepted at once
	maxHandshakes  = 128              // not yet authenticated; more wait in the kernel's queue
	loginGrace     = 30 * time.Second // from accept to authenticated
	maxAuthTries   = 10               // failed tries; as many offers of keys are free
	maxChannels    = 512              // open channels of one connection

	keepaliveInterval = 15 * time.Second
	keepaliveLimit    = 2 * time.Minute // without an answer, the client is gone
)

// Options are what a Server is made of.
type Options struct {
	HostKeys       []string               // private keys in OpenSSH PEM; at least one. An RSA key is derived from Ed25519
	AuthorizedKeys func() ([]byte, error) // lines as in sshd(8), asked at each login; Keys.Authorized fits
	Table          *process.Table         // starts the processes
	Home           string                 // where processes and SFTP start
	User           string                 // the only login name; "work" when empty
	Env            map[string]string      // the environment of the session's processes
	MOTD           string                 // shown once at interactive logins without a command
	Logger         *slog.Logger           // nil discards
}

// Server serves SSH connections. It is safe for concurrent use.
type Server struct {
	opts       Options
	log        *slog.Logger
	config     *ssh.ServerConfig // with every host key
	modern     *ssh.ServerConfig // without RSA, if there are others
	handshakes chan struct{}     // a slot per unauthenticated connection
	slots      chan struct{}     // a slot per connection
}

// New makes a server; no goroutine runs before Serve. It fails when a host key
// cannot be parsed.
func New(opts Options) (*Server, error) {
	if opts.User == "" {
		opts.User = "work"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.AuthorizedKeys == nil || opts.Table == nil {
		return nil, errors.New("make ssh server: authorized keys and a process table are required")
	}
	s := &Server{
		opts:       opts,
		log:        opts.Logger,
		handshakes: make(chan struct{}, maxHandshakes),
		slots:      make(chan struct{}, maxConnections),
	}
	s.config = &ssh.ServerConfig{
		Config:            ssh.Config{Ciphers: ciphers(nil)},
		MaxAuthTries:      maxAuthTries,
		ServerVersion:     serverVersion,
		PublicKeyCallback: s.authenticate,
		BannerCallback:    s.banner,
	}
	signers, err := parseHostKeys(opts.HostKeys)
	if err != nil {
		return nil, err
	}
	modern := *s.config
	s.modern = s.config
	for _, signer := range signers {
		s.config.AddHostKey(signer)
		if signer.PublicKey().Type() != ssh.KeyAlgoRSA {
			modern.AddHostKey(signer)
			s.modern = &modern
		}
	}
	return s, nil
}

// ciphers are those of x/crypto that are offered to a client which knows some,
// nil for one of which that is not known. The client's first choice that we
// offer wins (RFC 4253 section 7.1), and OpenSSH's first are ChaCha20 and then
// the CTR modes, both much slower than AES-GCM where the processor has AES. So
// there GCM alone is offered to clients that have it, and to the others no
// ChaCha20, since all have CTR.
func ciphers(known []string) []string {
	all := ssh.SupportedAlgorithms().Ciphers
	if !cpu.X86.HasAES && !cpu.ARM64.HasAES {
		return all
	}
	gcm := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	if slices.ContainsFunc(gcm, func(name string) bool { return slices.Contains(known, name) }) {
		return gcm
	}
	return slices.DeleteFunc(all, func(name string) bool { return name == ssh.CipherChaCha20Poly1305 })
}

// banner tells a person who took another login name what to do; it is shown
// before authentication fails.
func (s *Server) banner(conn ssh.ConnMetadata) string {
	if conn.User() == s.opts.User {
		return ""
	}
	return fmt.Sprintf("This session has one login name: use %s@ in front of the host.\r\n", s.opts.User)
}

// Serve accepts connections until ctx ends or l breaks, and closes l. It
// returns after everything it started has ended, but for processes that
// ignore SIGHUP; nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer func() { _ = l.Close() }()
	for {
		select {
		case s.handshakes <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if err != nil {
			<-s.handshakes
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept ssh connections: %w", err)
			}
			s.log.Warn("accept ssh connection", "err", err) // out of descriptors: connections that end give some back
			pause(ctx, 100*time.Millisecond)
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			<-s.handshakes
			s.log.Warn("ssh connection refused: too many are open", "limit", maxConnections)
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-s.slots }()
			s.serve(ctx, conn)
		})
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// serve runs one connection to its end and gives its handshake slot back.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	defer func() { _ = nc.Close() }()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	release := sync.OnceFunc(func() { <-s.handshakes })
	defer release()

	_ = nc.SetDeadline(time.Now().Add(loginGrace)) // a conn without deadlines would be a test's pipe
	greeted, config := s.greet(nc)
	_ = nc.SetReadDeadline(time.Now().Add(loginGrace))
	sc, channels, requests, err := ssh.NewServerConn(greeted, config)
	if err != nil {
		s.log.Debug("ssh handshake ended", "remote", nc.RemoteAddr().String(), "err", err)
		return
	}
	_ = nc.SetDeadline(time.Time{})
	release()

	granted, ok := sc.Permissions.ExtraData[grantKey{}].(*grant)
	if !ok {
		return // authenticate sets it on every success
	}
	c := &connection{
		server: s, ssh: sc, grant: granted,
		log:      s.log.With("remote", nc.RemoteAddr().String()),
		slots:    make(chan struct{}, maxChannels),
		forwards: map[string]net.Listener{},
	}
	c.log.Info("ssh login", "client", strings.ToValidUTF8(string(sc.ClientVersion()), "?"), "key", granted.fingerprint)
	c.run(ctx, channels, requests)
}
