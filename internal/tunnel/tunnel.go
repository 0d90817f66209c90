// Package tunnel moves the bytes of one TCP connection between a client and a
// server over HTTP. A tunnel has one of two forms on the same URL:
//
//   - raw: the client asks for "Upgrade: backendai-tcp/1" and after the 101 the
//     connection is a plain byte stream. Each direction ends by itself, and the
//     kernel moves the bytes (splice) where both sides are plain sockets.
//   - WebSocket, as the protocol's own clients and servers speak it (API section
//     4.5): binary messages of any length; either end ends both directions.
//
// A client asks for the raw form first and falls back. Callers hold a net.Conn
// and a Dialer and know nothing of the form, so that another form, such as a
// stream that is resumed after a broken connection, needs no change in them.
package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// Protocol is the name of the raw form in the Upgrade header.
const Protocol = "backendai-tcp/1"

// closeWriter is a connection that can end its own direction alone.
type closeWriter interface{ CloseWrite() error }

// aborter is a connection that has a faster end than Close.
type aborter interface{ Abort() error }

// Relay moves bytes both ways between a and b until both directions have
// ended, and closes both. The end of one direction is passed on while the other
// goes on, if both connections have CloseWrite; else it ends both. A failure or
// the end of ctx ends both at once. It returns how many bytes went from a to b
// and from b to a, and nil, the cause of ctx, or the first failure.
func Relay(ctx context.Context, a, b net.Conn) (toB, toA int64, err error) {
	r := &relay{a: a, b: b}
	_, halfA := inner(a).(closeWriter)
	_, halfB := inner(b).(closeWriter)
	r.half = halfA && halfB
	stop := context.AfterFunc(ctx, r.abort)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.move(ctx, b, a, &r.toB)
	}()
	r.move(ctx, a, b, &r.toA) // not in a goroutine of its own: idle tunnels cost their stacks
	<-done
	if !stop() {
		return r.toB, r.toA, context.Cause(ctx)
	}
	r.close()
	return r.toB, r.toA, r.err
}

type relay struct {
	a, b     net.Conn
	half     bool
	toB, toA int64

	mu    sync.Mutex
	ended bool  // one direction has
	err   error // the first failure
}

// move copies one direction and passes its end on.
func (r *relay) move(ctx context.Context, to, from net.Conn, n *int64) {
	var err error
	if *n, err = transfer(ctx, to, from); err == nil && r.half {
		if c, ok := to.(closeWriter); ok {
			// A peer that is gone has nothing more to be told.
			if err = c.CloseWrite(); gone(err) {
				err = nil
			}
		}
	}
	r.end(err)
}

// end decides what the end of one direction means for the other.
func (r *relay) end(err error) {
	r.mu.Lock()
	first := !r.ended
	r.ended = true
	if first || r.half && r.err == nil { // else it is but the echo of the first
		r.err = err
	}
	r.mu.Unlock()
	switch {
	case !first:
	case err != nil:
		r.abort()
	case !r.half:
		r.close()
	}
}

// close ends both with whatever farewell their form has, at the same time: a
// WebSocket waits for the other end's.
func (r *relay) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.a.Close()
	}()
	_ = r.b.Close()
	<-done
}

func (r *relay) abort() {
	for _, c := range []net.Conn{r.a, r.b} {
		_ = abort(c)
	}
}

func abort(c net.Conn) error {
	switch c := c.(type) {
	case aborter:
		return c.Abort()
	case *tls.Conn:
		return c.NetConn().Close() // no farewell, which could block
	default:
		return c.Close()
	}
}

// gone tells whether an error says no more than that the connection has ended.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) || disconnected(err)
}

// transfer copies until from ends. Bytes that were read ahead go first; then
// the bare connections are copied, which lets the kernel do it.
func transfer(ctx context.Context, to, from net.Conn) (n int64, err error) {
	if ahead, ok := from.(*readAhead); ok {
		head := ahead.take()
		for len(head) > 0 {
			k, err := to.Write(head)
			n += int64(k)
			if err != nil {
				return n, err
			}
			head = head[k:]
		}
	}
	k, err := pour(ctx, inner(to), inner(from))
	return n + k, err
}

// pour copies until from ends, in the way that costs the least for the two.
func pour(ctx context.Context, to, from net.Conn) (int64, error) {
	if secure, under, ok := bulkUnder(to); ok {
		return seal(ctx, secure, under, from)
	}
	if secure, under, ok := bulkUnder(from); ok {
		return open(to, secure, under)
	}
	return io.Copy(to, from)
}

// readAhead is a connection of which some bytes have been read already.
type readAhead struct {
	net.Conn

	head []byte // used by the one reader only
}

// withHead puts bytes that were read from c in front of it again.
func withHead(c net.Conn, head []byte) net.Conn {
	if len(head) == 0 {
		return c
	}
	return &readAhead{Conn: c, head: head}
}

// inner is the connection itself, without what was read ahead.
func inner(c net.Conn) net.Conn {
	if a, ok := c.(*readAhead); ok {
		return a.Conn
	}
	return c
}

func (c *readAhead) take() []byte {
	head := c.head
	c.head = nil
	return head
}

func (c *readAhead) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending direction if the connection can.
func (c *readAhead) CloseWrite() error {
	if w, ok := c.Conn.(closeWriter); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Abort ends the connection without a farewell.
func (c *readAhead) Abort() error { return abort(c.Conn) }
