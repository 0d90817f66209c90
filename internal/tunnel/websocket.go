package tunnel

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// pingInterval keeps proxies from cutting an idle tunnel.
const pingInterval = 30 * time.Second

// socket is a WebSocket as a connection. Its Close tells the peer code. Bytes
// arrive in order with the farewell, so nothing sent before Close is lost.
type socket struct {
	net.Conn // the WebSocket's binary messages as one stream

	ws     *websocket.Conn
	code   websocket.StatusCode
	cancel context.CancelFunc
	pings  sync.WaitGroup
}

// newSocket takes the WebSocket over. Its life is its own: ctx gives values only.
func newSocket(ctx context.Context, ws *websocket.Conn, code websocket.StatusCode) *socket {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &socket{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary), ws: ws, code: code, cancel: cancel}
	s.pings.Go(func() { s.ping(ctx) })
	return s
}

// ping sends pings until the socket is closed. A late answer is no failure: it
// stands behind bytes that the reader has no room for.
func (s *socket) ping(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.ws.Ping(ctx); err != nil {
				return
			}
		}
	}
}

// Close says farewell, waits a few seconds for the peer's, and ends the connection.
func (s *socket) Close() error {
	err := s.ws.Close(s.code, "")
	s.cancel()
	s.pings.Wait()
	return err
}

// Abort ends the connection without a farewell.
func (s *socket) Abort() error {
	err := s.ws.CloseNow()
	s.cancel()
	s.pings.Wait()
	return err
}
