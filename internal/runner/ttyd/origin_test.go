package ttyd

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func TestOnlyTheOwnPage(t *testing.T) {
	r := serveOptions(t, Options{
		Shell: func() (string, error) { return "/bin/sh", nil }, Hosts: []string{"desk.example.org"},
	})
	_, port, _ := strings.Cut(r.addr, ":")
	for _, tt := range []struct {
		name, path, host string
		header           map[string]string
		want             int
	}{
		{"page", "/", "localhost:" + port, nil, 0},
		{"page by IP", "/", r.addr, nil, 0},
		{"page by IPv6", "/", "[::1]:9900", nil, 0},
		{"page by another IP", "/", "192.0.2.7:9900", nil, 0},
		{"page by configured name", "/", "Desk.example.org", nil, 0},
		{"page by subdomain of localhost", "/", "my.localhost:9900", nil, 0},
		{"page followed from a link", "/", "localhost:9900", map[string]string{"Sec-Fetch-Site": "cross-site"}, 0},
		{"rebound page", "/", "evil.example:9900", nil, 403},
		{"rebound token", "/token", "evil.example:9900", nil, 403},
		{"name that looks like an IP", "/token", "127.0.0.1.evil.example", nil, 403},
		{"name that looks like localhost", "/token", "localhost.evil.example", nil, 403},
		{"no host", "/token", "", nil, 0}, // the client puts the address
		{"token from another site", "/token", "localhost:9900", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"token from another port", "/token", "localhost:9900", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"token with foreign origin", "/token", "localhost:9900", map[string]string{"Origin": "http://evil.example"}, 403},
		{"socket without origin", "/ws", "localhost:9900", nil, 101},
		{"own socket", "/ws", "localhost:9900", map[string]string{"Origin": "http://localhost:9900"}, 101},
		{"own socket behind TLS", "/ws", "localhost:9900", map[string]string{"Origin": "https://localhost:9900"}, 101},
		{"foreign socket", "/ws", "localhost:9900", map[string]string{"Origin": "http://evil.example"}, 403},
		{"other port", "/ws", "localhost:9900", map[string]string{"Origin": "http://localhost:9901"}, 403},
		{"other loopback name", "/ws", "localhost:9900", map[string]string{"Origin": "http://127.0.0.1:9900"}, 403},
		{"null origin", "/ws", "localhost:9900", map[string]string{"Origin": "null"}, 403},
		{"file", "/ws", "localhost:9900", map[string]string{"Origin": "file://"}, 403},
		{"extension", "/ws", "localhost:9900", map[string]string{"Origin": "chrome-extension://localhost:9900"}, 403},
		{"rebound socket", "/ws", "evil.example:9900", map[string]string{"Origin": "http://evil.example:9900"}, 403},
		{"broken origin", "/ws", "localhost:9900", map[string]string{"Origin": "http://%zz"}, 403},
		{"post", "/token", "localhost:9900", map[string]string{"method": "POST"}, 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method := http.MethodGet
			if tt.header["method"] != "" {
				method = tt.header["method"]
			}
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+tt.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = tt.host
			for key, value := range tt.header {
				req.Header.Set(key, value)
			}
			if tt.path == "/ws" {
				for key, value := range map[string]string{
					"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
					"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "tty",
				} {
					req.Header.Set(key, value)
				}
			}
			reply, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Body.Close()
			if tt.want == 0 && reply.StatusCode == 403 || tt.want != 0 && reply.StatusCode != tt.want {
				t.Errorf("status %s, want %d", reply.Status, tt.want)
			}
			for _, key := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
				if reply.Header.Get(key) != "" {
					t.Errorf("%s is set", key)
				}
			}
			if reply.Header.Get("X-Frame-Options") != "DENY" || !strings.Contains(reply.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
				t.Error("the page can be framed")
			}
		})
	}
	if list := r.Terminals(); len(list) != 0 {
		t.Errorf("a refused page opened %v", list)
	}
}

// TestABrowserBringsTheToken has the last word where an Origin says it is a browser.
func TestABrowserBringsTheToken(t *testing.T) {
	r := serve(t, "/bin/sh")
	reply, err := http.Get("http://" + r.addr + "/token")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, _ := io.ReadAll(reply.Body)
	var token struct{ Token string }
	if err := json.Unmarshal(text, &token); err != nil || len(token.Token) != 32 {
		t.Fatalf("token %q: %v", text, err)
	}
	for value, want := range map[string]bool{token.Token: true, "": false, "x": false} {
		conn, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws", &websocket.DialOptions{
			Subprotocols: []string{"tty"}, HTTPHeader: http.Header{"Origin": {"http://" + r.addr}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := &client{tb: t, conn: conn}
		first, _ := json.Marshal(map[string]any{"AuthToken": value, "columns": 80, "rows": 24})
		c.write(first)
		if !want {
			for c.next() {
			}
			if websocket.CloseStatus(c.closed) != websocket.StatusPolicyViolation {
				t.Errorf("token %q: %v", value, c.closed)
			}
		} else {
			c.wait("ready> ")
		}
		c.cut()
	}
}

func TestSubprotocolIsAsked(t *testing.T) {
	r := serve(t, "/bin/sh")
	conn, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("without a sub-protocol: %v", err)
	}
}
