package runner

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/net/netutil"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/ttyd"
	"backendai/internal/version"
)

// Limits of the control connection.
const (
	maxConnections = 256
	maxHeader      = 16 << 10
	maxBody        = 1 << 20
	maxNonce       = 256
	headerTimeout  = 10 * time.Second
	// patience is how long one write of an answer may wait for its reader.
	patience = 30 * time.Second
)

func bounded(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

// server answers the control connection (package control); requests end with ctx.
func (r *Runner) server(ctx context.Context) *http.Server {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) { answer(w, req, h) })
	}
	handle("GET /v1/health", r.getHealth)
	handle("GET /v1/ready", r.getReady)
	handle("GET /v1/apps", r.getApps)
	handle("POST /v1/apps/{name}/start", r.startApp)
	handle("POST /v1/apps/{name}/stop", r.stopApp)
	handle("GET /v1/logs", r.getLogs)
	handle("GET /v1/events", r.getEvents)
	handle("POST /v1/interrupt", r.interrupt)
	handle("GET /v1/files", r.packFiles)
	handle("POST /v1/files/pack", r.packFiles)
	handle("POST /v1/files", r.unpackFiles)
	handle("GET /v1/files/list", r.listFiles)
	handle("GET /v1/files/raw", r.readFile)
	handle("GET /v1/files/sum", r.sumFile)
	handle("GET /v1/terminals", r.getTerminals)
	handle("DELETE /v1/terminals/{name}", r.endTerminal)
	handle("POST /v1/shutdown", r.postShutdown)
	handle("/", func(http.ResponseWriter, *http.Request) error {
		return backendai.Errorf(backendai.CodeURLNotFound, "the runner has no such call")
	})
	return &http.Server{
		Handler:           mux,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// answer turns errors and panics into answers: nothing that comes over the
// connection ends the runner.
func answer(w http.ResponseWriter, req *http.Request, h func(http.ResponseWriter, *http.Request) error) {
	out := &writer{ResponseWriter: w, control: http.NewResponseController(w)}
	defer func() {
		switch p := recover(); {
		case p == nil:
		case out.begun:
			panic(http.ErrAbortHandler) // net/http breaks the connection off, so the reader knows
		default:
			control.WriteError(out, backendai.Errorf(backendai.CodeInternal, "the runner failed: %v", p))
		}
	}()
	if !unbounded(req) {
		req.Body = http.MaxBytesReader(out, req.Body, maxBody)
	}
	switch err := h(out, req); {
	case err == nil:
	case out.begun:
		panic(http.ErrAbortHandler)
	default:
		control.WriteError(out, err)
	}
}

// writer gives every write its own time.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.begun = true
	if err := w.control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// FlushError sends what was written so far.
func (w *writer) FlushError() error {
	if err := w.control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return w.control.Flush()
}

// flushing sends every write at once.
type flushing struct{ *writer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.writer.Write(p)
	if err == nil {
		err = f.FlushError()
	}
	return n, err
}

// stream makes w one whose writes are sent at once, and sends the headers.
func stream(w http.ResponseWriter, contentType string) (io.Writer, error) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	out := flushing{w.(*writer)}
	return out, out.FlushError()
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func (r *Runner) getHealth(w http.ResponseWriter, req *http.Request) error {
	nonce := req.URL.Query().Get("nonce")
	if len(nonce) > maxNonce {
		return backendai.Errorf(backendai.CodeInvalidParams, "the nonce is longer than %d bytes", maxNonce)
	}
	return reply(w, control.Health{
		SessionID: r.Config.SessionID,
		Proof:     control.Proof(r.Config.Secret, nonce),
		PID:       os.Getpid(),
		Version:   version.String(),
		Uptime:    time.Since(r.started).Round(time.Millisecond).String(),
	})
}

func (r *Runner) getReady(w http.ResponseWriter, req *http.Request) error {
	select {
	case <-r.ready:
		return r.getHealth(w, req)
	case <-r.ending:
		return backendai.Errorf(backendai.CodeUnavailable, "the session ended before it was ready")
	}
}

func (r *Runner) getApps(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, r.services.Apps())
}

func (r *Runner) startApp(w http.ResponseWriter, req *http.Request) error {
	var start control.StartRequest
	// A client that stops in the middle of its body must not be waited for.
	c := w.(*writer).control
	if err := c.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	if err := json.NewDecoder(req.Body).Decode(&start); err != nil && !errors.Is(err, io.EOF) {
		return backendai.Errorf(backendai.CodeInvalidParams, "the request is not JSON: %w", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	started, err := r.services.Start(req.Context(), req.PathValue("name"), start)
	if err != nil {
		return err
	}
	return reply(w, started)
}

func (r *Runner) stopApp(w http.ResponseWriter, req *http.Request) error {
	if err := r.services.Stop(req.Context(), req.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (r *Runner) getLogs(w http.ResponseWriter, req *http.Request) error {
	out, err := stream(w, "application/octet-stream")
	if err != nil {
		return err
	}
	return r.log.Copy(req.Context(), out, req.URL.Query().Get("follow") == "true")
}

func (r *Runner) getEvents(w http.ResponseWriter, req *http.Request) error {
	events, leave := r.events.listen()
	defer leave()
	out, err := stream(w, "application/jsonl")
	if err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return nil
			}
			if err := lines.Encode(e); err != nil {
				return err
			}
		case <-req.Context().Done():
			return req.Context().Err()
		}
	}
}

func (r *Runner) interrupt(w http.ResponseWriter, _ *http.Request) error {
	if err := r.foreground.interrupt(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (r *Runner) getTerminals(w http.ResponseWriter, _ *http.Request) error {
	r.mu.Lock()
	t := r.terminals
	r.mu.Unlock()
	if t == nil {
		return reply(w, []control.Terminal{})
	}
	return reply(w, t.Terminals())
}

func (r *Runner) endTerminal(w http.ResponseWriter, req *http.Request) error {
	name := req.PathValue("name")
	r.mu.Lock()
	t := r.terminals
	r.mu.Unlock()
	err := ttyd.ErrNoTerminal
	if t != nil {
		err = t.End(name)
	}
	if errors.Is(err, ttyd.ErrNoTerminal) {
		return backendai.NotFound("terminal", name)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (r *Runner) postShutdown(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusAccepted)
	err := w.(*writer).FlushError()
	r.once.Do(func() { close(r.shutdown) })
	return err
}
