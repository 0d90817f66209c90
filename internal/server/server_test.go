package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/auth"
	"backendai/internal/config"
	"backendai/internal/session"
)

// accounts is a scripted account.API with one administrator.
type accounts struct {
	account.API
	user    backendai.User
	keypair backendai.Keypair
	made    bool
}

func newAccounts() *accounts {
	return &accounts{
		user:    backendai.User{ID: "admin", Email: "admin@example.org", Role: backendai.RoleSuperadmin, Active: true},
		keypair: backendai.Keypair{AccessKey: "AKIAADMIN", SecretKey: "secret", UserID: "admin", Active: true},
	}
}

func (a *accounts) Bootstrap(context.Context) (*backendai.Keypair, bool, error) {
	if a.made {
		return nil, false, nil
	}
	a.made = true
	return &a.keypair, true, nil
}

func (a *accounts) Hold(context.Context, string) (context.Context, func(), error) {
	return context.Background(), func() {}, nil
}

func (a *accounts) Users(context.Context, backendai.Caller) ([]*backendai.User, error) {
	return []*backendai.User{&a.user}, nil
}

func (a *accounts) Keypairs(context.Context, backendai.Caller) ([]*backendai.Keypair, error) {
	return []*backendai.Keypair{&a.keypair}, nil
}

func (a *accounts) Lookup(_ context.Context, key string) (backendai.Caller, error) {
	if key != a.keypair.AccessKey {
		return backendai.Caller{}, backendai.Errorf(backendai.CodeAuthFailed, "unknown key")
	}
	return backendai.Caller{User: a.user, Keypair: a.keypair}, nil
}

func (a *accounts) Act(_ context.Context, caller backendai.Caller, _ string) (backendai.Caller, error) {
	return caller, nil
}

// endless is a session.API whose event streams end with their contexts.
type endless struct{ session.API }

func (endless) Events(ctx context.Context, _ backendai.Caller, _ session.EventFilter) (<-chan backendai.Event, error) {
	events := make(chan backendai.Event)
	go func() {
		<-ctx.Done()
		close(events)
	}()
	return events, nil
}

type opener func(context.Context, *config.Config, *slog.Logger) (*parts, error)

func scripted(a *accounts) opener {
	return func(context.Context, *config.Config, *slog.Logger) (*parts, error) {
		return &parts{
			sessions: endless{}, accounts: a,
			run:   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			close: func() error { return nil },
		}, nil
	}
}

func settings(t *testing.T, flags map[string]string) *config.Config {
	t.Helper()
	all := map[string]string{"state-dir": t.TempDir(), "listen": "127.0.0.1:0", "engine": "fake"}
	for k, v := range flags {
		all[k] = v
	}
	c, err := config.Load(config.Source{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a server until the test ends or stop is called; stop gives what Run returned.
func start(t *testing.T, cfg *config.Config, open opener) (s *Server, stop func() error) {
	t.Helper()
	s, err := newServer(t.Context(), cfg, nil, open)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var result error
	ended := false
	stop = func() error {
		if !ended {
			cancel()
			result, ended = <-done, true
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	<-s.Ready()
	return s, stop
}

func get(t *testing.T, s *Server, client *http.Client, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Endpoint()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	auth.Sign(req, s.admin.AccessKey, s.admin.SecretKey, "v6.20220315", "text/plain", time.Now())
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestServesAndStops(t *testing.T) {
	s, stop := start(t, settings(t, nil), scripted(newAccounts()))
	client := &http.Client{Transport: &http.Transport{}}
	if resp := get(t, s, client, "/auth?echo=x"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

func TestStreamsAreCutAtTheEnd(t *testing.T) {
	s, stop := start(t, settings(t, nil), scripted(newAccounts()))
	resp := get(t, s, &http.Client{Transport: &http.Transport{}}, "/events/session")
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Logf("the stream ended with %v", err)
	}
}

func TestFailedPartStopsTheServer(t *testing.T) {
	want := errors.New("the engine is gone")
	open := func(ctx context.Context, cfg *config.Config, log *slog.Logger) (*parts, error) {
		p, err := scripted(newAccounts())(ctx, cfg, log)
		p.run = func(context.Context) error { return want }
		return p, err
	}
	s, err := newServer(t.Context(), settings(t, nil), nil, open)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, want) {
		t.Errorf("Run = %v", err)
	}
}

func TestOneServerPerStateDirectory(t *testing.T) {
	cfg := settings(t, nil)
	_, stop := start(t, cfg, scripted(newAccounts()))
	_, err := newServer(t.Context(), cfg, nil, scripted(newAccounts()))
	if e, ok := errors.AsType[*backendai.Error](err); !ok || !strings.Contains(e.Title, cfg.StateDir) || e.Hint == "" {
		t.Errorf("a second server: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s, err := newServer(t.Context(), cfg, nil, scripted(newAccounts()))
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestServersSideBySide(t *testing.T) {
	a, _ := start(t, settings(t, nil), scripted(newAccounts()))
	b, _ := start(t, settings(t, nil), scripted(newAccounts()))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, s := range []*Server{a, b} {
		if resp := get(t, s, client, "/"); resp.StatusCode != 200 {
			t.Errorf("%s: %d", s.Endpoint(), resp.StatusCode)
		}
	}
}

func TestPortInUse(t *testing.T) {
	a, _ := start(t, settings(t, nil), scripted(newAccounts()))
	opened := false
	_, err := newServer(t.Context(), settings(t, map[string]string{"listen": a.Addr().String()}), nil,
		func(context.Context, *config.Config, *slog.Logger) (*parts, error) { opened = true; return nil, nil })
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok || !strings.Contains(e.Title, a.Addr().String()) || !strings.Contains(e.Hint, "--listen") || strings.Contains(e.Title, "\n") {
		t.Errorf("%v", err)
	}
	if opened {
		t.Error("the parts were opened before the port was taken")
	}
}

func TestAdminFile(t *testing.T) {
	cfg, a := settings(t, nil), newAccounts()
	for _, first := range []bool{true, false} {
		s, stop := start(t, cfg, scripted(a))
		path := filepath.Join(cfg.StateDir, AdminFile)
		text, err := os.ReadFile(path)
		want := "export BACKEND_ENDPOINT=" + s.Endpoint() + "\nexport BACKEND_ACCESS_KEY=AKIAADMIN\nexport BACKEND_SECRET_KEY=secret\n"
		if err != nil || string(text) != want {
			t.Errorf("%q, %v; want %q", text, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if _, got := s.Admin(); got != first {
			t.Errorf("first start: %t, want %t", got, first)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil { // as if the first start had ended before it wrote
			t.Error(err)
		}
	}
	a.keypair.Active = false
	s, _ := start(t, cfg, scripted(a))
	if k, _ := s.Admin(); k.AccessKey != "" {
		t.Errorf("an inactive keypair is given out: %s", k.AccessKey)
	}
}

func TestTLS(t *testing.T) {
	cert, key, pool := certificate(t)
	s, _ := start(t, settings(t, map[string]string{"tls-cert": cert, "tls-key": key}), scripted(newAccounts()))
	if !strings.HasPrefix(s.Endpoint(), "https://127.0.0.1:") {
		t.Errorf("endpoint %s", s.Endpoint())
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	if resp := get(t, s, &http.Client{Transport: transport}, "/auth"); resp.StatusCode != 200 || resp.ProtoMajor != 1 {
		t.Errorf("status %d over %s", resp.StatusCode, resp.Proto)
	}
	_, err := newServer(t.Context(), settings(t, map[string]string{"tls-cert": key, "tls-key": cert}), nil, scripted(newAccounts()))
	if e, ok := errors.AsType[*backendai.Error](err); !ok || !strings.Contains(e.Title, key) {
		t.Errorf("swapped files: %v", err)
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}
