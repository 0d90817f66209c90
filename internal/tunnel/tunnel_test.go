package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"backendai/internal/tunnel"
)

// pair is both ends of a TCP connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l := listen(t)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := <-accepted
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveApp runs a TCP app that handles each connection by f.
func serveApp(t *testing.T, f func(c *net.TCPConn)) string {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// echoAtEnd answers with all it got, once its peer has ended its direction: it
// needs half-close to answer at all.
func echoAtEnd(c *net.TCPConn) {
	all, err := io.ReadAll(c)
	if err == nil {
		_, _ = c.Write(all)
	}
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// relayServer is an HTTP server whose every path is a tunnel to app.
func relayServer(t *testing.T, app string, secure, webSocketOnly bool) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var requests atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		requests.Add(1)
		if webSocketOnly && tunnel.Requested(r) != tunnel.FormWebSocket {
			http.Error(w, "No WebSocket UPGRADE hdr", http.StatusBadRequest)
			return
		}
		target, err := net.Dial("tcp", app)
		if err != nil {
			if err := tunnel.Refuse(w, r, err); err != nil {
				t.Log(err)
			}
			return
		}
		conn, err := tunnel.Accept(w, r)
		if err != nil {
			target.Close()
			return
		}
		_, _, _ = tunnel.Relay(ctx, conn, target)
	}))
	if secure {
		s.Listener = tunnel.UnderTLS(s.Listener)
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() { cancel(); s.Close(); wg.Wait() })
	return s, &requests
}

func dial(t *testing.T, d *tunnel.Dialer, s *httptest.Server) net.Conn {
	t.Helper()
	u, err := url.Parse(s.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Dial(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func dialer(s *httptest.Server) *tunnel.Dialer {
	d := &tunnel.Dialer{}
	if s.Certificate() != nil {
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		d.TLS = &tls.Config{RootCAs: pool}
	}
	return d
}

func TestRelayPassesEachEndOn(t *testing.T) {
	clientA, relayA := pair(t)
	clientB, relayB := pair(t)
	type result struct {
		toB, toA int64
		err      error
	}
	done := make(chan result, 1)
	go func() {
		toB, toA, err := tunnel.Relay(t.Context(), relayA, relayB)
		done <- result{toB, toA, err}
	}()
	if _, err := clientA.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := clientA.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(clientB); err != nil || string(got) != "question" {
		t.Fatalf("B read %q, %v", got, err)
	}
	if _, err := clientB.Write([]byte("the answer")); err != nil {
		t.Fatal(err)
	}
	clientB.Close()
	if got, err := io.ReadAll(clientA); err != nil || string(got) != "the answer" {
		t.Fatalf("A read %q, %v", got, err)
	}
	if got := <-done; got != (result{8, 10, nil}) {
		t.Errorf("Relay = %+v", got)
	}
}

func TestRelayEndsWithContext(t *testing.T) {
	clientA, relayA := pair(t)
	_, relayB := pair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := tunnel.Relay(ctx, relayA, relayB)
		done <- err
	}()
	want := errors.New("the server stops")
	cancel(want)
	if err := <-done; !errors.Is(err, want) {
		t.Errorf("Relay = %v", err)
	}
	if _, err := clientA.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestRelayEndsBothOnFailure(t *testing.T) {
	clientA, relayA := pair(t)
	clientB, relayB := pair(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := tunnel.Relay(t.Context(), relayA, relayB)
		done <- err
	}()
	if err := clientA.SetLinger(0); err != nil { // a reset instead of an end
		t.Fatal(err)
	}
	clientA.Close()
	if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Relay = %v", err)
	}
	if _, err := io.ReadAll(clientB); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func TestRawTunnelHalfCloses(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s, _ := relayServer(t, serveApp(t, echoAtEnd), secure, false)
			conn := dial(t, dialer(s), s)
			sent := random(t, 1<<20)
			go func() {
				_, _ = conn.Write(sent)
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, %v; want the %d that were sent", len(got), err, len(sent))
			}
		})
	}
}

// TestTLSBetweenRelays has TLS as users have it, between two relays, with pieces
// of all sizes, pauses between them, and both directions at once.
func TestTLSBetweenRelays(t *testing.T) {
	s, _ := relayServer(t, serveApp(t, echo), true, false)
	d := dialer(s)
	var all sync.WaitGroup
	for range 8 {
		conn := dial(t, d, s)
		client, relay := pair(t)
		all.Go(func() {
			if _, _, err := tunnel.Relay(t.Context(), relay, conn); err != nil {
				t.Error(err)
			}
		})
		sent := random(t, 8<<20)
		all.Go(func() {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1<<mathrand.IntN(20))
				if _, err := client.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				if rest = rest[n:]; n < 4 {
					runtime.Gosched()
				}
			}
			if err := client.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, %v; want the %d that were sent", len(got), err, len(sent))
			}
		})
	}
	all.Wait()
}

// TestBytesBeforeTheAnswer sends app bytes together with the request, which the
// HTTP server then has in its buffer.
func TestBytesBeforeTheAnswer(t *testing.T) {
	s, _ := relayServer(t, serveApp(t, echoAtEnd), false, false)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: backendai-tcp/1\r\n\r\nearly"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if want := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: backendai-tcp/1\r\n\r\nearly"; err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestBytesWithTheAnswer has a server that speaks first: its bytes arrive together with the 101.
func TestBytesWithTheAnswer(t *testing.T) {
	app := serveApp(t, func(c *net.TCPConn) {
		req := make([]byte, 4096)
		_, _ = c.Read(req)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: backendai-tcp/1\r\n\r\nSSH-2.0-x\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	conn, err := (&tunnel.Dialer{}).Dial(t.Context(), &url.URL{Scheme: "http", Host: app, Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	clientA, relayA := pair(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := tunnel.Relay(t.Context(), relayA, conn)
		done <- err
	}()
	if err := clientA.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(clientA); err != nil || string(got) != "SSH-2.0-x\r\n" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFallsBackToWebSocketAndRemembers(t *testing.T) {
	s, requests := relayServer(t, serveApp(t, echo), false, true)
	d := dialer(s)
	for want := range 2 {
		conn := dial(t, d, s)
		sent := random(t, 3<<20)
		go func() { _, _ = conn.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("connection %d: %v, equal %t", want, err, bytes.Equal(got, sent))
		}
		if err := conn.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if got := requests.Load(); got != 3 {
		t.Errorf("two tunnels took %d requests; want one refused raw and two WebSockets", got)
	}
}

// TestPlainWebSocketClient is a client that is not ours.
func TestPlainWebSocketClient(t *testing.T) {
	app := serveApp(t, func(c *net.TCPConn) {
		buf := make([]byte, 5)
		if _, err := io.ReadFull(c, buf); err == nil {
			_, _ = c.Write(bytes.ToUpper(buf))
		}
	})
	s, _ := relayServer(t, app, false, false)
	ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, part := range []string{"he", "", "llo"} {
		if err := ws.Write(t.Context(), websocket.MessageBinary, []byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	kind, got, err := ws.Read(t.Context())
	if err != nil || kind != websocket.MessageBinary || string(got) != "HELLO" {
		t.Fatalf("Read = %v, %q, %v", kind, got, err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("at the app's end the client got %v, want the close code 1001", err)
	}
}

func TestPingsAreAnswered(t *testing.T) {
	s, _ := relayServer(t, serveApp(t, echo), false, false)
	ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ctx := ws.CloseRead(t.Context())
	if err := ws.Ping(ctx); err != nil {
		t.Error(err)
	}
}

func TestTextMessagesAreRefused(t *testing.T) {
	s, _ := relayServer(t, serveApp(t, echo), false, false)
	ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("Read = %v", err)
	}
}

func TestRefusedAppClosesWith1013(t *testing.T) {
	l := listen(t)
	nobody := l.Addr().String()
	l.Close()
	s, _ := relayServer(t, nobody, false, false)
	ws, _, err := websocket.Dial(t.Context(), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("Read = %v", err)
	}
}

func TestRefusalCarriesTheAnswer(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusUnauthorized, http.StatusBadRequest, http.StatusInternalServerError} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"title":"no"}`)
		}))
		u, _ := url.Parse(s.URL)
		_, err := (&tunnel.Dialer{}).Dial(t.Context(), u)
		refusal, ok := errors.AsType[*tunnel.Refusal](err)
		if !ok || refusal.Status != status || string(refusal.Body) != `{"title":"no"}` {
			t.Errorf("%d: Dial = %v", status, err)
		}
		s.Close()
	}
}

func TestRequestWithoutUpgrade(t *testing.T) {
	s, _ := relayServer(t, serveApp(t, echo), false, false)
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") == "" {
		t.Errorf("status %d, Upgrade %q", resp.StatusCode, resp.Header.Get("Upgrade"))
	}
}

func TestDialEndsWithContext(t *testing.T) {
	reached := make(chan struct{})
	app := serveApp(t, func(c *net.TCPConn) {
		close(reached)
		_, _ = io.Copy(io.Discard, c) // never answers
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	if _, err := (&tunnel.Dialer{}).Dial(ctx, &url.URL{Scheme: "http", Host: app, Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial = %v", err)
	}
}

func TestProxyTakesWebSocket(t *testing.T) {
	s, requests := relayServer(t, serveApp(t, echo), false, true)
	proxy, _ := url.Parse(s.URL) // answers every request as itself, which is all that plain http needs of a proxy
	d := &tunnel.Dialer{Proxy: func(*http.Request) (*url.URL, error) { return proxy, nil }}
	conn, err := d.Dial(t.Context(), &url.URL{Scheme: "http", Host: "server.invalid", Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if requests.Load() != 1 {
		t.Errorf("%d requests; the raw form must not be tried through a proxy", requests.Load())
	}
}

func Test500TunnelsAtOnce(t *testing.T) {
	for name, webSocketOnly := range map[string]bool{"raw": false, "WebSocket": true} {
		t.Run(name, func(t *testing.T) {
			s, _ := relayServer(t, serveApp(t, echo), false, webSocketOnly)
			d := dialer(s)
			var wg sync.WaitGroup
			for range 500 {
				wg.Go(func() { roundTrip(t, d, s) })
			}
			wg.Wait()
		})
	}
}

func roundTrip(t *testing.T, d *tunnel.Dialer, s *httptest.Server) {
	u, _ := url.Parse(s.URL)
	conn, err := d.Dial(t.Context(), u)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	sent := make([]byte, 64<<10)
	_, _ = rand.Read(sent)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("round trip: %v, equal %t", err, bytes.Equal(got, sent))
	}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMain fails when a test leaves goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	deadline := time.After(5 * time.Second)
	for runtime.NumGoroutine() > before && code == 0 {
		select {
		case <-deadline:
			buf := make([]byte, 1<<20)
			println("goroutines left behind:\n" + string(buf[:runtime.Stack(buf, true)]))
			code = 1
		default:
			runtime.Gosched()
		}
	}
	os.Exit(code)
}
