package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/client"
	"backendai/internal/term"
	"backendai/internal/tunnel"
)

// Limits of the forwarder.
const (
	serverPatience = 8 * time.Second        // for a server that refuses connections: it may be restarting
	retryInterval  = 200 * time.Millisecond // while it refuses them
	requestTime    = 5 * time.Second        // for a browser to send the request that gets an error page
	maxRequest     = 64 << 10               // bytes of it that are read
)

// listenAt opens the listeners of an address and tells their port. Both
// loopback addresses have the same one.
func listenAt(ctx context.Context, at bindAddress) (listeners []net.Listener, port int, err error) {
	if at.host != "" {
		l, err := listenOn(ctx, at.host, at.port)
		if err != nil {
			return nil, 0, err
		}
		return []net.Listener{l}, portOf(l), nil
	}
	const tries = 20 // a port that is free on one loopback may be taken on the other
	for range tries {
		var four, six net.Listener
		if four, err = listenOn(ctx, "127.0.0.1", at.port); err != nil {
			return nil, 0, err
		}
		port = portOf(four)
		six, err = listenOn(ctx, "::1", port)
		if err == nil {
			return []net.Listener{four, six}, port, nil
		}
		if !taken(err) { // the machine has no IPv6
			return []net.Listener{four}, port, nil
		}
		err = errors.Join(err, four.Close())
		if at.port != 0 {
			break
		}
	}
	return nil, 0, err
}

func listenOn(ctx context.Context, host string, port int) (net.Listener, error) {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if taken(err) {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the address %s is already in use: %w", address, err).
			WithHint("choose another port with -b, or -b 0 for a free one")
	}
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "cannot listen on %s: %w", address, err).WithHint("choose another address with -b")
	}
	return l, nil
}

func taken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func portOf(l net.Listener) int {
	address, _ := l.Addr().(*net.TCPAddr)
	return address.Port
}

// forwarder leads each connection that it accepts to where dial leads.
type forwarder struct {
	what       string // is reached, in words
	speaksHTTP bool   // a browser may be at the other end
	dial       func(ctx context.Context) (net.Conn, error)
	tell       *term.Printer

	mu   sync.Mutex
	last string // reason that was told and has not passed since
}

// run accepts connections until ctx ends, and returns its cause when all of
// them have ended. It closes the listeners.
func (f *forwarder) run(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		for _, l := range listeners {
			_ = l.Close() // ends its Accept
		}
	})
	defer stop()
	for _, l := range listeners {
		all.Go(func() {
			for {
				local, err := l.Accept()
				if err != nil {
					cancel(fmt.Errorf("accept connections: %w", err)) // no effect when ctx has ended
					return
				}
				all.Go(func() { f.serve(ctx, local) })
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// serve leads one connection.
func (f *forwarder) serve(ctx context.Context, local net.Conn) {
	remote, err := f.reach(ctx)
	if err != nil {
		defer local.Close()
		if ctx.Err() != nil {
			return
		}
		f.complain(err)
		if f.speaksHTTP {
			stop := context.AfterFunc(ctx, func() { _ = local.Close() })
			defer stop()
			f.page(local, err)
		}
		return
	}
	f.mu.Lock()
	f.last = ""
	f.mu.Unlock()
	// How a connection ends is between its two ends.
	_, _, _ = tunnel.Relay(ctx, local, remote)
}

// reach dials, and dials again for a while when the server refuses connections.
func (f *forwarder) reach(ctx context.Context) (net.Conn, error) {
	until := time.Now().Add(serverPatience)
	for {
		c, err := f.dial(ctx)
		if err == nil || !client.Restarting(err) || time.Now().After(until) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(retryInterval):
		}
	}
}

// complain tells a reason once, until a connection has succeeded again:
// browsers try many times.
func (f *forwarder) complain(err error) {
	text := strings.Join(errorLines(err), "\n")
	f.mu.Lock()
	told := f.last == text
	f.last = text
	f.mu.Unlock()
	if !told {
		f.tell.Fail("Cannot reach %s: %s", f.what, text)
	}
}

const errorPage = `<!doctype html>
<meta charset="utf-8"><title>%[1]s</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44em;margin:4em auto;padding:0 1em}pre{white-space:pre-wrap}</style>
<h1>%[1]s</h1>
<p>Cannot reach %[2]s.</p>
<pre>%[3]s</pre>
`

// page answers a browser's request with the reason. What does not speak HTTP
// gets no answer.
func (f *forwarder) page(local net.Conn, err error) {
	_ = local.SetDeadline(time.Now().Add(requestTime))
	req, readErr := http.ReadRequest(bufio.NewReader(io.LimitReader(local, maxRequest)))
	if readErr != nil {
		return
	}
	status := http.StatusBadGateway
	if code := backendai.CodeOf(err); code == backendai.CodeUnreachable || code == backendai.CodeUnavailable {
		status = http.StatusServiceUnavailable
	}
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	reason := term.Clean(strings.Join(errorLines(err), "\n"))
	body := fmt.Sprintf(errorPage, title, html.EscapeString(f.what), html.EscapeString(reason))
	resp := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: req, Close: true, ContentLength: int64(len(body)),
		Header: http.Header{
			"Content-Type": {"text/html; charset=utf-8"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
			"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'"},
		},
		Body: io.NopCloser(strings.NewReader(body)),
	}
	if cmp.Or(resp.Write(local), req.Body.Close()) != nil {
		return
	}
	if half, ok := local.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		// An unread rest of the request would turn the end into a reset.
		_, _ = io.Copy(io.Discard, io.LimitReader(local, maxRequest))
	}
}
