// Package testserver runs a whole server inside a test: a state directory, a
// port and an administrator of its own, sessions as plain processes of the fake
// engine. It is for tests alone.
package testserver

import (
	"context"
	"maps"
	"testing"

	"backendai/internal/client"
	"backendai/internal/config"
	"backendai/internal/server"
)

// Account is a user and the keypair to act as that user.
type Account struct{ Email, AccessKey, SecretKey string }

// Server is a running server. It stops when the test ends.
type Server struct {
	Endpoint string
	StateDir string
	Admin    Account

	stop func() error
}

// Start runs a server with the given settings over its own; "state-dir" lets a
// test start a second server on what a first has left.
func Start(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	flags := map[string]string{"state-dir": "", "listen": "127.0.0.1:0", "engine": config.EngineFake}
	maps.Copy(flags, settings)
	if flags["state-dir"] == "" {
		flags["state-dir"] = t.TempDir()
	}
	cfg, err := config.Load(config.Source{Flags: flags})
	if err != nil {
		t.Fatalf("settings of the server: %v", err)
	}
	s, err := server.New(t.Context(), cfg, nil)
	if err != nil {
		t.Fatalf("make server: %v", err)
	}
	admin, _ := s.Admin()
	one := &Server{
		Endpoint: s.Endpoint(), StateDir: cfg.StateDir,
		Admin: Account{Email: admin.Email, AccessKey: admin.AccessKey, SecretKey: admin.SecretKey},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	one.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := one.stop(); err != nil {
			t.Errorf("run server: %v", err)
		}
	})
	<-s.Ready()
	return one
}

// Stop ends the server and waits for it; sessions go on.
func (s *Server) Stop() error { return s.stop() }

// Client is a client that acts as the account.
func (s *Server) Client(t testing.TB, a Account) *client.Client {
	t.Helper()
	env := s.env(a)
	cfg, err := client.LoadConfig(func(name string) string { return env[name] }, "")
	if err != nil {
		t.Fatalf("configure client: %v", err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatalf("make client: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// Env is the environment, as NAME=value, in which commands act as the account.
func (s *Server) Env(a Account) []string {
	var list []string
	for name, value := range s.env(a) {
		list = append(list, name+"="+value)
	}
	return list
}

func (s *Server) env(a Account) map[string]string {
	return map[string]string{"BACKEND_ENDPOINT": s.Endpoint, "BACKEND_ACCESS_KEY": a.AccessKey, "BACKEND_SECRET_KEY": a.SecretKey}
}

// AddUser makes a user without rights over others.
func (s *Server) AddUser(t testing.TB, email string) Account {
	t.Helper()
	row, err := s.Client(t, s.Admin).Mutate(t.Context(), "create_user", map[string]client.Argument{
		"email": {Type: "String!", Value: email},
		"props": {Type: "UserInput!", Value: map[string]any{"username": email, "password": "a long test password", "role": "user"}},
	}, "keypair { access_key secret_key }")
	if err != nil {
		t.Fatalf("add user %s: %v", email, err)
	}
	keypair, _ := row["keypair"].(map[string]any)
	access, _ := keypair["access_key"].(string)
	secret, _ := keypair["secret_key"].(string)
	return Account{Email: email, AccessKey: access, SecretKey: secret}
}
