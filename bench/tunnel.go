//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tunnelSession is the session with the app at the far end.
const tunnelSession = "bench-tunnel"

// appPort is where that app listens in the session.
const appPort = 9000

// tunnel measures the way into a session.
func (b *bench) tunnel(ctx context.Context) error {
	p := b.platform
	if _, err := p.session(ctx, tunnelSession, "-r", "cpu=2", "-r", "mem=1g"); err != nil {
		return err
	}
	if err := b.install(ctx, tunnelSession); err != nil {
		return err
	}
	network, err := b.network(ctx, tunnelSession)
	if err != nil {
		return err
	}
	r, err := newRelays(ctx, b.self, network)
	if err != nil {
		return err
	}
	defer r.close()
	way, err := p.app(ctx, tunnelSession, strconv.Itoa(appPort))
	if err != nil {
		return err
	}
	if err := errors.Join(b.throughput(ctx, way.port, r.port), b.roundTrips(ctx, way.port, r.port)); err != nil {
		way.close()
		return err
	}
	b.manyConnections(ctx, way.port)
	shell, err := newShellForward(ctx, filepath.Join(b.dir, "sshd"), network)
	if err != nil {
		way.close()
		return fmt.Errorf("ssh -L: %w", err)
	}
	defer shell.close()
	err = b.overShell(ctx, way.port, shell, "ssh -L", "tunnel, 1 stream")
	way.close()
	if err != nil {
		return err
	}
	return errors.Join(b.overTLS(ctx, shell), p.remove(ctx, tunnelSession))
}

// network is the file of a session's network namespace.
func (b *bench) network(ctx context.Context, session string) (string, error) {
	id, err := b.platform.id(ctx, session)
	if err != nil {
		return "", err
	}
	pid, err := runner(id)
	return fmt.Sprintf("/proc/%d/ns/net", pid), err
}

// throughput moves one stream in either direction.
func (b *bench) throughput(ctx context.Context, port, baseline string) error {
	var down, up, downBase, upBase series
	for range b.rounds(9) {
		for _, try := range []struct {
			to   *series
			move func(ctx context.Context, port string, size int64) (time.Duration, error)
			port string
		}{{&down, fetch, port}, {&downBase, fetch, baseline}, {&up, send, port}, {&upBase, send, baseline}} {
			took, err := try.move(ctx, try.port, b.size)
			if err != nil {
				return err
			}
			try.to.rate(b.size, took)
		}
	}
	b.table.add(row{"tunnel, 1 stream, from the session", down, megabytes, "two relays", downBase, budget{ratioAtLeast, 0.9}})
	b.table.add(row{"tunnel, 1 stream, into the session", up, megabytes, "two relays", upBase, budget{ratioAtLeast, 0.9}})
	return nil
}

// roundTrips sends one byte to and fro, many times.
func (b *bench) roundTrips(ctx context.Context, port, baseline string) error {
	const each = 2000
	var trips, tripsBase series
	for range b.rounds(10) {
		for _, try := range []struct {
			to   *series
			port string
		}{{&trips, port}, {&tripsBase, baseline}} {
			if err := echo(ctx, try.port, each, try.to); err != nil {
				return err
			}
		}
	}
	b.table.add(row{"tunnel, round trip of 1 byte", trips, milliseconds, "two relays", tripsBase, budget{ratioAtMost, 1.1}})
	return nil
}

// overShell compares with the forwarding of ssh.
func (b *bench) overShell(ctx context.Context, port string, shell *shellForward, against, what string) error {
	var ours, theirs, trips, theirTrips series
	for range b.rounds(5) {
		for _, try := range []struct {
			rate, trips *series
			port        string
		}{{&ours, &trips, port}, {&theirs, &theirTrips, shell.port}} {
			took, err := fetch(ctx, try.port, b.size)
			if err != nil {
				return err
			}
			try.rate.rate(b.size, took)
			if err := echo(ctx, try.port, 500, try.trips); err != nil {
				return err
			}
		}
	}
	against += " " + shell.cipher
	b.table.add(row{what, ours, megabytes, against, theirs, budget{ratioAtLeast, 1.5}})
	b.table.add(row{what + ", round trip of 1 byte", trips, milliseconds, against, theirTrips, budget{}})
	return nil
}

// overTLS restarts the server with a certificate; the session goes on.
func (b *bench) overTLS(ctx context.Context, shell *shellForward) error {
	p := b.platform
	cert, key := filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	if err := writeCertificate(cert, key); err != nil {
		return err
	}
	if err := p.restart(ctx, "--tls-cert", cert, "--tls-key", key); err != nil {
		return err
	}
	way, err := p.app(ctx, tunnelSession, strconv.Itoa(appPort), "BACKEND_ENDPOINT=https://"+p.address, "SSL_CERT_FILE="+cert)
	if err == nil {
		err = b.overShell(ctx, way.port, shell, "ssh -L", "tunnel over TLS, 1 stream")
		way.close()
	}
	return errors.Join(err, p.restart(ctx))
}

// manyConnections has 500 open at once, half of which are ended by the client
// first and half by the app, and compares every byte.
func (b *bench) manyConnections(ctx context.Context, port string) {
	const connections, size = 500, 256 << 10
	var all, wrong series
	for round := range b.rounds(3) {
		began := time.Now()
		conns := make([]net.Conn, connections)
		seed := func(i int) string { return fmt.Sprintf("%d-%d", round, i) }
		faults := inParallel(connections, func(i int) (err error) {
			kind := "last"
			if i%2 == 1 {
				kind = "first"
			}
			conns[i], err = dial(ctx, port, fmt.Sprintf("%s %s %d", kind, seed(i), size))
			if err != nil {
				return err
			}
			_, err = io.ReadFull(conns[i], make([]byte, 1))
			return err
		})
		if len(faults) == 0 { // all are open now
			faults = inParallel(connections, func(i int) error {
				if i%2 == 1 {
					return hearFirst(ctx, port, conns[i], seed(i), size)
				}
				return hearLast(conns[i], seed(i), size)
			})
		}
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		all.add(time.Since(began))
		wrong = append(wrong, float64(len(faults)))
		if len(faults) > 0 {
			b.table.note("of 500 connections were wrong %d: %v", len(faults), faults[0])
		}
	}
	b.table.add(row{"500 connections at once, 256 KiB both ways", all, milliseconds, "", nil, budget{}})
	b.table.add(row{"500 connections at once: wrong bytes or ends", wrong, number, "", nil, budget{atMost, 0}})
}

// hearLast sends and ends its direction; all of the answer comes after that.
func hearLast(c net.Conn, seed string, size int64) error {
	sum, err := sendHalf(c, "up-"+seed, size)
	if err != nil {
		return err
	}
	return expect(c, seed, size, sum)
}

// hearFirst reads to the end, and sends after that.
func hearFirst(ctx context.Context, port string, c net.Conn, seed string, size int64) error {
	if err := expect(c, seed, size, ""); err != nil {
		return err
	}
	sum, err := sendHalf(c, "up-"+seed, size)
	if err != nil {
		return err
	}
	ask, err := dial(ctx, port, "sum "+seed+" 0")
	if err != nil {
		return err
	}
	defer ask.Close()
	got, err := io.ReadAll(ask)
	if err == nil && string(got) != sum {
		err = fmt.Errorf("connection %s: the app got other bytes than were sent", seed)
	}
	return err
}

// sendHalf sends what follows from seed, ends the direction and gives the sum.
func sendHalf(c net.Conn, seed string, size int64) (string, error) {
	var sent bytes.Buffer
	if _, err := io.CopyN(&sent, stream(seed), size); err != nil {
		return "", err
	}
	if _, err := c.Write(sent.Bytes()); err != nil {
		return "", err
	}
	if err := endSending(c); err != nil {
		return "", err
	}
	return hashAll(&sent)
}

// endSending ends our direction of a TCP connection.
func endSending(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() }

// expect reads to the end: what follows from seed, and then the text.
func expect(c net.Conn, seed string, size int64, text string) error {
	var want bytes.Buffer
	if _, err := io.CopyN(&want, stream(seed), size); err != nil {
		return err
	}
	want.WriteString(text)
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want.Bytes()) {
		err = fmt.Errorf("connection %s: %d bytes came that are not the %d that were sent", seed, len(got), want.Len())
	}
	return err
}

// connect connects to a local port.
func connect(ctx context.Context, port string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// dial connects to the app at a local port and sends the line that begins a connection.
func dial(ctx context.Context, port, line string) (net.Conn, error) {
	c, err := connect(ctx, port)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), c.Close())
	}
	return c, nil
}

// fetch reads a stream from the app at a local port.
func fetch(ctx context.Context, port string, size int64) (time.Duration, error) {
	c, err := dial(ctx, port, fmt.Sprintf("source %d", size))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // the way is open before the clock runs
		return 0, fmt.Errorf("open the way: %w", err)
	}
	began := time.Now()
	if err := ready(c); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	piece := make([]byte, pieceSize)
	for left := size; left > 0; {
		n, err := c.Read(piece)
		if err != nil {
			return 0, fmt.Errorf("read with %d bytes to come: %w", left, err)
		}
		left -= int64(n)
	}
	return time.Since(began), nil
}

// send writes a stream to the app at a local port.
func send(ctx context.Context, port string, size int64) (time.Duration, error) {
	c, err := dial(ctx, port, "sink 0")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, fmt.Errorf("open the way: %w", err)
	}
	began := time.Now()
	if err := source(c, size); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	if err := endSending(c); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, fmt.Errorf("read the end: %w", err)
	}
	return time.Since(began), nil
}

// echo times round trips of one byte.
func echo(ctx context.Context, port string, trips int, to *series) error {
	c, err := dial(ctx, port, "echo 0")
	if err != nil {
		return err
	}
	defer c.Close()
	for range 10 {
		if err := once(c); err != nil {
			return err
		}
	}
	for range trips {
		began := time.Now()
		if err := once(c); err != nil {
			return err
		}
		to.add(time.Since(began))
	}
	return nil
}

func once(c net.Conn) error {
	if _, err := c.Write([]byte{'x'}); err != nil {
		return fmt.Errorf("send a byte: %w", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return fmt.Errorf("get a byte back: %w", err)
	}
	return nil
}

// install copies this program into a session and runs it there as an app.
func (b *bench) install(ctx context.Context, session string) error {
	key, err := b.key(ctx, session)
	if err != nil {
		return err
	}
	way, err := b.platform.app(ctx, session, "sshd")
	if err != nil {
		return err
	}
	defer way.close()
	self, err := os.Open(b.self)
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	defer self.Close()
	script := fmt.Sprintf("cat > bench && chmod +x bench && { setsid ./bench serve %d </dev/null >serve.log 2>&1 & }; "+
		"until grep -q . serve.log; do sleep 0.05; done", appPort)
	cmd := b.platform.exec(ctx, append(slices.Concat([]string{"ssh"}, key.options("work", way.port)), script)...)
	cmd.Stdin = self
	_, err = timed(cmd)
	return err
}

// relays are what the tunnel is compared with: two in a row, of which the second
// connects inside the session's network as the server does.
type relays struct {
	port  string // of the first
	roles []*exec.Cmd
}

func newRelays(ctx context.Context, self, network string) (_ *relays, err error) {
	r := new(relays)
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	second, err := r.role(ctx, self, "relay", fmt.Sprintf("127.0.0.1:%d", appPort), network)
	if err != nil {
		return nil, err
	}
	r.port, err = r.role(ctx, self, "relay", "127.0.0.1:"+second)
	return r, err
}

// role starts this program in a role and gives the port that it prints.
func (r *relays) role(ctx context.Context, self string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, self, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	r.roles = append(r.roles, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	return strings.TrimSpace(line), nil
}

func (r *relays) close() {
	for _, cmd := range r.roles {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}
