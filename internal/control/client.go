package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"backendai"
)

// How long a session may take to answer; a caller's context can only be stricter.
const (
	replyTimeout = 10 * time.Second
	startTimeout = 2 * time.Minute // a service's prestart actions and the wait for its port
	stopTimeout  = 30 * time.Second
)

// Client speaks with one runner. It believes nothing: replies are bounded in
// size and time, names and numbers are checked, and text is made printable.
// Errors are *backendai.Error. It is safe for concurrent use.
type Client struct {
	http   *http.Client
	secret []byte
}

// NewClient makes a client that connects by dial (the engine's Dial of one
// session) and knows the secret of Config. Close lets go of its connections.
func NewClient(dial func(ctx context.Context) (net.Conn, error), secret []byte) *Client {
	return &Client{
		secret: secret,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
				DisableCompression:     true, // a runner's gzip could be a bomb
				MaxResponseHeaderBytes: maxHeader,
				MaxIdleConnsPerHost:    2,
				IdleConnTimeout:        30 * time.Second,
				ExpectContinueTimeout:  replyTimeout,
				ReadBufferSize:         4 << 10,
				WriteBufferSize:        16 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes idle connections. Streams that are open end by their own Close.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Health answers as soon as the runner lives, and checks that it knows the secret.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return c.health(ctx, "/v1/health", replyTimeout)
}

// Ready is Health that waits until the built-in apps accept connections.
func (c *Client) Ready(ctx context.Context) (Health, error) {
	return c.health(ctx, "/v1/ready", startTimeout)
}

func (c *Client) health(ctx context.Context, path string, limit time.Duration) (Health, error) {
	nonce := rand.Text()
	var h Health
	if err := c.call(ctx, limit, http.MethodGet, path+"?nonce="+nonce, nil, &h); err != nil {
		return Health{}, err
	}
	if !hmac.Equal(h.Proof, Proof(c.secret, nonce)) {
		return Health{}, backendai.Errorf(backendai.CodeUnavailable, "what answers for the session is not its runner")
	}
	h.SessionID, h.Version, h.Uptime = line(h.SessionID, 64), line(h.Version, 128), line(h.Uptime, 64)
	return h, nil
}

// Proof is what shows that a runner knows the secret: HMAC-SHA256 of the nonce.
func Proof(secret []byte, nonce string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(nonce))
	return mac.Sum(nil)
}

// Apps lists the apps of the session, sshd and ttyd first.
func (c *Client) Apps(ctx context.Context) ([]backendai.App, error) {
	var apps []backendai.App
	if err := c.call(ctx, replyTimeout, http.MethodGet, "/v1/apps", nil, &apps); err != nil {
		return nil, err
	}
	if err := checkApps(apps); err != nil {
		return nil, disbelieve(err)
	}
	return apps, nil
}

// Start starts an app if it does not run and returns when its port listens. The
// error of a failed start tells why, with the last output as its Data. An app
// that does not exist is CodeNotFound, a wrong argument CodeInvalidParams.
func (c *Client) Start(ctx context.Context, app string, req StartRequest) (StartReply, error) {
	var reply StartReply
	if err := c.call(ctx, startTimeout, http.MethodPost, "/v1/apps/"+url.PathEscape(app)+"/start", req, &reply); err != nil {
		return StartReply{}, err
	}
	if reply.Status != StatusStarted && reply.Status != StatusRunning || notAPort(reply.Port) {
		return StartReply{}, disbelieve(fmt.Errorf("the reply to a start is %q, port %d", cut(reply.Status, maxTitle), reply.Port))
	}
	return reply, nil
}

// Stop ends a service; one that does not run is no error.
func (c *Client) Stop(ctx context.Context, app string) error {
	return c.call(ctx, stopTimeout, http.MethodPost, "/v1/apps/"+url.PathEscape(app)+"/stop", nil, nil)
}

// Interrupt sends SIGINT to the batch command, if one runs.
func (c *Client) Interrupt(ctx context.Context) error {
	return c.call(ctx, replyTimeout, http.MethodPost, "/v1/interrupt", nil, nil)
}

// Shutdown asks the runner to end every process and itself. It returns when
// the runner has taken the request; the end is seen by the engine.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.call(ctx, replyTimeout, http.MethodPost, "/v1/shutdown", nil, nil)
}

// Terminals lists the open web terminals.
func (c *Client) Terminals(ctx context.Context) ([]Terminal, error) {
	var terminals []Terminal
	if err := c.call(ctx, replyTimeout, http.MethodGet, "/v1/terminals", nil, &terminals); err != nil {
		return nil, err
	}
	if err := checkTerminals(terminals); err != nil {
		return nil, disbelieve(err)
	}
	return terminals, nil
}

// EndTerminal ends a web terminal and what runs in it.
func (c *Client) EndTerminal(ctx context.Context, name string) error {
	return c.call(ctx, replyTimeout, http.MethodDelete, "/v1/terminals/"+url.PathEscape(name), nil, nil)
}

// Logs gives what the session printed, and with follow also what it will print,
// until the session ends. Without follow it is at most LogLimit long. The caller
// closes it.
func (c *Client) Logs(ctx context.Context, follow bool) (io.ReadCloser, error) {
	body, err := c.stream(ctx, "/v1/logs?follow="+strconv.FormatBool(follow))
	if err != nil || follow {
		return body, err
	}
	return limitedBody{io.LimitReader(body, LogLimit), body}, nil
}

// Events calls yield for each event, in order, until ctx ends, yield returns
// false or the connection breaks. It returns nil when yield ended it; a session
// that was shut down is an error like any other lost connection. A batch that
// was over before is told first, so a reconnect loses nothing that matters.
func (c *Client) Events(ctx context.Context, yield func(Event) bool) error {
	body, err := c.stream(ctx, "/v1/events")
	if err != nil {
		return err
	}
	defer body.Close()
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 0, 4<<10), 64<<10)
	for scanner.Scan() {
		var e Event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			return disbelieve(fmt.Errorf("an event is not JSON"))
		}
		if err := checkEvent(&e); err != nil {
			return disbelieve(err)
		}
		if !yield(e) {
			return nil
		}
	}
	if err := scanner.Err(); err != nil {
		return unreachable(err)
	}
	return unreachable(io.ErrUnexpectedEOF)
}

// call sends body as JSON if there is one and reads the reply into reply if it
// is wanted.
func (c *Client) call(ctx context.Context, limit time.Duration, method, path string, body, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readReply(resp.Body, reply)
}

// readReply reads a bounded reply to its end, into reply if it is wanted.
func readReply(body io.Reader, reply any) error {
	data, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	switch {
	case err != nil:
		return unreachable(err)
	case len(data) > maxReply:
		return disbelieve(fmt.Errorf("a reply is longer than %d bytes", maxReply))
	case reply == nil:
		return nil
	}
	if err := json.Unmarshal(data, reply); err != nil {
		return disbelieve(fmt.Errorf("a reply is not what was asked for: %w", err))
	}
	return nil
}

// stream opens a reply without end.
func (c *Client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// open asks for a reply without end. Its headers come within replyTimeout;
// after that only ctx ends it.
func (c *Client) open(ctx context.Context, method, path string, form url.Values) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(replyTimeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://runner"+path, body)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("make request to the runner: %w", err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &streamBody{resp.Body, cancel}
	return resp, nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write request to the runner: %w", err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://runner"+path, content)
	if err != nil {
		return nil, fmt.Errorf("make request to the runner: %w", err)
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.do(req)
}

// do sends a request. A reply that is not a success is an error.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, readError(resp.StatusCode, resp.Body)
	}
	return resp, nil
}

// unreachable is the error for a runner that does not answer. An Error of the
// engine's own, such as a session that does not exist, stays as it is.
func unreachable(err error) error {
	if e, ok := errors.AsType[*backendai.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // its URL is ours and says nothing to people
	}
	return backendai.Errorf(backendai.CodeUnavailable, "the session does not answer: %w", err)
}

// disbelieve is the error for a runner that says what no honest one says.
func disbelieve(err error) error {
	return backendai.Errorf(backendai.CodeInternal, "the session's answer is not to be believed: %w", err).
		WithHint("something in the session may have taken its runner's place; start a new session")
}

// streamBody ends its request when it is closed.
type streamBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *streamBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// limitedBody is a bounded reader of a body.
type limitedBody struct {
	io.Reader
	io.Closer
}
