package ttyd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"backendai/internal/runner/process"
)

// TestMain fails when a test leaves goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	deadline := time.After(10 * time.Second)
	for code == 0 {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "runner/ttyd.(*") && !strings.Contains(stacks, "process.(*Table)") {
			break
		}
		select {
		case <-deadline:
			fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+stacks)
			code = 1
		default:
			runtime.Gosched()
		}
	}
	os.Exit(code)
}

// running is a server under test.
type running struct {
	*Server
	addr string
	stop func()
}

// serve starts a server whose shell is a program that runs script, or path
// itself if that is absolute.
func serve(tb testing.TB, script string) *running {
	tb.Helper()
	path := script
	if !filepath.IsAbs(script) {
		path = filepath.Join(tb.TempDir(), "shell")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return serveOptions(tb, Options{Shell: func() (string, error) { return path, nil }})
}

func serveOptions(tb testing.TB, opts Options) *running {
	tb.Helper()
	opts.Home = tb.TempDir()
	opts.Table = process.NewTable(false)
	if opts.Env == nil {
		opts.Env = func() map[string]string {
			return map[string]string{"PATH": os.Getenv("PATH"), "PS1": "ready> ", "LANG": "C.UTF-8"}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{Server: New(opts), addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	}
	tb.Cleanup(r.stop)
	return r
}

// client is a program that watches a terminal.
type client struct {
	tb   testing.TB
	conn *websocket.Conn

	extended bool
	noAck    bool
	state    state
	states   int
	offset   uint64 // of the next byte of output
	output   bytes.Buffer
	title    string
	sizes    []size
	exit     *exit
	answers  string
	closed   error
	sink     func([]byte) // takes output instead of the buffer
}

type resume struct {
	Instance string `json:"instance"`
	Offset   uint64 `json:"offset"`
	Client   string `json:"client,omitempty"`
}

// connect opens a viewer; from is nil for a client of the upstream protocol.
func (r *running) connect(tb testing.TB, name string, z size, from *resume) *client {
	tb.Helper()
	conn, reply, err := websocket.Dial(tb.Context(), "ws://"+r.addr+"/ws?session="+name,
		&websocket.DialOptions{Subprotocols: []string{"tty"}})
	if err != nil {
		tb.Fatalf("dial: %v (%v)", err, reply)
	}
	conn.SetReadLimit(1 << 20)
	first := map[string]any{"AuthToken": "", "columns": z.Cols, "rows": z.Rows}
	if from != nil {
		first["resume"] = from
	}
	c := &client{tb: tb, conn: conn, extended: from != nil}
	if from != nil {
		c.offset = from.Offset
	}
	text, _ := json.Marshal(first)
	c.write(text)
	tb.Cleanup(c.cut)
	return c
}

func (c *client) cut() { _ = c.conn.CloseNow() }

func (c *client) write(p []byte) {
	c.tb.Helper()
	if err := c.conn.Write(c.tb.Context(), websocket.MessageBinary, p); err != nil {
		c.tb.Fatalf("write: %v", err)
	}
}

func (c *client) send(letter byte, payload string) {
	c.tb.Helper()
	c.write([]byte(string(letter) + payload))
}
func (c *client) typed(text string) { c.tb.Helper(); c.send(msgInput, text) }

// next takes one message; false when the connection is closed.
func (c *client) next() bool {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.tb.Context()), 30*time.Second)
	defer cancel()
	_, p, err := c.conn.Read(ctx)
	if err != nil {
		c.closed = err
		return false
	}
	c.take(p[0], p[1:])
	return true
}

func (c *client) take(letter byte, p []byte) {
	switch letter {
	case msgOutput:
		if c.sink != nil {
			c.sink(p)
		} else {
			c.output.Write(p)
		}
		c.offset += uint64(len(p))
		if c.extended && !c.noAck {
			c.send(msgAck, fmt.Sprint(c.offset))
		}
	case msgTitle:
		c.title = string(p)
	case msgState:
		c.state, c.exit = state{}, nil
		c.decode(p, &c.state)
		c.states++
		c.offset = c.state.Offset
		if c.state.Reset {
			c.output.Reset()
		}
	case msgSize:
		var z size
		c.decode(p, &z)
		c.sizes = append(c.sizes, z)
	case msgExit:
		c.exit = &exit{}
		c.decode(p, c.exit)
	case msgAnswers:
		c.answers = string(p)
	case msgModes, msgPrefs, msgTyped:
	default:
		c.tb.Fatalf("unknown message %q", letter)
	}
}

func (c *client) decode(p []byte, to any) {
	if err := json.Unmarshal(p, to); err != nil {
		c.tb.Fatalf("message %q: %v", p, err)
	}
}

// until reads until cond holds.
func (c *client) until(what string, cond func() bool) {
	c.tb.Helper()
	for !cond() {
		if !c.next() {
			c.tb.Fatalf("waiting for %s: %v; output: %.500q", what, c.closed, c.output.String())
		}
	}
}

// wait reads until the output contains text, and forgets the output up to there.
func (c *client) wait(text string) {
	c.tb.Helper()
	c.until(fmt.Sprintf("%q", text), func() bool { return bytes.Contains(c.output.Bytes(), []byte(text)) })
	at := bytes.Index(c.output.Bytes(), []byte(text))
	c.output.Next(at + len(text))
}

var std = size{80, 24}
