package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"backendai"
)

// problemBase begins the type of every problem (API section 3).
const problemBase = "https://api.backend.ai/probs/"

// problem is an error on the wire: RFC 9457 in the form of API section 3. Hint
// is ours; msg repeats it, because that is what the protocol's own clients print.
type problem struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	Msg   string `json:"msg,omitempty"`
	Hint  string `json:"hint,omitempty"`
	Data  any    `json:"data,omitempty"`
}

// problemOf is the wire form of an error. Causes stay in the log.
func problemOf(err error, requestID string) (problem, int) {
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			e = backendai.Errorf(backendai.CodeUnavailable, "the server did not finish in time").WithHint("try again")
		} else {
			e = backendai.Errorf(backendai.CodeInternal, "internal server error").
				WithHint("the server's log tells more about the request %s", requestID)
		}
	}
	return problem{Type: problemBase + string(e.Code), Title: e.Title, Msg: e.Hint, Hint: e.Hint, Data: e.Data}, e.Code.HTTPStatus()
}

// fail answers with the problem, unless an answer has begun already or nobody
// is there to read it.
func (h *Handler) fail(c *call, err error) {
	if errors.Is(err, context.Canceled) && c.r.Context().Err() != nil {
		return
	}
	p, status := problemOf(err, c.id)
	if status >= http.StatusInternalServerError {
		h.log.Error("request failed", "request", c.id, "path", c.r.URL.Path, "err", cause(err))
	}
	if c.w.status != 0 {
		return
	}
	if allowed, ok := p.Data.(string); ok && status == http.StatusMethodNotAllowed {
		c.w.Header().Set("Allow", allowed)
	}
	body, err := json.Marshal(p)
	if err != nil {
		h.log.Error("write problem", "request", c.id, "err", err)
		body = []byte(`{"type":"` + problemBase + `internal-server-error","title":"internal server error"}`)
	}
	c.w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
	if err := c.body(status, body); err != nil {
		h.log.Debug("write problem", "request", c.id, "err", err)
	}
}

// cause is what the log should tell of an error: the inner one, if it has more to say.
func cause(err error) error {
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Err != nil {
		return errors.Join(err, e.Err)
	}
	return err
}
