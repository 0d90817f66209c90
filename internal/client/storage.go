package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"backendai"
)

// grant is the permission to send or fetch files at a storage endpoint, whose
// address names it. Upload is our server's.
type grant struct {
	Token  string `json:"token"`
	URL    string `json:"url"`
	Upload *struct {
		ID    string       `json:"id"`
		Parts []uploadPart `json:"parts"`
	} `json:"upload"`
}

// uploadPart is a part of a file that is sent by itself.
type uploadPart struct {
	ID       string `json:"id"`
	Position int64  `json:"position"`
	Length   int64  `json:"length"`
	Offset   int64  `json:"offset"`
}

// ask asks for a grant.
func (c *Client) ask(ctx context.Context, folder, what string, body object) (grant, error) {
	var g grant
	if err := c.read(ctx, call{method: http.MethodPost, path: folderPath(folder, what), json: body}, &g); err != nil {
		return g, err
	}
	if _, err := url.Parse(g.URL); err != nil || g.URL == "" || g.Token == "" {
		return g, backendai.Errorf(backendai.CodeInternal, "the server's address for files %q is not one", g.URL)
	}
	return g, nil
}

// address is where a grant leads, with the replacements of the configuration;
// suffix goes behind its path, and sibling in the place of its last part.
func (c *Client) address(g grant, sibling, suffix string, more url.Values) string {
	base := g.URL
	for from, to := range c.config.StorageProxies {
		base = strings.Replace(base, from, to, 1)
	}
	if sibling != "" {
		base = base[:strings.LastIndex(base, "/")+1] + sibling
	}
	query := url.Values{"token": {g.Token}}
	for name, values := range more {
		query[name] = values
	}
	return base + suffix + "?" + query.Encode()
}

// OverrideStorage replaces what begins the addresses of files, beside what the
// configuration says. It is called before any transfer.
func (c *Client) OverrideStorage(proxies map[string]string) {
	all := maps.Clone(c.config.StorageProxies)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, proxies)
	c.config.StorageProxies = all
}

// DownloadAddress is where whoever has the address can download a file for a while.
func (c *Client) DownloadAddress(ctx context.Context, folder, path string) (address, token string, err error) {
	g, err := c.ask(ctx, folder, "request-download", object{"path": path, "file": path, "archive": false})
	if err != nil {
		return "", "", err
	}
	return c.address(g, "", "", nil), g.Token, nil
}

// storageError is a refusal by a storage endpoint.
type storageError struct {
	status int
	code   string // such as ERR_MISMATCHED_OFFSET; empty for a problem of the API
	err    error
}

func (e *storageError) Error() string { return e.err.Error() }
func (e *storageError) Unwrap() error { return e.err }

// statusOf is the HTTP status of a refusal, 0 for other errors.
func statusOf(err error) int {
	if e, ok := errors.AsType[*storageError](err); ok {
		return e.status
	}
	return 0
}

// storage sends a request to a storage endpoint. Length is that of the body, -1
// when it is not known. The caller closes the body of the answer, whose status is 2xx.
func (c *Client) storage(ctx context.Context, method, address string, body io.Reader, length int64, header http.Header) (*http.Response, error) {
	if body == nil {
		body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		if b, ok := body.(io.Closer); ok {
			_ = b.Close()
		}
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.ContentLength = length
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, req.URL, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // half a reason is better than none
	refusal := &storageError{status: resp.StatusCode, err: c.problem(req.URL, resp.StatusCode, resp.Header, text)}
	if code, message, ok := strings.Cut(strings.TrimSpace(string(text)), ": "); ok && strings.HasPrefix(code, "ERR_") {
		refusal.code, refusal.err = code, backendai.Errorf(backendai.CodeVFolderFailed, "the storage at %s refused: %s", req.URL.Host, message)
	}
	return nil, refusal
}

// broken explains why no answer came, without the token of the address.
func (c *Client) broken(ctx context.Context, at *url.URL, err error) error {
	plain := *at
	plain.RawQuery = ""
	err = c.unreachable(ctx, &plain, err)
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code == backendai.CodeUnavailable {
		return backendai.Errorf(backendai.CodeUnavailable, "the connection to %s broke off: %w", at.Host, cmp.Or(e.Err, err)).
			WithHint("the same command goes on where it stopped")
	}
	return err
}

// How often and how long a transfer tries to go on after it was broken off.
const (
	DefaultTries = 20
	firstWait    = 100 * time.Millisecond
	longestWait  = 3 * time.Second
)

// passing tells whether an error may be another one soon: the connection broke,
// or the server is busy or starting.
func passing(err error) bool {
	switch code := backendai.CodeOf(err); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case interrupted(err):
		return true
	case statusOf(err) != 0:
		status := statusOf(err)
		return status == http.StatusLocked || status == http.StatusConflict || status == http.StatusTooManyRequests || status/100 == 5
	default:
		return code == backendai.CodeUnreachable || code == backendai.CodeUnavailable
	}
}

// interrupted tells whether the server ended a request for another one, such as
// one that asks how far the file has come.
func interrupted(err error) bool {
	e, ok := errors.AsType[*storageError](err)
	return ok && (e.code == "ERR_UPLOAD_INTERRUPTED" || e.code == "ERR_UNEXPECTED_EOF")
}

// persist does something again while it fails for reasons that pass. Progress
// that was made, as moved tells, makes all tries available anew.
func persist(ctx context.Context, tries int, moved func() bool, do func() error) error {
	wait := firstWait
	for try := 1; ; try++ {
		err := do()
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		if moved != nil && moved() {
			try, wait = 1, firstWait
		}
		if try >= tries {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		wait = min(2*wait, longestWait)
	}
}

// storageJSON reads the answer of a storage endpoint.
func (c *Client) storageJSON(ctx context.Context, method, address string, into any) error {
	resp, err := c.storage(ctx, method, address, nil, 0, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return c.broken(ctx, resp.Request.URL, err)
	}
	return nil
}

// stampOf writes seconds since 1970 as the protocol writes times.
func stampOf(seconds float64) string {
	return time.Unix(0, int64(seconds*1e9)).UTC().Format(time.RFC3339)
}
