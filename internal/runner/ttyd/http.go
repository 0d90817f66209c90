package ttyd

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/coder/websocket"
)

// policy lets the page load only itself: one script, one style sheet, its own
// WebSocket. WebAssembly and blobs are for images in the terminal.
const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// handler is the HTTP side; life ends its WebSockets.
func (s *Server) handler(life context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) { s.serveSocket(life, w, r) })
	mux.HandleFunc("GET /token", s.serveToken)
	mux.HandleFunc("GET /", s.servePage)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if err := s.ownPage(r); err != nil {
			s.log.Warn("refused a foreign page", "remote", r.RemoteAddr, "err", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveToken gives the token that a browser must bring to the WebSocket.
func (s *Server) serveToken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": s.token})
}

// serveSocket serves a WebSocket until it ends.
func (s *Server) serveSocket(life context.Context, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		http.Error(w, "the session is ending", http.StatusServiceUnavailable)
		return
	}
	s.tasks.Add(1) // under the lock, so that close waits for it
	s.mu.Unlock()
	defer s.tasks.Done()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"tty"}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	if conn.Subprotocol() != "tty" {
		hangUp(conn, closing{websocket.StatusPolicyViolation, "the sub-protocol is tty"})
		return
	}
	token := ""
	if r.Header.Get("Origin") != "" {
		token = s.token // a browser: only a page that could read it may type
	}
	err = s.view(life, conn, r.URL.Query().Get("session"), token)
	s.log.Debug("viewer left", "remote", r.RemoteAddr, "err", err)
	hangUp(conn, err)
}
