package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"backendai"
)

// problemBase begins the type of every problem (API section 3).
const problemBase = "https://api.backend.ai/probs/"

// problem is an error on the wire (RFC 9457 in the form of API section 3).
type problem struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	Hint  string `json:"hint,omitempty"`
	Data  any    `json:"data,omitempty"`
}

// WriteError answers a request with err as problem+json. The control connection
// leads to the server alone, so an error of no known kind is told in full.
func WriteError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok {
		e = backendai.Errorf(backendai.CodeInternal, "%w", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Code.HTTPStatus())
	// A failed write means that nobody reads any more.
	_ = json.NewEncoder(w).Encode(problem{Type: problemBase + string(e.Code), Title: e.Title, Hint: e.Hint, Data: e.Data})
}

// believable are the kinds of errors that a session may claim. Any other, such
// as a failed authentication, is not the session's to say.
var believable = map[backendai.Code]bool{
	backendai.CodeInvalidParams: true, backendai.CodeBadRequest: true, backendai.CodeNotFound: true,
	backendai.CodeURLNotFound: true, backendai.CodeMethod: true, backendai.CodeInternal: true,
	backendai.CodeNotImplemented: true, backendai.CodeUnavailable: true,
}

// readError makes an Error of a reply that is not a success, whatever it holds.
func readError(status int, body io.Reader) error {
	var p problem
	data, err := io.ReadAll(io.LimitReader(body, maxReply))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	title := line(p.Title, maxTitle)
	if err != nil || title == "" {
		return backendai.Errorf(backendai.CodeInternal, "the session answered with status %d and no reason", status)
	}
	code := backendai.Code(strings.TrimPrefix(p.Type, problemBase))
	if !believable[code] {
		code = backendai.CodeInternal
	}
	e := backendai.Errorf(code, "%s", title)
	e.Hint = line(p.Hint, maxTitle)
	if text, ok := p.Data.(string); ok {
		e.Data = lines(text, maxOutput)
	}
	return e
}
