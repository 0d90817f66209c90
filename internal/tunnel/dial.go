package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// maxRefusal bounds what is read of a refusal, in bytes.
const maxRefusal = 64 << 10

// Refusal is the answer of a server that does not open a tunnel.
type Refusal struct {
	Status int
	Header http.Header
	Body   []byte // at most 64 KiB; problem+json from a server of the protocol
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("the server refused the tunnel: %d %s", r.Status, http.StatusText(r.Status))
}

// Dialer opens tunnels to one server. It remembers that a server knows the
// WebSocket form only. The zero value works; it is safe for concurrent use, and
// its fields must not change after the first Dial.
type Dialer struct {
	// Sign makes the headers of a request; it is called for each try, since
	// they hold the time. A request for a stream is signed without a media type.
	Sign func(*http.Request) error
	// TLS is used for https; nil is the default.
	TLS *tls.Config
	// NetDial connects to the server; nil is net.Dialer's.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy tells the proxy for a request; nil is that of the environment. Through
	// a proxy the WebSocket form is used.
	Proxy func(*http.Request) (*url.URL, error)

	webSocketOnly atomic.Bool
}

// Dial opens the tunnel of an http or https URL. ctx bounds the opening only;
// the caller closes the connection. An answer other than a tunnel is a *Refusal.
func (d *Dialer) Dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	if !d.webSocketOnly.Load() {
		proxied, err := d.proxied(ctx, u)
		if err != nil {
			return nil, err
		}
		if !proxied {
			conn, err := d.dialRaw(ctx, u)
			if refusal, ok := errors.AsType[*Refusal](err); !ok || !knowsNoRaw(refusal.Status) {
				return conn, err
			}
		}
	}
	conn, err := d.dialWebSocket(ctx, u)
	if err == nil {
		d.webSocketOnly.Store(true)
	}
	return conn, err
}

// knowsNoRaw tells whether a status may mean that the server does not know the
// raw form; then the WebSocket form decides.
func knowsNoRaw(status int) bool {
	return slices.Contains([]int{
		http.StatusOK, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusUpgradeRequired, http.StatusNotImplemented,
	}, status)
}

func (d *Dialer) request(ctx context.Context, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	if d.Sign != nil {
		if err := d.Sign(req); err != nil {
			return nil, err
		}
	}
	return req, nil
}

func (d *Dialer) proxy(req *http.Request) (*url.URL, error) {
	if d.Proxy != nil {
		return d.Proxy(req)
	}
	return http.ProxyFromEnvironment(req)
}

func (d *Dialer) proxied(ctx context.Context, u *url.URL) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return false, fmt.Errorf("open tunnel: %w", err)
	}
	proxy, err := d.proxy(req)
	if err != nil {
		return false, fmt.Errorf("find proxy for %s: %w", u.Host, err)
	}
	return proxy != nil, nil
}

func (d *Dialer) dialRaw(ctx context.Context, u *url.URL) (_ net.Conn, err error) {
	req, err := d.request(ctx, u)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	conn, err := d.connect(ctx, u)
	if err != nil {
		return nil, err
	}
	// The deadline is how the end of ctx reaches reads and writes in progress.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	head, err := upgrade(conn, req)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	} else if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = abort(conn)
		return nil, err
	}
	return withHead(conn, head), nil
}

// upgrade asks for the raw form and returns what the server sent after its answer.
func upgrade(conn net.Conn, req *http.Request) (head []byte, err error) {
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || !headerHas(resp.Header, "Upgrade", Protocol) {
		return nil, refusal(resp)
	}
	head = make([]byte, br.Buffered())
	if _, err := io.ReadFull(br, head); err != nil {
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	return head, nil
}

func refusal(resp *http.Response) *Refusal {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // half a reason is better than none
	return &Refusal{Status: resp.StatusCode, Header: resp.Header, Body: body}
}

// connect opens the TCP or TLS connection to the server.
func (d *Dialer) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := d.netDial()(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	if u.Scheme != "https" {
		return conn, nil
	}
	config := d.tlsConfig()
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	secure := tls.Client(newBulk(conn), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	return secure, nil
}

func (d *Dialer) netDial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if d.NetDial != nil {
		return d.NetDial
	}
	return new(net.Dialer).DialContext
}

// tlsConfig is a copy of the caller's, for HTTP/1.1: later versions cannot be upgraded.
func (d *Dialer) tlsConfig() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.TLS != nil {
		config = d.TLS.Clone()
	}
	config.NextProtos = []string{"http/1.1"}
	return config
}

func (d *Dialer) dialWebSocket(ctx context.Context, u *url.URL) (net.Conn, error) {
	req, err := d.request(ctx, u)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: d.proxy, DialContext: d.netDial(), TLSClientConfig: d.tlsConfig(), DisableKeepAlives: true}
	ws, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{ //nolint:bodyclose // the library closes it, or hands over a body in memory
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader: req.Header, Host: req.Host, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refusal(resp)
		}
		return nil, fmt.Errorf("open tunnel: %w", err)
	}
	return newSocket(ctx, ws, websocket.StatusNormalClosure), nil
}
