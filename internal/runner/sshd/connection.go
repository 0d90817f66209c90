//go:build linux

package sshd

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// connection is one authenticated client and everything it opened.
type connection struct {
	server *Server
	ssh    *ssh.ServerConn
	grant  *grant
	log    *slog.Logger
	slots  chan struct{}  // one per open channel
	wg     sync.WaitGroup // every goroutine of the connection

	mu       sync.Mutex
	forwards map[string]net.Listener // tcpip-forward and streamlocal-forward, by what cancels them
	agent    *agentSocket            // nil until the client offers its agent
	sealed   bool                    // no-more-sessions@openssh.com
}

// run serves the connection until the client or ctx ends it.
func (c *connection) run(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		c.closeForwards()
		c.wg.Wait()
		c.closeAgent()
		c.log.Info("ssh logout")
	}()
	c.wg.Go(func() { c.keepalive(ctx) })
	c.wg.Go(func() {
		for r := range requests {
			c.global(ctx, r)
		}
	})
	for nc := range channels {
		c.accept(ctx, nc)
	}
}

// accept starts a handler for a channel. It must not block: the connection's
// other channels wait for it.
func (c *connection) accept(ctx context.Context, nc ssh.NewChannel) {
	var handle func(context.Context, ssh.NewChannel)
	switch nc.ChannelType() {
	case "session":
		c.mu.Lock()
		sealed := c.sealed
		c.mu.Unlock()
		if sealed {
			reject(nc, ssh.Prohibited, "the client asked for no more sessions")
			return
		}
		handle = c.serveSession
	case "direct-tcpip":
		handle = c.openTCP
	case "direct-streamlocal@openssh.com":
		handle = c.openSocket
	default:
		reject(nc, ssh.UnknownChannelType, "no such channel type")
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		c.log.Warn("ssh channel refused: too many are open", "limit", maxChannels)
		reject(nc, ssh.ResourceShortage, "too many channels are open on this connection")
		return
	}
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		handle(ctx, nc)
	})
}

// reject refuses a channel; a connection that is gone needs no answer.
func reject(nc ssh.NewChannel, reason ssh.RejectionReason, message string) {
	_ = nc.Reject(reason, message)
}

// answer replies to a request that wants it; a connection that is gone needs
// no answer.
func answer(r *ssh.Request, ok bool, payload []byte) {
	if r.WantReply {
		_ = r.Reply(ok, payload)
	}
}

// global serves a request that belongs to no channel (RFC 4254 section 4).
func (c *connection) global(ctx context.Context, r *ssh.Request) {
	switch r.Type {
	case "keepalive@openssh.com":
		answer(r, true, nil)
	case "no-more-sessions@openssh.com":
		c.mu.Lock()
		c.sealed = true
		c.mu.Unlock()
		answer(r, true, nil)
	case "tcpip-forward":
		c.listenTCP(ctx, r)
	case "cancel-tcpip-forward":
		c.cancelTCP(r)
	case "streamlocal-forward@openssh.com":
		c.listenSocket(ctx, r)
	case "cancel-streamlocal-forward@openssh.com":
		c.cancelSocket(r)
	default:
		answer(r, false, nil)
	}
}

// keepalive asks the client from time to time whether it is there, which also
// keeps state alive in whatever is on the way, and closes the connection when
// no answer comes.
func (c *connection) keepalive(ctx context.Context) {
	tick := time.NewTicker(keepaliveInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		expire := time.AfterFunc(keepaliveLimit, func() {
			c.log.Warn("ssh client does not answer; connection closed")
			_ = c.ssh.Close()
		})
		_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		expire.Stop()
		if err != nil {
			return
		}
	}
}
