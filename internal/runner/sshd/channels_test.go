//go:build linux

package sshd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestExitSignal(t *testing.T) {
	s := serve(t, nil)
	session := s.session(t, s.dial(t))
	err := session.Run("kill -USR1 $$")
	exit, ok := errors.AsType[*ssh.ExitError](err)
	if !ok || exit.Signal() != "USR1" {
		t.Errorf("%v", err)
	}
}

// A client whose own input is over closes its channel at the end of the output:
// how the program ended must have come by then.
func TestExitStatusComesBeforeTheEnd(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	for _, name := range []string{"exec", "subsystem"} {
		payload := map[string]string{"exec": "cat; exit 7", "subsystem": "sftp"}[name]
		ch, requests, err := client.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := ch.SendRequest(name, true, ssh.Marshal(struct{ Text string }{payload})); !ok || err != nil {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		if err := ch.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(ch); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-requests:
			if r == nil || r.Type != "exit-status" {
				t.Errorf("%s: first came %+v", name, r)
			}
		default:
			t.Errorf("%s: the output ended before the exit status came", name)
		}
		_ = ch.Close()
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	s := serve(t, nil)
	session := s.session(t, s.dial(t))
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("trap 'exit 9' TERM; (trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done) & while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("%q", lines.Text())
	}
	if err := session.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "child" {
		t.Fatalf("%q", lines.Text())
	}
	exit, ok := errors.AsType[*ssh.ExitError](session.Wait())
	if !ok || exit.ExitStatus() != 9 {
		t.Errorf("%v", exit)
	}
}

func TestTerminalModesAndResize(t *testing.T) {
	s := serve(t, nil)
	session := s.session(t, s.dial(t))
	modes := ssh.TerminalModes{ssh.ECHO: 0, ssh.VINTR: 5, ssh.VSUSP: 255, ssh.ONLCR: 0, ssh.TTY_OP_ISPEED: 9600}
	if err := session.RequestPty("vt220", 31, 77, modes); err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// wait ends at once for a trap, which read does not in every shell
	if err := session.Start("trap 'stty size; kill $!; exit' WINCH; stty -a; echo $TERM; sleep 300 & wait"); err != nil {
		t.Fatal(err)
	}
	text := bufio.NewReader(out)
	var seen strings.Builder
	for !strings.Contains(seen.String(), "vt220\n") {
		line, err := text.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		seen.WriteString(line)
	}
	for _, want := range []string{"rows 31; columns 77", "intr = ^E", "susp = <undef>", " -echo ", "-onlcr"} {
		if !strings.Contains(seen.String(), want) {
			t.Errorf("%q is not in %s", want, seen.String())
		}
	}
	if err := session.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	if line, err := text.ReadString('\n'); line != "50 132\n" || err != nil {
		t.Errorf("%q %v", line, err)
	}
}

// A client that goes away takes its process with it, but not what nohup keeps.
func TestHangUp(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal %v", terminal), func(t *testing.T) {
			s := serve(t, nil)
			client := s.dial(t)
			session := s.session(t, client)
			if terminal {
				if err := session.RequestPty("xterm", 24, 80, nil); err != nil {
					t.Fatal(err)
				}
			}
			out, err := session.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			fifo := filepath.Join(s.home, "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			// The shell holds the fifo's only other writer until it is hung up.
			command := "nohup sleep 321 >/dev/null 2>&1 </dev/null & echo $!; exec 9>fifo; echo alive >&9; read never <&1; sleep 300"
			if err := session.Start(command); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			survivor, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(survivor, syscall.SIGKILL) }()
			f, err := os.Open(fifo)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if _, err := io.ReadFull(f, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			_ = client.Close()
			if rest, err := io.ReadAll(f); err != nil || len(rest) > 0 { // ends when the process has
				t.Errorf("%q %v", rest, err)
			}
			if err := syscall.Kill(survivor, 0); err != nil {
				t.Errorf("what nohup started is gone: %v", err)
			}
		})
	}
}

// echo answers every connection with what it said, after its half-close.
func echo(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				all, _ := io.ReadAll(c)
				_, _ = c.Write(all)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l
}

type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func wantEcho(t *testing.T, conn any) {
	t.Helper()
	c, ok := conn.(duplex)
	if !ok {
		t.Fatalf("%T cannot half-close", conn)
	}
	defer func() { _ = c.Close() }()
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

func TestForwardToTheSession(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	tcp := echo(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	socket := echo(t, "unix", filepath.Join(t.TempDir(), "s"))
	for _, to := range [][2]string{{"tcp", tcp.Addr().String()}, {"tcp", "localhost:" + port}, {"unix", socket.Addr().String()}} {
		c, err := client.Dial(to[0], to[1])
		if err != nil {
			t.Fatal(err)
		}
		wantEcho(t, c)
	}
	if _, err := client.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Error("a closed port accepts")
	}
}

func TestForwardFromTheSession(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	path := filepath.Join(t.TempDir(), "s")
	tcp, err := client.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := client.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
	if _, err := client.ListenUnix(path); err == nil {
		t.Error("a socket that is there was replaced")
	}
	for _, l := range []net.Listener{tcp, socket} {
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := l.Accept()
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			wantEcho(t, c)
		})
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(all)
		_ = c.Close()
		wg.Wait()
	}
	// Cancelled is free again.
	for _, l := range []net.Listener{tcp, socket} {
		if err := l.Close(); err != nil {
			t.Errorf("cancel: %v", err)
		}
		again, err := net.Listen(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Errorf("after cancel: %v", err)
			continue
		}
		_ = again.Close()
	}
}

func TestAgentForwarding(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	ring := agent.NewKeyring()
	if err := agent.ForwardToAgent(client, ring); err != nil {
		t.Fatal(err)
	}
	session := s.session(t, client)
	if err := agent.RequestAgentForwarding(session); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("echo $SSH_AUTH_SOCK; read x"); err != nil {
		t.Fatal(err)
	}
	path, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	path = strings.TrimSpace(path)
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder of the socket: %v %v", info, err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	remote := agent.NewClient(c)
	if err := remote.Lock([]byte("x")); err != nil {
		t.Errorf("the agent does not answer: %v", err)
	}
	_ = c.Close()
	_ = in.Close()
	_ = session.Wait()
	_ = client.Close()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("the agent's folder is still there")
	}
}

func TestX11Forwarding(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	opened := client.HandleChannelOpen("x11")
	session := s.session(t, client)
	ok, err := session.SendRequest("x11-req", true, ssh.Marshal(struct {
		Single   bool
		Protocol string
		Cookie   string
		Screen   uint32
	}{false, "MIT-MAGIC-COOKIE-1", "00112233445566778899aabbccddeeff", 0}))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	out, err := session.Output(`echo $DISPLAY; xauth -f "$XAUTHORITY" list "$DISPLAY" 2>/dev/null || cat "$XAUTHORITY" >/dev/null; exec 9<>/dev/tcp/127.0.0.1/$((6000 + $(echo $DISPLAY | sed 's/.*:\([0-9]*\).*/\1/'))) && echo connected`)
	if err != nil || !strings.HasPrefix(string(out), "127.0.0.1:") || !strings.Contains(string(out), "connected") {
		t.Errorf("%q %v", out, err)
	}
	nc := <-opened
	if err := nc.Reject(ssh.Prohibited, "seen"); err != nil {
		t.Error(err)
	}
}

func TestManyChannels(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			session, err := client.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = session.Close() }()
			out, err := session.Output(fmt.Sprintf("head -c 300000 /dev/zero; exit %d", i))
			exit, _ := errors.AsType[*ssh.ExitError](err)
			if len(out) != 300000 || (i > 0 && (exit == nil || exit.ExitStatus() != i)) {
				t.Errorf("channel %d: %d bytes, %v", i, len(out), err)
			}
		})
	}
	wg.Wait()
}

func TestManyConnections(t *testing.T) {
	s := serve(t, nil)
	var wg sync.WaitGroup
	barrier := make(chan struct{}) // all are logged in at the same time
	var ready sync.WaitGroup
	for range 200 {
		ready.Add(1)
		wg.Go(func() {
			client, err := s.tryDial("work", s.signer)
			ready.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = client.Close() }()
			<-barrier
			session, err := client.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := session.Output("echo here"); string(out) != "here\n" || err != nil {
				t.Errorf("%q %v", out, err)
			}
		})
	}
	ready.Wait()
	close(barrier)
	wg.Wait()
}

func TestChannelFloodIsBounded(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	refused := 0
	for range maxChannels + 20 {
		_, requests, err := client.OpenChannel("session", nil)
		if err != nil {
			refused++
			continue
		}
		go ssh.DiscardRequests(requests)
	}
	if refused != 20 {
		t.Errorf("%d channels were refused", refused)
	}
}

func TestNoMoreSessions(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	if ok, _, err := client.SendRequest("no-more-sessions@openssh.com", true, nil); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := client.NewSession(); err == nil {
		t.Error("a session was opened")
	}
	if ok, _, err := client.SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestImageWithoutShell(t *testing.T) {
	s := serve(t, nil)
	server := &Server{opts: Options{Env: map[string]string{"PATH": "/nowhere"}}}
	c := &connection{server: server}
	for command, want := range map[string]bool{
		"scp -t .": true, "scp -r -p -f 'a b' c*": true, "scp -rpdt -- -x": true,
		"scp -t $(id)": false, "scp -t a; id": false, "scp a b": false, "scp -S x -t a": false, "ls": false, "scp -t -f a": false,
	} {
		if _, got := (&session{conn: c}).copier(command, true); got != want {
			t.Errorf("%q is served here: %v", command, got)
		}
	}
	client := s.dial(t)
	ch, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"netconf"})); ok || err != nil {
		t.Errorf("an unknown subsystem: %v %v", ok, err)
	}
}

// Whatever bytes come, the server answers or closes, and goes on serving others.
func TestHostileBytes(t *testing.T) {
	s := serve(t, nil)
	for name, bytes := range map[string]string{
		"nothing": "", "HTTP": "GET / HTTP/1.1\r\n\r\n", "a long version": strings.Repeat("x", 1<<20),
		"an oversized packet": "SSH-2.0-x\r\n\xff\xff\xff\xff\x04" + strings.Repeat("\x00", 1<<16),
	} {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(c, bytes) // the server closes in the middle of it
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		_ = c.Close()
	}
	client := s.dial(t)
	for _, request := range []string{"pty-req", "env", "exec", "x11-req", "window-change", "signal", "subsystem"} {
		ch, requests, err := client.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		if ok, err := ch.SendRequest(request, true, []byte{0xff, 0xff, 0xff, 0xff, 1}); ok || err != nil {
			t.Errorf("malformed %s: %v %v", request, ok, err)
		}
		_ = ch.Close()
	}
	for _, request := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "cancel-tcpip-forward"} {
		if ok, _, err := client.SendRequest(request, true, []byte{0xff}); ok || err != nil {
			t.Errorf("malformed %s: %v %v", request, ok, err)
		}
	}
}

// Serve ends with its context, whatever clients are doing, and lets go of
// programs that do not want to end.
func TestServeEnds(t *testing.T) {
	s := serve(t, nil)
	client := s.dial(t)
	session := s.session(t, client)
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("trap '' HUP; echo $$; sleep 60"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.stop() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-ended.Done():
		t.Error("Serve does not end")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}
