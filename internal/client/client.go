// Package client speaks Backend.AI's v1 protocol: to our server and to the
// original's. A Client is made from a Config, signs each request, fails over
// between the endpoints of one cluster, and gives every failure as a
// *backendai.Error that says what is wrong and what helps. The secret key never
// leaves the process.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"backendai"
	"backendai/internal/auth"
	"backendai/internal/tunnel"
)

// maxAnswer bounds answers that are read into memory, in bytes.
const maxAnswer = 64 << 20

// Options are what a client can do without.
type Options struct {
	UserAgent string
	StateDir  string           // where negotiated versions are kept; empty keeps none
	Now       func() time.Time // nil is time.Now
}

// Client is one user's access to one cluster. It is safe for concurrent use.
type Client struct {
	config    Config
	opts      Options
	endpoints []*url.URL   // in the order of trial
	current   atomic.Int64 // index of the endpoint that answered last
	http      *http.Client
	dialer    *tunnel.Dialer
	versions  *versions
}

// New makes a client; nothing is sent yet. Several endpoints are tried in random order.
func New(config Config, opts Options) (*Client, error) {
	c := &Client{config: config, opts: opts, versions: newVersions(opts.StateDir)}
	if opts.Now == nil {
		c.opts.Now = time.Now
	}
	for _, text := range config.Endpoints {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("read endpoint: %w", err)
		}
		u.RawQuery, u.Fragment = "", ""
		c.endpoints = append(c.endpoints, u)
	}
	if len(c.endpoints) == 0 {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "no endpoint is set").WithHint("set BACKEND_ENDPOINT to the address of the server")
	}
	rand.Shuffle(len(c.endpoints), func(i, j int) { c.endpoints[i], c.endpoints[j] = c.endpoints[j], c.endpoints[i] })
	dial := (&net.Dialer{Timeout: config.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	secure := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: config.SkipTLSVerify} //nolint:gosec // asked for by the user
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: widely(dial), TLSClientConfig: secure,
			TLSHandshakeTimeout: config.ConnectTimeout, ResponseHeaderTimeout: config.ReadTimeout,
			MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second, ExpectContinueTimeout: time.Second,
		},
		// A signature covers the path: a redirect cannot be followed with it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.dialer = &tunnel.Dialer{TLS: secure, NetDial: dial, Sign: c.signStream}
	return c, nil
}

// Config is what the client was made from.
func (c *Client) Config() Config { return c.config }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request to come.
type call struct {
	method string
	path   []string // segments, not escaped
	query  url.Values
	json   any       // body, or nil
	body   io.Reader // body that is sent as it is and only once, or nil
	media  string    // of the body; application/octet-stream when it is empty
	stream bool      // signed as a stream: without a media type
}

// do sends a call to the endpoint that answered last, or to the next that can
// be reached. The caller closes the body of the answer, whose status is 2xx.
func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	var body []byte
	if k.json != nil {
		var err error
		if body, err = json.Marshal(k.json); err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
	}
	var last error
	for i := range c.endpoints {
		index := (int(c.current.Load()) + i) % len(c.endpoints)
		endpoint := c.endpoints[index]
		resp, err := c.send(ctx, endpoint, k, body)
		if staleVersion(err) && k.body == nil && c.versions.forget(endpoint.String()) {
			resp, err = c.send(ctx, endpoint, k, body)
		}
		if err == nil || backendai.CodeOf(err) != backendai.CodeUnreachable || ctx.Err() != nil {
			c.current.Store(int64(index))
			return resp, err
		}
		last = err
	}
	return nil, last
}

// send sends a call to one endpoint.
func (c *Client) send(ctx context.Context, endpoint *url.URL, k call, body []byte) (*http.Response, error) {
	version, err := c.negotiate(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	target, err := address(endpoint, version, k)
	if err != nil {
		return nil, err
	}
	media := "text/plain"
	var payload io.Reader = http.NoBody
	switch {
	case k.body != nil:
		media, payload = cmp.Or(k.media, "application/octet-stream"), k.body
	case k.json != nil:
		media, payload = "application/json", bytes.NewReader(body)
	case k.stream:
		media = ""
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target.String(), payload)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	c.sign(req, version, media)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, endpoint, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // half a reason is better than none
		return nil, c.problem(endpoint, resp.StatusCode, resp.Header, text)
	}
	return resp, nil
}

// address is the URL of a call. Up to version 4 sessions were kernels.
func address(endpoint *url.URL, version apiVersion, k call) (*url.URL, error) {
	segments := make([]string, len(k.path))
	for i, s := range k.path {
		if s == "" || s == "." || s == ".." {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "%q is not a name", s).WithHint("give a name or an id")
		}
		if s == "session" && version.major <= 4 && i == slices.Index(k.path, "session") {
			s = "kernel"
		}
		segments[i] = url.PathEscape(s)
	}
	u := endpoint.JoinPath(segments...)
	if len(segments) == 0 {
		u = endpoint.JoinPath("/")
	}
	u.RawQuery = k.query.Encode()
	return u, nil
}

func (c *Client) sign(req *http.Request, version apiVersion, media string) {
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set(auth.HeaderDomain, c.config.Domain)
	auth.Sign(req, c.config.AccessKey, c.config.SecretKey, version.String(), media, c.opts.Now())
}

// signStream signs the request of a tunnel, whose endpoint has been negotiated with.
func (c *Client) signStream(req *http.Request) error {
	version := clientVersion
	for _, endpoint := range c.endpoints {
		if endpoint.Host == req.URL.Host && strings.HasPrefix(req.URL.Path, endpoint.Path) {
			if v, ok := c.versions.get(endpoint.String(), c.opts.Now()); ok {
				version = v
			}
		}
	}
	c.sign(req, version, "")
	return nil
}

// get, post and so on read the answer of a call as JSON into into, unless that is nil.
func (c *Client) read(ctx context.Context, k call, into any) error {
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
		return nil
	}
	return c.decode(ctx, resp, into)
}

func (c *Client) decode(ctx context.Context, resp *http.Response, into any) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(ctx, resp.Request.URL, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return backendai.Errorf(backendai.CodeInternal, "the answer of %s is not what the protocol says: %w", resp.Request.URL.Host, err).
			WithHint("is BACKEND_ENDPOINT the address of a Backend.AI server?")
	}
	return nil
}

// Restarting tells whether a call has failed because no server answered, as it
// is while one starts again. A server that says that something in it cannot be
// had now does answer.
func Restarting(err error) bool {
	e, ok := errors.AsType[*backendai.Error](err)
	return ok && (e.Code == backendai.CodeUnreachable || e.Code == backendai.CodeUnavailable && e.Err != nil)
}

// unreachable explains why no answer came. A call that ended with its context
// gives the context's cause.
func (c *Client) unreachable(ctx context.Context, endpoint *url.URL, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*backendai.Error](err); ok {
		return e
	}
	where := endpoint.Scheme + "://" + endpoint.Host
	certificate := new(tls.CertificateVerificationError)
	opErr, dialled := errors.AsType[*net.OpError](err)
	dialled = dialled && (opErr.Op == "dial" || opErr.Op == "proxyconnect")
	dnsErr, lookup := errors.AsType[*net.DNSError](err)
	switch {
	case errors.As(err, &certificate):
		return backendai.Errorf(backendai.CodeAuthFailed, "the certificate of %s is not valid: %w", where, certificate.Err).
			WithHint("for a server of your own with its own certificate: --skip-sslcert-validation")
	case lookup:
		return backendai.Errorf(backendai.CodeUnreachable, "cannot reach the server at %s: %w", where, dnsErr).
			WithHint("check the name in BACKEND_ENDPOINT")
	case dialled:
		return backendai.Errorf(backendai.CodeUnreachable, "cannot reach the server at %s: %w", where, cmp.Or(opErr.Err, err)).
			WithHint("is it running? 'backend.ai server' starts one; BACKEND_ENDPOINT tells the address")
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return backendai.Errorf(backendai.CodeInvalidParams, "the server at %s does not speak HTTPS", where).WithHint("write http:// in BACKEND_ENDPOINT")
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return backendai.Errorf(backendai.CodeUnavailable, "the server at %s did not answer in time", where).
			WithHint("BACKEND_READ_TIMEOUT sets how many seconds to wait; 0 waits without limit")
	}
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return backendai.Errorf(backendai.CodeUnavailable, "the server at %s ended the connection before its answer: %w", where, err).
		WithHint("it may have been stopped in the middle; 'backend.ai ps' shows what became of the session")
}
