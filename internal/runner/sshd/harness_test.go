//go:build linux

package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai/internal/control"
	"backendai/internal/runner/process"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines of ours that do not end.
func leaked() string {
	var left string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		buffer := make([]byte, 1<<20)
		left = ""
		for stack := range strings.SplitSeq(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
			if strings.Contains(stack, "backendai/") && !strings.Contains(stack, "sshd.TestMain") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

// logBuffer keeps what a server logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// keyPair makes a key in PEM and its public half.
func keyPair(t testing.TB, key any) (string, ssh.Signer) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(block))
	signer, err := ssh.ParsePrivateKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, signer
}

func ed25519Key(t testing.TB) (string, ssh.Signer) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair(t, private)
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// site is a running server with a client's folder beside it.
type site struct {
	home    string // of the session
	client  string // folder with id, known_hosts and config
	address string
	host    string
	port    string
	log     *logBuffer
	signer  ssh.Signer
	hostKey ssh.PublicKey
	keys    *Keys
	stop    func() error // ends the server and returns what Serve said
}

// serve starts a server; change may alter its options.
func serve(t testing.TB, change func(*Options)) *site {
	t.Helper()
	s := &site{home: t.TempDir(), client: t.TempDir(), log: &logBuffer{}}
	hostText, hostSigner := ed25519Key(t)
	key, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	rsaText, _ := keyPair(t, key)
	userText, signer := ed25519Key(t)
	s.signer, s.hostKey = signer, hostSigner.PublicKey()

	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.keys, err = PrepareKeys(s.home, control.SSH{
		AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))},
		PrivateKey:     userText,
	}, logger)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{
		HostKeys: []string{hostText, rsaText}, AuthorizedKeys: s.keys.Authorized, Table: process.NewTable(false),
		Home: s.home, Logger: logger, MOTD: "Welcome to the session\n",
		Env: map[string]string{"PATH": os.Getenv("PATH"), "SHELL": "/bin/bash", "BACKENDAI_SESSION_NAME": "mysession", "TERM": "xterm"},
	}
	if change != nil {
		change(&opts)
	}
	server, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	s.host, s.port, _ = net.SplitHostPort(s.address)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log)
		}
	})
	s.writeClient(t, userText)
	return s
}

// writeClient lays out what OpenSSH's programs need, host key checking on.
func (s *site) writeClient(t testing.TB, key string) {
	t.Helper()
	line := fmt.Sprintf("[%s]:%s %s", s.host, s.port, ssh.MarshalAuthorizedKey(s.hostKey))
	config := fmt.Sprintf(`Host sess
  HostName %s
  Port %s
  User work
  IdentityFile %s/id
  IdentitiesOnly yes
  UserKnownHostsFile %s/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
`, s.host, s.port, s.client, s.client)
	for name, text := range map[string]string{"id": key, "known_hosts": line, "config": config} {
		if err := os.WriteFile(filepath.Join(s.client, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// dial logs in with x/crypto's client.
func (s *site) dial(t testing.TB) *ssh.Client {
	t.Helper()
	c, err := s.tryDial("work", s.signer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) tryDial(user string, signer ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", s.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(s.hostKey),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
}

func (s *site) session(t testing.TB, c *ssh.Client) *ssh.Session {
	t.Helper()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

// command is a program of OpenSSH's with the site's configuration.
func (s *site) command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, append([]string{"-F", filepath.Join(s.client, "config")}, args...)...)
	cmd.Dir = s.client
	cmd.WaitDelay = time.Second
	return cmd
}

// output runs a client program, which must succeed, and returns its output.
func (s *site) output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := s.command(t, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, stderr.String())
	}
	return string(out)
}

// write makes a file with random content and returns it.
func write(t testing.TB, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}

func wantFile(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, not the %d that were sent", path, len(got), len(want))
	}
}
