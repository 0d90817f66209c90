package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backendai"
)

// openCallbacks may post to this machine.
func openCallbacks(t *testing.T) *callbacks {
	c := newCallbacks(slog.New(slog.NewTextHandler(t.Output(), nil)))
	c.client.Transport = &http.Transport{DisableKeepAlives: true}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return c
}

func TestCallbacksComeInOrder(t *testing.T) {
	got := make(chan map[string]string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: %v", r.Method, r.Header, err)
		}
		got <- body
	}))
	defer server.Close()
	c := openCallbacks(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 20 {
		c.post(server.URL, backendai.Event{Name: fmt.Sprintf("session_%d", i), SessionID: "id", At: at})
	}
	for i := range 20 {
		body := <-got
		if body["event"] != fmt.Sprint(i) || body["session_id"] != "id" || body["type"] != "session_lifecycle" || body["when"] != "2026-01-02T03:04:05Z" {
			t.Errorf("%d: %v", i, body)
		}
	}
}

// answers is a transport that gives statuses in turn, 0 being a lost connection.
type answers struct {
	mu       sync.Mutex
	statuses []int
	times    []time.Time
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times = append(a.times, time.Now())
	status := a.statuses[0]
	if len(a.statuses) > 1 {
		a.statuses = a.statuses[1:]
	}
	if status == 0 {
		return nil, errors.New("connection lost")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(http.NoBody)}, nil
}

func TestCallbackRetries(t *testing.T) {
	for _, tt := range []struct {
		statuses []int
		tries    int
		took     time.Duration
	}{
		{[]int{200}, 1, 0}, {[]int{0, 500, 204}, 3, 3 * time.Second}, {[]int{503}, 4, 7 * time.Second}, {[]int{404}, 1, 0}, {[]int{302}, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := openCallbacks(t)
			a := &answers{statuses: tt.statuses}
			c.client.Transport = a
			c.post("http://example.org/", backendai.Event{SessionID: "id"})
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(a.times) != tt.tries || a.times[len(a.times)-1].Sub(a.times[0]) != tt.took {
				t.Errorf("%v: %d tries at %v", tt.statuses, len(a.times), a.times)
			}
			if len(c.queues) != 0 {
				t.Error("the queue is kept")
			}
		})
	}
}

func TestCallbackBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCallbacks(t)
		a := &answers{statuses: []int{503}}
		c.client.Transport = a
		for range 10 * callbackBacklog {
			c.post("http://example.org/", backendai.Event{SessionID: "id"}) // must not block
		}
		c.mu.Lock()
		n := len(c.queues["id"].events)
		c.mu.Unlock()
		if n > callbackBacklog {
			t.Errorf("%d are queued", n)
		}
		time.Sleep(time.Hour)
	})
}

func TestCallbacksStayOutside(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "0.0.0.0:80", "[::]:80", "10.1.2.3:80", "172.16.0.1:80", "192.168.1.1:80", "169.254.169.254:80",
		"[fe80::1%25eth0]:80", "[fd00::1]:80", "[::ffff:127.0.0.1]:80", "[::127.0.0.1]:80", "100.64.0.1:80", "224.0.0.1:80", "255.255.255.255:80",
		"[64:ff9b::7f00:1]:80", "[2002:7f00:1::]:80", "[ff02::1]:80",
	} {
		if err := refuseInside(address); err == nil {
			t.Errorf("%s is let pass", address)
		}
	}
	for _, address := range []string{"93.184.216.34:443", "[2606:2800:220:1::1]:443", "172.32.0.1:80"} {
		if err := refuseInside(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if err := refuseInside(net.JoinHostPort(a.(*net.IPNet).IP.String(), "80")); err == nil {
			t.Errorf("our own address %s is let pass", a)
		}
	}
	// A name that leads inside is found out when it is dialled, once.
	hits := make(chan bool, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits <- true }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	c := newCallbacks(slog.New(slog.DiscardHandler))
	again, err := c.attempt(t.Context(), "http://localhost:"+port, nil)
	if _, refused := errors.AsType[insideError](err); !refused || again || len(hits) != 0 {
		t.Errorf("again %t, %v", again, err)
	}
	for _, text := range []string{"ftp://example.org", "https://", "//example.org", "http://127.0.0.1/", "http://[::1]:80/", "http://a b/", "x", "http://" + string(make([]byte, 3000))} {
		if checkCallback(text) == nil {
			t.Errorf("%.40q is let pass", text)
		}
	}
	if err := checkCallback("https://example.org:8443/hook?a=b"); err != nil {
		t.Error(err)
	}
}
