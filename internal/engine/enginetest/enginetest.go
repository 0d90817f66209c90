// Package enginetest is the suite that every engine passes: it holds a driver
// to the contract of [engine.Engine].
package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
)

// Driver tells the suite how to have engines of one kind.
type Driver struct {
	// Open makes an engine that keeps everything below dir, and a function that
	// ends it without ending its sessions. Opened again on the same dir, it must
	// know the sessions that are there.
	Open func(t *testing.T, dir string) (e engine.Engine, shut func())
	// Image is what sessions are made of. Its digest means something to Open's engine.
	Image backendai.Image
	// Survives tells that sessions go on between shut and the next Open.
	Survives bool
}

// patience bounds every wait of the suite.
const patience = 30 * time.Second

// sshPort is where the runner's SSH server listens in every session.
const sshPort = 2200

// Run runs the suite.
func Run(t *testing.T, d Driver) {
	for name, test := range map[string]func(*testing.T, Driver){
		"Start":        start,
		"Port":         port,
		"RefusedPort":  refusedPort,
		"Watch":        watch,
		"StopTwice":    stopTwice,
		"Restart":      restart,
		"RemoveTwice":  removeTwice,
		"Reopen":       reopen,
		"Logs":         logs,
		"Many":         many,
		"HostileNames": hostileNames,
		"Absent":       absent,
		"Capacity":     capacity,
		"CreateTwice":  createTwice,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
}

// bench is one engine in use by a test.
type bench struct {
	engine.Engine
	driver Driver
	dir    string
	shut   func()
}

func open(t *testing.T, d Driver) *bench {
	t.Helper()
	b := &bench{driver: d, dir: t.TempDir()}
	b.Engine, b.shut = d.Open(t, b.dir)
	t.Cleanup(func() {
		all, err := b.List(context.Background())
		if err != nil {
			t.Errorf("list at the end: %v", err)
		}
		for _, c := range all {
			if err := b.Remove(context.Background(), c.ID, 0); err != nil {
				t.Errorf("remove %s at the end: %v", c.ID, err)
			}
		}
		b.shut()
	})
	return b
}

// Spec gives a session that any engine can run.
func Spec(d Driver) engine.Spec {
	id := strings.ToLower(rand.Text()[:20])
	config := control.Config{
		SessionID: id, SessionName: "suite", Secret: []byte(rand.Text()), Home: "/home/work", Loopback: "127.0.0.1",
		Env: map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/work", "USER": "work", "LANG": "C.UTF-8"},
		SSH: control.SSH{HostKeys: []string{hostKey()}},
	}
	return engine.Spec{
		ID: id, Hostname: "suite", Image: d.Image, Runner: config,
		Slots: backendai.Slots{backendai.SlotCPU: 1000, backendai.SlotMem: 512 << 20},
	}
}

// hostKey is the key of every session's SSH server.
var hostKey = sync.OnceValue(func() string {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // there is no randomness
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		panic(err) // the key is of a known kind
	}
	return string(pem.EncodeToMemory(block))
})

func (b *bench) create(t *testing.T) engine.Spec {
	t.Helper()
	s := Spec(b.driver)
	if err := b.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	return s
}

// Health asks a session's runner for a proof that it is the one of the
// specification.
func Health(ctx context.Context, e engine.Engine, s engine.Spec) error {
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, s.ID) }, s.Runner.Secret)
	defer client.Close()
	h, err := client.Health(ctx)
	if err != nil {
		return fmt.Errorf("ask runner: %w", err)
	}
	if h.SessionID != s.ID {
		return fmt.Errorf("the runner of session %s answers for %s", s.ID, h.SessionID)
	}
	return nil
}

func (b *bench) healthy(t *testing.T, s engine.Spec) {
	t.Helper()
	if err := Health(t.Context(), b, s); err != nil {
		t.Fatal(err)
	}
}

// ready waits until the runner's own apps accept connections.
func (b *bench) ready(t *testing.T, s engine.Spec) {
	t.Helper()
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) { return b.Dial(ctx, s.ID) }, s.Runner.Secret)
	defer client.Close()
	if _, err := client.Ready(t.Context()); err != nil {
		t.Fatalf("wait for runner: %v", err)
	}
}

func (b *bench) container(t *testing.T, id string) *engine.Container {
	t.Helper()
	all, err := b.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	for _, c := range all {
		if c.ID == id {
			return &c
		}
	}
	return nil
}

func start(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	b.healthy(t, s)
	if c := b.container(t, s.ID); c == nil || !c.Running {
		t.Errorf("a started container is listed as %+v", c)
	}
}

func createTwice(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	if err := b.Create(t.Context(), s); err != nil {
		t.Errorf("create again: %v", err)
	}
	b.healthy(t, s)
}

func port(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	b.ready(t, s)
	c, err := b.DialPort(t.Context(), s.ID, sshPort)
	if err != nil {
		t.Fatalf("dial port: %v", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Errorf("the port says %q, %v", line, err)
	}
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("%T cannot close one half", c)
	}
	if err := half.CloseWrite(); err != nil {
		t.Errorf("close write: %v", err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("read to the end after closing one half: %v", err)
	}
}

func refusedPort(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	b.ready(t, s)
	for _, port := range []int{9, 0, -1, 65536} {
		if c, err := b.DialPort(t.Context(), s.ID, port); err == nil {
			c.Close()
			t.Errorf("port %d took a connection", port)
		}
	}
}

func watch(t *testing.T, d Driver) {
	b := open(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits, err := b.Watch(ctx)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	s := b.create(t)
	b.healthy(t, s)
	if err := b.Stop(t.Context(), s.ID, patience); err != nil {
		t.Fatalf("stop: %v", err)
	}
	e := next(t, exits)
	if e.ID != s.ID || e.Reason != backendai.ReasonUserRequested || e.OOM || e.At.IsZero() {
		t.Errorf("a stop was reported as %+v", e)
	}
	killed := b.create(t)
	if err := b.Remove(t.Context(), killed.ID, 0); err != nil {
		t.Fatalf("remove: %v", err)
	}
	e = next(t, exits)
	if e.ID != killed.ID || e.Reason != backendai.ReasonForced || e.Code != 137 {
		t.Errorf("a kill was reported as %+v", e)
	}
	cancel()
	select {
	case _, open := <-exits:
		if open {
			t.Error("an exit came after the last one")
		}
	case <-time.After(patience):
		t.Error("the channel was not closed when its context ended")
	}
}

func next(t *testing.T, exits <-chan engine.Exit) engine.Exit {
	t.Helper()
	select {
	case e, ok := <-exits:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no exit was reported")
	}
	panic("not reached")
}

func stopTwice(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	b.healthy(t, s)
	for range 2 {
		if err := b.Stop(t.Context(), s.ID, patience); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
	c := b.container(t, s.ID)
	if c == nil || c.Running || c.Exit == nil || c.Exit.Reason != backendai.ReasonUserRequested {
		t.Errorf("a stopped container is listed as %+v", c)
	}
	if conn, err := b.Dial(t.Context(), s.ID); err == nil {
		conn.Close()
		t.Error("a stopped container took a control connection")
	}
	if conn, err := b.DialPort(t.Context(), s.ID, sshPort); err == nil {
		conn.Close()
		t.Error("a stopped container took a connection")
	}
}

func restart(t *testing.T, d Driver) {
	b := open(t, d)
	s := Spec(d)
	s.Runner.Files = []control.File{{Path: "kept", Mode: 0o600, Data: []byte("x")}}
	if err := b.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	b.healthy(t, s)
	for range 2 {
		if err := b.Stop(t.Context(), s.ID, patience); err != nil {
			t.Fatalf("stop: %v", err)
		}
		if err := b.Create(t.Context(), s); err != nil {
			t.Fatalf("create after stop: %v", err)
		}
		b.healthy(t, s)
		if c := b.container(t, s.ID); c == nil || !c.Running || c.Exit != nil {
			t.Errorf("a restarted container is listed as %+v", c)
		}
	}
}

func removeTwice(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	for range 2 {
		if err := b.Remove(t.Context(), s.ID, 0); err != nil {
			t.Fatalf("remove: %v", err)
		}
	}
	if c := b.container(t, s.ID); c != nil {
		t.Errorf("a removed container is listed as %+v", c)
	}
	if r, err := b.Logs(t.Context(), s.ID, 1000); err == nil {
		r.Close()
		t.Error("a removed container has logs")
	}
}

func reopen(t *testing.T, d Driver) {
	b := open(t, d)
	running, stopped := b.create(t), b.create(t)
	b.healthy(t, running)
	b.healthy(t, stopped)
	if err := b.Stop(t.Context(), stopped.ID, patience); err != nil {
		t.Fatalf("stop: %v", err)
	}
	b.shut()
	b.Engine, b.shut = d.Open(t, b.dir)
	if c := b.container(t, stopped.ID); c == nil || c.Running || c.Exit == nil || c.Exit.Reason != backendai.ReasonUserRequested {
		t.Errorf("after a restart of the engine the stopped container is listed as %+v", c)
	}
	if !d.Survives {
		return
	}
	if c := b.container(t, running.ID); c == nil || !c.Running {
		t.Fatalf("after a restart of the engine the running container is listed as %+v", c)
	}
	b.healthy(t, running)
	b.ready(t, running)
	c, err := b.DialPort(t.Context(), running.ID, sshPort)
	if err != nil {
		t.Fatalf("dial port after a restart of the engine: %v", err)
	}
	c.Close()
	exits, err := b.Watch(t.Context())
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	if err := b.Stop(t.Context(), running.ID, patience); err != nil {
		t.Fatalf("stop after a restart of the engine: %v", err)
	}
	if e := next(t, exits); e.ID != running.ID || e.Reason != backendai.ReasonUserRequested {
		t.Errorf("a stop after a restart of the engine was reported as %+v", e)
	}
}

func logs(t *testing.T, d Driver) {
	b := open(t, d)
	s := b.create(t)
	b.healthy(t, s)
	if err := b.Stop(t.Context(), s.ID, patience); err != nil {
		t.Fatalf("stop: %v", err)
	}
	read := func(limit int64) []byte {
		r, err := b.Logs(t.Context(), s.ID, limit)
		if err != nil {
			t.Fatalf("logs: %v", err)
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("read logs: %v", err)
		}
		return text
	}
	all := read(1 << 20)
	const few = 5
	tail := read(few)
	if len(tail) > few || !bytes.HasSuffix(all, tail) || len(tail) < min(few, len(all)) {
		t.Errorf("the newest %d bytes of %q are %q", few, all, tail)
	}
}

func many(t *testing.T, d Driver) {
	b := open(t, d)
	const sessions = 20
	var group sync.WaitGroup
	for range sessions {
		group.Go(func() {
			s := Spec(d)
			if err := b.Create(t.Context(), s); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			if err := Health(t.Context(), b, s); err != nil {
				t.Error(err)
			}
			if err := b.Remove(t.Context(), s.ID, 0); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
	group.Wait()
	all, err := b.List(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("after all were removed there are %v, %v", all, err)
	}
}

func hostileNames(t *testing.T, d Driver) {
	b := open(t, d)
	for _, id := range []string{"", ".", "..", "../x", "a/b", "-rf", "a b", "a\x00b", "a\nb", strings.Repeat("x", 300)} {
		s := Spec(d)
		s.ID = id
		if err := b.Create(t.Context(), s); err == nil {
			t.Errorf("the id %q was taken", id)
		}
	}
}

func absent(t *testing.T, d Driver) {
	b := open(t, d)
	const id = "never-made"
	if err := b.Stop(t.Context(), id, 0); err != nil {
		t.Errorf("stop of nothing: %v", err)
	}
	if err := b.Remove(t.Context(), id, 0); err != nil {
		t.Errorf("remove of nothing: %v", err)
	}
	if c, err := b.Dial(t.Context(), id); err == nil {
		c.Close()
		t.Error("nothing took a control connection")
	}
	if c, err := b.DialPort(t.Context(), id, 80); err == nil {
		c.Close()
		t.Error("nothing took a connection")
	}
}

func capacity(t *testing.T, d Driver) {
	b := open(t, d)
	slots, err := b.Capacity(t.Context())
	if err != nil || slots[backendai.SlotCPU] <= 0 || slots[backendai.SlotMem] <= 0 {
		t.Errorf("capacity is %v, %v", slots, err)
	}
}
