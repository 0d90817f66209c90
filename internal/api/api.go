// Package api speaks the public protocol over HTTP: it reads parameters under
// all their names, calls the services, and writes their answers in the
// protocol's form. There is one file per noun. What is allowed and what exists
// is decided by the services alone; every route but the greeting needs a
// signed request.
package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/api/graphql"
	"backendai/internal/auth"
	"backendai/internal/dotfile"
	"backendai/internal/session"
	"backendai/internal/vfolder"
)

// Images is what the API needs of the image store.
type Images interface {
	session.Images
	// Import reads an image archive; name is empty or for an archive of one image.
	Import(ctx context.Context, r io.Reader, name string, progress func(backendai.PullProgress)) ([]backendai.Image, error)
	// Build makes a stock image from its recipe.
	Build(ctx context.Context, recipe string, progress func(line string)) (backendai.Image, error)
	List(ctx context.Context) ([]backendai.Image, error)
	Remove(ctx context.Context, name string) error
	Alias(ctx context.Context, alias, target string) error
	Dealias(ctx context.Context, alias string) error
}

// Options are the parts that the API stands on; all but Proxies, Logger and Now
// are required.
type Options struct {
	Sessions session.API
	Accounts account.API
	Images   Images
	Folders  vfolder.API
	Dotfiles dotfile.API
	// Capacity is what the machine has to give to sessions.
	Capacity func(ctx context.Context) (backendai.Slots, error)
	Version  string // of the server program
	// Proxies are those whose X-Forwarded-Host and X-Forwarded-Proto are believed.
	Proxies []netip.Prefix
	Logger  *slog.Logger
	Now     func() time.Time // nil is time.Now
}

// The limits of requests and answers.
const (
	maxBody    = 1 << 20 // bytes of a request with parameters
	bodyTime   = 30 * time.Second
	handleTime = 60 * time.Second // of a request that neither waits for a session nor streams
	answerTime = 60 * time.Second // to take an answer that is no stream
)

// Handler is the API. It is safe for concurrent use.
type Handler struct {
	opts      Options
	log       *slog.Logger
	now       func() time.Time
	routes    []route
	gql       *graphql.Schema
	limiter   limiter
	downloads chan struct{}   // one element for each download in memory
	life      context.Context // of the tunnels
	cut       context.CancelCauseFunc
	streams   sync.WaitGroup
}

// New makes the API.
func New(opts Options) (*Handler, error) {
	h := &Handler{opts: opts, log: opts.Logger, now: opts.Now, downloads: make(chan struct{}, maxDownloads)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	gql, err := graphql.New(graphql.Options{
		Sessions: opts.Sessions, Accounts: opts.Accounts, Images: opts.Images, Folders: opts.Folders, Capacity: opts.Capacity,
		Version: opts.Version, Started: h.now(), Logger: h.log,
	})
	if err != nil {
		return nil, fmt.Errorf("make API: %w", err)
	}
	h.gql = gql
	h.life, h.cut = context.WithCancelCause(context.Background())
	h.routes = h.table()
	return h, nil
}

// End ends the tunnels for a reason and returns when they have ended;
// http.Server.Shutdown does not know of connections that were taken over.
func (h *Handler) End(cause error) {
	h.cut(cause)
	h.streams.Wait()
}

// call is one request on its way through the API.
type call struct {
	*params

	w      *recorder
	r      *http.Request
	id     string // of the request, for the log and the user
	path   map[string]string
	signer backendai.Caller // who signed
	caller backendai.Caller // on whose behalf: the owner_access_key's, else the signer
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: &recorder{ResponseWriter: w}, r: r, id: newID()}
	start := h.now()
	c.w.Header().Set("Server", "BackendAI")
	c.w.Header().Set("X-Request-ID", c.id)
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if v := recover(); v != nil {
			h.log.Error("panic in request", "request", c.id, "panic", v, "stack", string(debug.Stack()))
			h.fail(c, errors.New("panic"))
		}
		h.log.Debug("request", "request", c.id, "method", r.Method, "path", r.URL.Path, "status", c.w.status,
			"took", h.now().Sub(start), "remote", r.RemoteAddr, "access_key", c.signer.Keypair.AccessKey)
	}()
	if err := h.serve(c); err != nil {
		h.fail(c, err)
	}
}

// serve finds the route, checks who asks, reads the parameters and calls the handler.
func (h *Handler) serve(c *call) error {
	rt, path, err := h.find(c.r)
	if err != nil {
		return err
	}
	c.path = path
	if rt.open {
		return rt.handle(c)
	}
	if err := h.authenticate(c); err != nil {
		return err
	}
	if rt.superadmin && !c.signer.Superadmin() {
		return backendai.Errorf(backendai.CodeForbidden, "only a superadmin may do this")
	}
	if c.params, err = readParams(c.w, c.r, rt.rawBody); err != nil {
		return err
	}
	owner := c.text("", "owner_access_key", "ownerAccessKey", "onwer_access_key")
	if c.caller, err = h.opts.Accounts.Act(c.r.Context(), c.signer, owner); err != nil {
		return err
	}
	ctx, cancel, err := h.lifetime(c, rt)
	if err != nil {
		return err
	}
	defer cancel()
	c.r = c.r.WithContext(ctx)
	return rt.handle(c)
}

// lifetime bounds a request.
func (h *Handler) lifetime(c *call, rt route) (context.Context, context.CancelFunc, error) {
	if rt.long {
		return h.held(c.r.Context(), c)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), handleTime)
	return ctx, cancel, nil
}

// held gives a context that ends with its parent, and when the keypair that
// signed a request may not be used any more. The caller ends it.
func (h *Handler) held(parent context.Context, c *call) (context.Context, context.CancelFunc, error) {
	held, release, err := h.opts.Accounts.Hold(parent, c.signer.Keypair.AccessKey)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	return ctx, func() {
		stop()
		cancel(nil)
		release()
	}, nil
}

// authenticate finds the keypair that signed the request and counts the request.
func (h *Handler) authenticate(c *call) error {
	if v := c.r.Header.Get(auth.HeaderVersion); v != "" && !supportedVersion(v) {
		return backendai.Errorf(backendai.CodeBadRequest, "unsupported API version %q", v).
			WithHint("this server speaks %s and the versions before it", apiVersion)
	}
	_, err := auth.Verify(c.r, h.now(), func(accessKey string) (string, error) {
		caller, err := h.opts.Accounts.Lookup(c.r.Context(), accessKey)
		if err != nil {
			return "", err
		}
		c.signer = caller
		return caller.Keypair.SecretKey, nil
	})
	if err != nil {
		c.signer = backendai.Caller{}
		return err
	}
	return h.count(c)
}

// json answers with v.
func (c *call) json(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	c.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	return c.body(status, body)
}

// body writes a whole answer within answerTime.
func (c *call) body(status int, body []byte) error {
	// A writer without deadlines belongs to a test; it never blocks.
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(answerTime))
	c.w.WriteHeader(status)
	_, err := c.w.Write(body)
	return err
}

func (c *call) noContent() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// stream starts an answer that goes on for as long as the client stays.
func (c *call) stream(contentType string) *http.ResponseController {
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.Header().Set("X-Accel-Buffering", "no") // a proxy must pass it on at once
	c.w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(c.w)
	_ = rc.SetWriteDeadline(time.Time{}) // an earlier answer on this connection had one
	_ = rc.Flush()
	return rc
}

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// recorder remembers the status and whether an answer has begun.
type recorder struct {
	http.ResponseWriter

	status int // 0: no answer yet
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements io.Writer.
func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that a file goes by the kernel.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.WriteHeader(http.StatusOK)
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
