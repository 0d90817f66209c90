package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/coder/websocket"
)

// Form is one of the ways in which a tunnel's bytes can travel.
type Form int

// The forms.
const (
	FormNone Form = iota // the request asks for no tunnel
	FormRaw
	FormWebSocket
)

// Requested is the form that a request asks for.
func Requested(r *http.Request) Form {
	if !headerHas(r.Header, "Connection", "upgrade") {
		return FormNone
	}
	switch {
	case headerHas(r.Header, "Upgrade", Protocol):
		return FormRaw
	case headerHas(r.Header, "Upgrade", "websocket"):
		return FormWebSocket
	default:
		return FormNone
	}
}

// headerHas tells whether a comma-separated header has the word.
func headerHas(h http.Header, name, word string) bool {
	for _, line := range h.Values(name) {
		for field := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(field), word) {
				return true
			}
		}
	}
	return false
}

// Accept answers an upgrade request in the form that it asks for and takes its
// connection over. When Accept fails it has answered already. The caller closes
// the connection. The origin of a WebSocket does not matter: its handshake is a
// signed request, which no page of another site can make.
func Accept(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	switch Requested(r) {
	case FormRaw:
		return acceptRaw(w)
	case FormWebSocket:
		ws, err := acceptWebSocket(w, r)
		if err != nil {
			return nil, err
		}
		return newSocket(r.Context(), ws, websocket.StatusGoingAway), nil
	default:
		w.Header().Set("Upgrade", Protocol+", websocket")
		w.WriteHeader(http.StatusUpgradeRequired)
		return nil, errors.New("accept tunnel: the request asks for no upgrade")
	}
}

func acceptRaw(w http.ResponseWriter) (net.Conn, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusHTTPVersionNotSupported)
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	head := make([]byte, buf.Reader.Buffered())
	if _, err := buf.Read(head); len(head) > 0 && err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n")); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	return withHead(conn, head), nil
}

func acceptWebSocket(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	return ws, nil
}

// Refuse answers a WebSocket request whose app could not be connected to as the
// protocol does: the handshake, then the close code 1013 for a refused
// connection and 1011 for any other failure.
func Refuse(w http.ResponseWriter, r *http.Request, cause error) error {
	ws, err := acceptWebSocket(w, r)
	if err != nil {
		return err
	}
	if errors.Is(cause, syscall.ECONNREFUSED) {
		return ws.Close(websocket.StatusTryAgainLater, "the app refused the connection")
	}
	return ws.Close(websocket.StatusInternalError, "the app cannot be reached")
}
