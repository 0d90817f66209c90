package fake_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
	"backendai/internal/engine/fake"
)

// limit bounds every wait of these tests.
const limit = 20 * time.Second

func newEngine(t *testing.T, o fake.Options) *fake.Engine {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	e, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func spec(id string) engine.Spec {
	return engine.Spec{ID: id, Runner: control.Config{
		SessionID: id, Secret: []byte("secret of " + id), Home: "/home/work",
		Env: map[string]string{"HOME": "/home/work", "PATH": os.Getenv("PATH")},
	}}
}

func client(t *testing.T, e *fake.Engine, s engine.Spec) *control.Client {
	t.Helper()
	c := control.NewClient(func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, s.ID) }, s.Runner.Secret)
	t.Cleanup(c.Close)
	return c
}

func TestLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	e := newEngine(t, fake.Options{})
	exits, err := e.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := spec("one")
	s.Runner.Batch = &control.Batch{Command: "echo printed; exit 3"}
	s.Runner.Files = []control.File{{Path: "sub/file", Mode: 0o600, Data: []byte("kept")}}
	if err := e.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	c := client(t, e, s)
	if h, err := c.Ready(ctx); err != nil || h.SessionID != "one" {
		t.Fatalf("ready: %+v, %v", h, err)
	}
	var got control.Event
	if err := c.Events(ctx, func(ev control.Event) bool { got = ev; return false }); err != nil {
		t.Fatal(err)
	}
	if got.Type != control.EventBatchFinished || got.ExitCode != 3 || got.Reason != backendai.ReasonTaskFailed {
		t.Errorf("event %+v, want the batch's end with exit code 3", got)
	}
	if err := e.Stop(ctx, "one", limit); err != nil {
		t.Fatal(err)
	}
	if exit := <-exits; exit.ID != "one" || exit.Code != 3 || exit.Reason != backendai.ReasonTaskFailed {
		t.Errorf("exit %+v, want code 3, %s", exit, backendai.ReasonTaskFailed)
	}
	logs, err := e.Logs(ctx, "one", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(logs)
	logs.Close()
	if err != nil || string(text) != "printed\n" {
		t.Errorf("log %q, %v", text, err)
	}
	if _, err := e.Dial(ctx, "one"); backendai.CodeOf(err) != backendai.CodeUnavailable {
		t.Errorf("dial of a stopped session: %v", err)
	}

	// The same again: the home is kept, and a kill is seen as one.
	s.Runner.Batch = &control.Batch{Command: "cat sub/file; echo; exec sleep 600"}
	s.Runner.Files = nil
	if err := e.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	follow, err := c.Logs(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	for lines := bufio.NewScanner(follow); lines.Scan() && lines.Text() != "kept"; {
	}
	if err := e.Stop(ctx, "one", 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-exits; exit.Code != 137 || exit.Reason != backendai.ReasonForced {
		t.Errorf("exit %+v, want code 137, %s", exit, backendai.ReasonForced)
	}
	if err := e.Remove(ctx, "one", 0); err != nil {
		t.Fatal(err)
	}
	if list, err := e.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("list after remove: %+v, %v", list, err)
	}
}

func TestCreateFailsAsTold(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("no room")
	e := newEngine(t, fake.Options{Dir: dir, FailCreate: func(engine.Spec) error { return broken }})
	if err := e.Create(t.Context(), spec("one")); !errors.Is(err, broken) {
		t.Errorf("create: %v", err)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestServiceAndPorts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	definitions := t.TempDir()
	text := `{"command": ["python3", "-m", "http.server", "--bind", "{loopback}", "{ports[0]}"], "env": {"PYTHONUNBUFFERED": "1"}}`
	if err := os.WriteFile(filepath.Join(definitions, "web.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, fake.Options{Definitions: definitions})
	// Two sessions have the same port.
	for _, id := range []string{"one", "two"} {
		s := spec(id)
		s.Runner.ServicePorts = "web:http:8080"
		s.Runner.Files = []control.File{{Path: "who", Mode: 0o644, Data: []byte("I am " + id)}}
		if err := e.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
		c := client(t, e, s)
		if reply, err := c.Start(ctx, "web", control.StartRequest{}); err != nil || reply.Port != 8080 || reply.Status != control.StatusStarted {
			t.Fatalf("start: %+v, %v", reply, err)
		}
		conn, err := e.DialPort(ctx, id, 8080)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /who HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasSuffix(string(answer), "I am "+id) {
			t.Errorf("answer of %s: %q, %v", id, answer, err)
		}
	}
	if _, err := e.DialPort(ctx, "one", 9); backendai.CodeOf(err) != backendai.CodeUnavailable {
		t.Errorf("port without a listener: %v", err)
	}
	if _, err := e.DialPort(ctx, "three", 9); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("session that is not there: %v", err)
	}
}

func TestAnotherEngineSeesTheDead(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir := t.TempDir()
	e := newEngine(t, fake.Options{Dir: dir})
	if err := e.Create(ctx, spec("one")); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(ctx, "one", limit); err != nil {
		t.Fatal(err)
	}
	list, err := newEngine(t, fake.Options{Dir: dir}).List(ctx)
	if err != nil || len(list) != 1 || list[0].Running || list[0].Exit == nil || list[0].Exit.Reason != backendai.ReasonUserRequested {
		t.Errorf("list: %+v, %v", list, err)
	}
}
