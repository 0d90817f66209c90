package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"backendai"
	"backendai/internal/auth"
)

// maxProblem bounds what is read of an answer that tells an error, in bytes.
const maxProblem = 256 << 10

// problem is an error on the wire (API section 3). Hint is our server's; others
// put their detail into msg.
type problem struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	Msg   string `json:"msg"`
	Hint  string `json:"hint"`
	Data  any    `json:"data"`
	Agent *struct {
		Title     string `json:"title"`
		Exception string `json:"exception"`
	} `json:"agent-details"`
}

func (p problem) error() *backendai.Error {
	e := &backendai.Error{Code: backendai.Code(p.Type[strings.LastIndex(p.Type, "/")+1:]), Title: p.Title, Hint: p.Hint, Data: p.Data}
	if e.Hint == "" && p.Msg != p.Title {
		e.Hint = p.Msg
	}
	if p.Agent != nil && e.Hint == "" {
		e.Hint = strings.TrimSpace("the machine that runs sessions says: " + p.Agent.Title + " " + p.Agent.Exception)
	}
	return e
}

// problem makes the error of an answer that is not 2xx.
func (c *Client) problem(endpoint *url.URL, status int, header http.Header, text []byte) *backendai.Error {
	var p problem
	if json.Unmarshal(text, &p) != nil || p.Title == "" || p.Type == "" {
		return foreign(endpoint, status, header)
	}
	e := p.error()
	if e.Hint != "" && p.Hint != "" {
		return e
	}
	switch e.Code {
	case backendai.CodeAuthFailed, backendai.CodeInvalidAuth:
		if skew, ok := c.skew(header); ok {
			return e.WithHint("the clock of this machine and the server's are %s apart; correct the one that is wrong", skew)
		}
		if c.config.AccessKey == "" {
			return e.WithHint("no access key is set: set BACKEND_ACCESS_KEY and BACKEND_SECRET_KEY, or write a profile")
		}
		return e.WithHint("check the access key and the secret key: 'backend.ai config' shows which are used")
	}
	return e
}

// skew is how far the clocks are apart, if that is more than servers allow.
func (c *Client) skew(header http.Header) (time.Duration, bool) {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, false
	}
	skew := c.opts.Now().Sub(date).Abs().Round(time.Second)
	return skew, skew > auth.MaxSkew
}

// foreign is the error of an answer that is not the protocol's.
func foreign(endpoint *url.URL, status int, header http.Header) *backendai.Error {
	where := endpoint.Scheme + "://" + endpoint.Host
	reason := fmt.Sprintf("%d %s", status, http.StatusText(status))
	if to := header.Get("Location"); status/100 == 3 && to != "" {
		return backendai.Errorf(backendai.CodeInvalidParams, "the server at %s sends to another address: %s", where, to).
			WithHint("set BACKEND_ENDPOINT to the address that it names")
	}
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return backendai.Errorf(backendai.CodeUnavailable, "the server behind %s does not answer: %s", where, reason).WithHint("try again in a while")
	}
	return backendai.Errorf(backendai.CodeInternal, "the server at %s answered %s", where, reason).
		WithHint("is BACKEND_ENDPOINT the address of a Backend.AI server?")
}
