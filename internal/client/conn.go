package client

import (
	"context"
	"io"
	"net"
	"sync"
)

// bodyStep is how much of a request's body is read and sent at a time.
const bodyStep = 256 << 10

var bodySteps = sync.Pool{New: func() any { return make([]byte, bodyStep) }}

// widely makes connections that send the bodies of requests in larger steps than
// net/http does by itself.
func widely(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			return wideConn{tcp}, err
		}
		return conn, err
	}
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// wideConn is a connection of widely.
type wideConn struct{ *net.TCPConn }

// ReadFrom implements io.ReaderFrom.
func (c wideConn) ReadFrom(r io.Reader) (int64, error) {
	step := bodySteps.Get().([]byte) //nolint:forcetypeassert // the pool has nothing else
	defer bodySteps.Put(step)        //nolint:staticcheck // its header is small against what it holds
	return io.CopyBuffer(struct{ io.Writer }{c.TCPConn}, r, step)
}
