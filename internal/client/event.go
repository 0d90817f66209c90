package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"backendai"
)

// EventFilter selects events. Empty fields do not restrict.
type EventFilter struct {
	Session string // name, or id if BySessionID
	ByID    bool
	Owner   string // access key
	Scope   string // "*", "session", "kernel", or a comma list
}

// Event is one event as the server sent it (API section 5).
type Event struct {
	Name string
	Data json.RawMessage // a JSON object
}

// EventData is what is known in the data of an event of a session.
type EventData struct {
	Reason      string                  `json:"reason"`
	SessionName string                  `json:"sessionName"`
	SessionID   string                  `json:"sessionId"`
	ExitCode    *int                    `json:"exitCode"`
	Progress    *backendai.PullProgress `json:"progress"` // our server's, with kernel_pulling
}

// Decode reads the data of an event; fields that it does not have stay zero.
func (e Event) Decode() EventData {
	var d EventData
	_ = json.Unmarshal(e.Data, &d) // what is not an object has no fields
	return d
}

// ErrStop is what a function that gets events returns to get no more.
var ErrStop = errors.New("no more events")

// reconnectAfter is how long a broken event stream stays broken (API section 5).
const reconnectAfter = 5 * time.Second

// Events calls each with what happens from now on, until ctx ends, the server
// says that there is no more, or a function returns an error, which is returned
// (but for ErrStop). subscribed, unless nil, is called whenever the stream is open.
// A stream that breaks is opened again; that it could never be opened is an error.
func (c *Client) Events(ctx context.Context, f EventFilter, subscribed func() error, each func(Event) error) error {
	query := owned(f.Owner)
	switch {
	case f.Session == "":
		query.Set("sessionName", "*")
	case f.ByID:
		query.Set("sessionId", f.Session)
	default:
		query.Set("sessionName", f.Session)
	}
	if f.Scope != "" {
		query.Set("scope", f.Scope)
	}
	query.Set("group", "*")
	opened := false
	for {
		err := c.eventStream(ctx, query, func() error {
			opened = true
			if subscribed != nil {
				return subscribed()
			}
			return nil
		}, each)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrStop):
			return nil
		case err != nil && !(opened && Restarting(err)):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(reconnectAfter):
		}
	}
}

// eventStream reads one stream; nil says that it broke off.
func (c *Client) eventStream(ctx context.Context, query url.Values, subscribed func() error, each func(Event) error) error {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: []string{"events", "session"}, query: query, stream: true})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := subscribed(); err != nil {
		return err
	}
	return readEvents(resp.Body, each)
}

// maxEventLine bounds one line of an event stream, in bytes.
const maxEventLine = 1 << 20

// readEvents parses server-sent events (WHATWG HTML section 9.2). It returns
// what each returned, ErrStop after "server_close", or nil when the stream ends.
func readEvents(r io.Reader, each func(Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEventLine)
	name, data := "", [][]byte{}
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if name == "server_close" {
				return ErrStop
			}
			if joined := bytes.Join(data, []byte("\n")); len(joined) > 0 && json.Valid(joined) {
				if err := each(Event{name, joined}); err != nil {
					return err
				}
			}
			name, data = "", nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			data = append(data, []byte(value))
		}
	}
	return nil
}
