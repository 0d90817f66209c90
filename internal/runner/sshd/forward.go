//go:build linux

package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai/internal/runner/process"
)

const (
	dialTimeout = 30 * time.Second
	maxForwards = 128 // listeners of one connection
)

// Payloads of RFC 4254 section 7 and of OpenSSH's PROTOCOL sections 2.4.
type (
	directTCP struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	forwardTCP struct {
		Host string
		Port uint32
	}
	directSocket struct {
		Path     string
		Reserved string
		Unused   uint32
	}
	forwardSocket struct {
		Path string
	}
	forwardedSocket struct {
		Path     string
		Reserved string
	}
)

// openTCP connects a channel to an address as the session sees it (-L, -D, -W).
func (c *connection) openTCP(ctx context.Context, nc ssh.NewChannel) {
	var target directTCP
	if err := ssh.Unmarshal(nc.ExtraData(), &target); err != nil || target.Port > 65535 {
		reject(nc, ssh.ConnectionFailed, "malformed request")
		return
	}
	if !c.grant.mayOpen(target.Host, target.Port) {
		reject(nc, ssh.Prohibited, "this key may not forward there")
		return
	}
	c.connect(ctx, nc, "tcp", localhost(target.Host), strconv.FormatUint(uint64(target.Port), 10))
}

// localhost needs no /etc/hosts, which an image may lack.
func localhost(host string) string {
	if host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

// openSocket connects a channel to a unix socket in the session.
func (c *connection) openSocket(ctx context.Context, nc ssh.NewChannel) {
	var target directSocket
	if err := ssh.Unmarshal(nc.ExtraData(), &target); err != nil {
		reject(nc, ssh.ConnectionFailed, "malformed request")
		return
	}
	if !c.grant.mayUseSockets() {
		reject(nc, ssh.Prohibited, "this key may not forward sockets")
		return
	}
	c.connect(ctx, nc, "unix", target.Path, "")
}

func (c *connection) connect(ctx context.Context, nc ssh.NewChannel, network, host, port string) {
	address := host
	if port != "" {
		address = net.JoinHostPort(host, port)
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil && host == "127.0.0.1" { // a service may listen on the other loopback alone
		if six, err6 := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			conn, err = six, nil
		}
	}
	if err != nil {
		reject(nc, ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		_ = conn.Close()
		return
	}
	relay(ctx, ch, requests, conn)
}

// halfCloser is what TCP and unix connections have in common.
type halfCloser interface{ CloseWrite() error }

// relay moves bytes both ways, passes each end of stream on, and returns when
// both directions have ended and the peer has closed its side of ch, or the
// connection broke. It closes conn and ch.
func relay(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var data, closed sync.WaitGroup
	data.Go(func() {
		_, err := io.Copy(conn, ch)
		if half, ok := conn.(halfCloser); err == nil && ok {
			_ = half.CloseWrite()
			return
		}
		_ = conn.Close()
	})
	data.Go(func() {
		if _, err := io.Copy(ch, conn); err != nil {
			_ = ch.Close() // reset or gone: there is no orderly end to pass on
			return
		}
		_ = ch.CloseWrite()
	})
	closed.Go(func() {
		for r := range requests {
			answer(r, false, nil)
		}
		// The peer closed: it reads no more, but what it has sent still goes out.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	})
	data.Wait()
	_ = ch.Close()
	closed.Wait()
}

// listenTCP serves -R host:port. Only the session's own loopback is ever
// listened on, whatever host is asked for: no port of a session is public.
func (c *connection) listenTCP(ctx context.Context, r *ssh.Request) {
	var want forwardTCP
	if err := ssh.Unmarshal(r.Payload, &want); err != nil || want.Port > 65535 || !c.grant.mayListen(want.Host, want.Port) {
		answer(r, false, nil)
		return
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.FormatUint(uint64(want.Port), 10)))
	if err != nil {
		c.log.Info("remote forwarding refused", "err", err)
		answer(r, false, nil)
		return
	}
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	if !c.keepForward(tcpKey(want.Host, port), l) {
		answer(r, false, nil)
		return
	}
	var payload []byte
	if want.Port == 0 {
		payload = ssh.Marshal(struct{ Port uint32 }{port})
	}
	answer(r, true, payload)
	c.wg.Go(func() {
		c.acceptAll(ctx, l, "forwarded-tcpip", func(conn net.Conn) []byte {
			origin, _ := conn.RemoteAddr().(*net.TCPAddr)
			return ssh.Marshal(directTCP{want.Host, port, origin.IP.String(), uint32(origin.Port)})
		})
	})
}

func tcpKey(host string, port uint32) string { return fmt.Sprintf("tcp %s %d", host, port) }

func (c *connection) cancelTCP(r *ssh.Request) {
	var want forwardTCP
	err := ssh.Unmarshal(r.Payload, &want)
	answer(r, err == nil && c.dropForward(tcpKey(want.Host, want.Port)), nil)
}

// listenSocket serves -R /path. As OpenSSH does, it does not replace a file.
func (c *connection) listenSocket(ctx context.Context, r *ssh.Request) {
	var want forwardSocket
	if err := ssh.Unmarshal(r.Payload, &want); err != nil || !c.grant.mayUseSockets() {
		answer(r, false, nil)
		return
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", want.Path)
	if err == nil {
		err = os.Chmod(want.Path, 0o600)
	}
	if err != nil {
		if l != nil {
			_ = l.Close()
		}
		c.log.Info("remote socket forwarding refused", "err", err)
		answer(r, false, nil)
		return
	}
	if !c.keepForward("unix "+want.Path, l) {
		answer(r, false, nil)
		return
	}
	answer(r, true, nil)
	payload := ssh.Marshal(forwardedSocket{Path: want.Path})
	c.wg.Go(func() {
		c.acceptAll(ctx, l, "forwarded-streamlocal@openssh.com", func(net.Conn) []byte { return payload })
	})
}

func (c *connection) cancelSocket(r *ssh.Request) {
	var want forwardSocket
	err := ssh.Unmarshal(r.Payload, &want)
	answer(r, err == nil && c.dropForward("unix "+want.Path), nil)
}

// keepForward remembers l under key, or closes it when the client has too many
// or that very one.
func (c *connection) keepForward(key string, l net.Listener) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.forwards[key]; taken || len(c.forwards) >= maxForwards {
		_ = l.Close()
		return false
	}
	c.forwards[key] = l
	return true
}

func (c *connection) dropForward(key string) bool {
	c.mu.Lock()
	l, ok := c.forwards[key]
	delete(c.forwards, key)
	c.mu.Unlock()
	if ok {
		_ = l.Close()
	}
	return ok
}

func (c *connection) closeForwards() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.forwards {
		_ = l.Close()
	}
	clear(c.forwards)
}

// acceptAll hands each connection of l to the client as a channel of the given
// type, until l is closed.
func (c *connection) acceptAll(ctx context.Context, l net.Listener, channelType string, payload func(net.Conn) []byte) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			pause(ctx, 100*time.Millisecond) // out of descriptors
			continue
		}
		select {
		case c.slots <- struct{}{}:
		default:
			c.log.Warn("forwarded connection refused: too many channels are open", "limit", maxChannels)
			_ = conn.Close()
			continue
		}
		c.wg.Go(func() {
			defer func() { <-c.slots }()
			ch, requests, err := c.ssh.OpenChannel(channelType, payload(conn))
			if err != nil {
				_ = conn.Close()
				return
			}
			relay(ctx, ch, requests, conn)
		})
	}
}

// agentSocket is where the processes of a connection find the client's agent.
type agentSocket struct {
	dir      string
	path     string
	listener net.Listener
}

// offerAgent makes the connection's agent socket on first use and returns its
// path for SSH_AUTH_SOCK.
func (c *connection) offerAgent(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agent != nil {
		return c.agent.path, nil
	}
	dir, err := os.MkdirTemp(process.TempDir(c.server.opts.Env), "ssh-")
	if err != nil {
		return "", fmt.Errorf("make folder of agent socket: %w", err)
	}
	a := &agentSocket{dir: dir, path: dir + "/agent"}
	if a.listener, err = new(net.ListenConfig).Listen(ctx, "unix", a.path); err != nil {
		return "", errors.Join(fmt.Errorf("listen on agent socket: %w", err), os.Remove(dir))
	}
	c.agent = a
	c.forwards["agent"] = a.listener // closed with the others
	c.wg.Go(func() {
		c.acceptAll(ctx, a.listener, "auth-agent@openssh.com", func(net.Conn) []byte { return nil })
	})
	return a.path, nil
}

// closeAgent removes the agent's folder; its listener is closed.
func (c *connection) closeAgent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agent == nil {
		return
	}
	if err := os.RemoveAll(c.agent.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("remove agent socket", "err", err)
	}
}
