package client

import (
	"context"
	"errors"
	"fmt"
	"net"

	"backendai"
	"backendai/internal/tunnel"
)

// Connect opens a connection to an app of a session and starts the app if need
// be. It is a raw stream where the server can give one, else a WebSocket; the
// caller closes it. ctx bounds the opening only.
func (c *Client) Connect(ctx context.Context, ref string, r ConnectRequest) (net.Conn, error) {
	query, err := r.query()
	if err != nil {
		return nil, fmt.Errorf("write request: %w", err)
	}
	k := call{path: []string{"stream", "session", ref, "tcpproxy"}, query: query}
	var last error
	for i := range c.endpoints {
		index := (int(c.current.Load()) + i) % len(c.endpoints)
		conn, err := c.connect(ctx, index, k)
		if err == nil || backendai.CodeOf(err) != backendai.CodeUnreachable || ctx.Err() != nil {
			c.current.Store(int64(index))
			return conn, err
		}
		last = err
	}
	return nil, last
}

func (c *Client) connect(ctx context.Context, index int, k call) (net.Conn, error) {
	endpoint := c.endpoints[index]
	version, err := c.negotiate(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	target, err := address(endpoint, version, k)
	if err != nil {
		return nil, err
	}
	conn, err := c.dialer.Dial(ctx, target)
	if refusal, ok := errors.AsType[*tunnel.Refusal](err); ok {
		return nil, c.problem(endpoint, refusal.Status, refusal.Header, refusal.Body)
	}
	if err != nil {
		return nil, c.unreachable(ctx, endpoint, err)
	}
	return conn, nil
}
