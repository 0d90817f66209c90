//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"
)

// terminalSession is the session whose terminals are used.
const terminalSession = "bench-terminal"

// floodLine is what a flood repeats.
const floodLine = "a line of output as compilers write it, of eighty characters or so, and no more."

// The letters of the terminal's protocol.
const (
	letterInput  = '0'
	letterOutput = '0'
)

// terminal compares the session's web terminal with a plain pseudo terminal.
func (b *bench) terminal(ctx context.Context) error {
	p := b.platform
	if _, err := p.session(ctx, terminalSession, "-r", "cpu=2", "-r", "mem=1g"); err != nil {
		return err
	}
	way, err := p.app(ctx, terminalSession, "ttyd")
	if err != nil {
		return err
	}
	defer way.close()
	if err := b.floods(ctx, way.port); err != nil {
		return fmt.Errorf("flood: %w", err)
	}
	if err := b.keys(ctx, way.port); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return p.remove(ctx, terminalSession)
}

// screen is a terminal with a program in it that repeats what is typed or
// floods.
type screen interface {
	io.Reader // the output
	io.Writer // the keys
	close()
}

// floods measures how fast the output of a program that never stops comes.
func (b *bench) floods(ctx context.Context, port string) error {
	size := b.size / 4
	var ours, raw series
	for range b.rounds(7) {
		for _, try := range []struct {
			to   *series
			open func() (screen, error)
		}{
			{&ours, func() (screen, error) { return newViewer(ctx, port, "") }},
			{&raw, func() (screen, error) { return newRaw(ctx) }},
		} {
			s, err := try.open()
			if err != nil {
				return err
			}
			took, err := flood(s, size)
			s.close()
			if err != nil {
				return err
			}
			try.to.rate(size, took)
		}
	}
	b.table.add(row{"terminal: flood", ours, megabytes, "raw terminal", raw, budget{ratioAtLeast, 0.5}})
	return nil
}

// flood lets a shell repeat a line until so many bytes have come.
func flood(s screen, size int64) (time.Duration, error) {
	if err := command(s, "stty -echo; yes '"+floodLine+"'", floodLine+"\r\n"); err != nil {
		return 0, err
	}
	began := time.Now()
	piece := make([]byte, pieceSize)
	for left := size; left > 0; {
		n, err := s.Read(piece)
		if err != nil {
			return 0, err
		}
		left -= int64(n)
	}
	took := time.Since(began)
	// A terminal goes on when nobody looks: the flood has to be ended.
	if _, err := io.WriteString(s, "\x03"); err != nil {
		return 0, err
	}
	return took, command(s, "echo 'ov'er; exit", "over\r\n")
}

// command types a command for a shell and reads to the end of an answer that is
// not in the command itself.
func command(s screen, text, answer string) error {
	if _, err := io.WriteString(s, text+"\n"); err != nil {
		return err
	}
	var said []byte
	piece := make([]byte, 4096)
	for !bytes.Contains(said, []byte(answer)) {
		n, err := s.Read(piece)
		if err != nil {
			return fmt.Errorf("wait for %q: %w: %q", answer, err, said)
		}
		said = append(said[max(0, len(said)-len(piece)):], piece[:n]...)
	}
	return nil
}

// keys measures from a key to its echo while another terminal floods.
func (b *bench) keys(ctx context.Context, port string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	noise, err := newViewer(ctx, port, "noise")
	if err != nil {
		return err
	}
	defer noise.close()
	if err := command(noise, "stty -echo; exec yes '"+floodLine+"'", floodLine+"\r\n"); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, noise) // until it is closed
	}()
	ours, err := newViewer(ctx, port, "keys")
	if err != nil {
		return err
	}
	defer ours.close()
	raw, err := newRaw(ctx)
	if err != nil {
		return err
	}
	defer raw.close()
	const repeat = "stty raw -echo; echo 'u'p; exec cat"
	for _, s := range []screen{ours, raw} {
		if err := command(s, repeat, "up\n"); err != nil {
			return err
		}
	}
	var medians, tails, rawMedians, rawTails series
	for range b.rounds(10) {
		for _, try := range []struct {
			s             screen
			medians, tail *series
		}{{ours, &medians, &tails}, {raw, &rawMedians, &rawTails}} {
			times, err := strokes(try.s, 300)
			if err != nil {
				return err
			}
			*try.medians = append(*try.medians, times.median())
			*try.tail = append(*try.tail, times.quantile(0.99))
		}
	}
	b.table.add(row{"terminal: key to echo beside a flood, median", medians, milliseconds, "raw terminal", rawMedians, budget{addsAtMost, 0.001}})
	b.table.add(row{"terminal: key to echo beside a flood, 99th percentile", tails, milliseconds, "raw terminal", rawTails, budget{addsAtMost, 0.005}})
	return nil
}

// strokes types keys, a few milliseconds apart as nobody can, and times each.
func strokes(s screen, n int) (times series, err error) {
	pace := time.NewTicker(3 * time.Millisecond)
	defer pace.Stop()
	echo := make([]byte, 16)
	for range n {
		<-pace.C
		began := time.Now()
		if _, err := s.Write([]byte("k")); err != nil {
			return nil, err
		}
		if n, err := s.Read(echo); err != nil || string(echo[:n]) != "k" {
			return nil, errors.Join(err, fmt.Errorf("the echo of a key is %q", echo[:n]))
		}
		times.add(time.Since(began))
	}
	return times, nil
}

// viewer is a WebSocket on a web terminal.
type viewer struct {
	ctx  context.Context
	conn *websocket.Conn
	rest []byte // of the last message
}

// newViewer opens a terminal; one without a name is a new one.
func newViewer(ctx context.Context, port, name string) (*viewer, error) {
	url := "ws://127.0.0.1:" + port + "/ws"
	if name != "" {
		url += "?session=" + name
	}
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"tty"}})
	if err != nil {
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	conn.SetReadLimit(1 << 20)
	v := &viewer{ctx: ctx, conn: conn}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"AuthToken":"","columns":80,"rows":24}`)); err != nil {
		v.close()
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	return v, nil
}

// Read implements io.Reader with the terminal's output.
func (v *viewer) Read(p []byte) (int, error) {
	for len(v.rest) == 0 {
		_, message, err := v.conn.Read(v.ctx)
		if err != nil {
			return 0, err
		}
		if len(message) > 0 && message[0] == letterOutput {
			v.rest = message[1:]
		}
	}
	n := copy(p, v.rest)
	v.rest = v.rest[n:]
	return n, nil
}

// Write implements io.Writer with the terminal's input.
func (v *viewer) Write(p []byte) (int, error) {
	return len(p), v.conn.Write(v.ctx, websocket.MessageBinary, slices.Concat([]byte{letterInput}, p))
}

func (v *viewer) close() { _ = v.conn.CloseNow() }

// raw is a shell in a pseudo terminal of our own.
type raw struct {
	*os.File

	cmd *exec.Cmd
}

func newRaw(ctx context.Context) (*raw, error) {
	cmd := exec.CommandContext(ctx, "/bin/bash", "--norc")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "TERM=") }), "TERM=xterm-256color")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	return &raw{f, cmd}, nil
}

func (r *raw) close() {
	_ = r.Close()
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // it was killed
}
