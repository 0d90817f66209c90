package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"backendai"
)

// How hard a callback is tried. Events beyond the backlog of one session are lost.
const (
	callbackTime    = 10 * time.Second // of one attempt
	callbackTries   = 4
	callbackPause   = time.Second // before the second attempt; doubled before each further one
	callbackBacklog = 64          // events of one session
	maxCallbackURL  = 2048
)

// callbacks posts the events of sessions to the URLs that their owners gave, in
// order and one at a time for each session, so that a URL which does not answer
// delays nobody but its own session's news.
type callbacks struct {
	log    *slog.Logger
	client *http.Client
	wake   chan struct{} // holds a token when there is a session without a worker

	mu     sync.Mutex
	queues map[string]*callbackQueue // by session id
}

type callbackQueue struct {
	url     string
	events  []backendai.Event
	working bool
}

func newCallbacks(log *slog.Logger) *callbacks {
	dialer := &net.Dialer{Timeout: callbackTime, Control: func(_, address string, _ syscall.RawConn) error { return refuseInside(address) }}
	return &callbacks{
		log: log, wake: make(chan struct{}, 1), queues: map[string]*callbackQueue{},
		client: &http.Client{
			Transport: &http.Transport{
				// No proxy: it would resolve names where the dialer does not see it.
				DialContext: dialer.DialContext, TLSHandshakeTimeout: callbackTime, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       callbackTime,
		},
	}
}

// post queues an event; it never blocks.
func (c *callbacks) post(target string, e backendai.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[e.SessionID]
	if q == nil {
		q = &callbackQueue{url: target}
		c.queues[e.SessionID] = q
	}
	if len(q.events) == callbackBacklog {
		c.log.Warn("callback is lost", "session", e.SessionID, "event", e.Name)
		return
	}
	q.events = append(q.events, e)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run posts until ctx ends and waits for what it has begun.
func (c *callbacks) run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		for id, q := range c.queues {
			if !q.working {
				q.working = true
				workers.Go(func() { c.drain(ctx, id, q) })
			}
		}
		c.mu.Unlock()
	}
}

// drain posts the events of a session until there are none.
func (c *callbacks) drain(ctx context.Context, id string, q *callbackQueue) {
	for {
		c.mu.Lock()
		if len(q.events) == 0 {
			delete(c.queues, id)
			c.mu.Unlock()
			return
		}
		e := q.events[0]
		q.events = q.events[1:]
		c.mu.Unlock()
		if err := c.deliver(ctx, q.url, e); err != nil && ctx.Err() == nil {
			c.log.Warn("callback failed", "session", id, "event", e.Name, "host", hostOf(q.url), "err", err)
		}
	}
}

// hostOf is what of a URL may be logged: the rest may hold secrets.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// deliver posts one event, several times if need be.
func (c *callbacks) deliver(ctx context.Context, target string, e backendai.Event) error {
	body, err := json.Marshal(map[string]string{
		"type": "session_lifecycle", "event": strings.TrimPrefix(e.Name, scopeSession+"_"),
		"session_id": e.SessionID, "when": e.At.UTC().Format(time.RFC3339Nano),
	})
	if err != nil {
		return fmt.Errorf("write callback: %w", err)
	}
	pause := callbackPause
	for try := 1; ; try++ {
		again, err := c.attempt(ctx, target, body)
		if err == nil || !again || try == callbackTries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause *= 2
	}
}

// attempt posts once and tells whether another attempt could do better.
func (c *callbacks) attempt(ctx context.Context, target string, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "backend.ai")
	resp, err := c.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL
		}
		_, inside := errors.AsType[insideError](err)
		return !inside, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode < 300 {
		return false, nil
	}
	return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the answer is %s", resp.Status)
}

// insideError says that an address is none of the outside world.
type insideError struct{ address netip.Addr }

func (e insideError) Error() string {
	return fmt.Sprintf("the address %s is not one of the public network", e.address)
}

// inside are networks besides those that netip knows: shared address space,
// protocol assignments, benchmarks, reserved, and IPv6 forms of IPv4 addresses.
var inside = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// refuseInside keeps users from letting the server speak with its own machine
// and network. It sees the address after all names are resolved.
func refuseInside(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	ip := to.Addr().Unmap().WithZone("")
	bad := ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified()
	for _, p := range inside {
		bad = bad || p.Contains(ip)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list own addresses: %w", err)
	}
	for _, a := range own {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		mine, ok := netip.AddrFromSlice(n.IP)
		bad = bad || ok && mine.Unmap() == ip
	}
	if bad {
		return insideError{ip}
	}
	return nil
}

// checkCallback checks a URL before anything is posted to it.
func checkCallback(text string) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxCallbackURL:
		return fmt.Errorf("is longer than %d bytes", maxCallbackURL)
	case err != nil || u.Host == "" || u.Hostname() == "":
		return errors.New("is not a URL such as https://example.org/hook")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("is neither an http nor an https URL")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := refuseInside(netip.AddrPortFrom(ip, 80).String()); err != nil {
			return err
		}
	}
	return nil
}
