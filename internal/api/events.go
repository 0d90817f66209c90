package api

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"backendai"
	"backendai/internal/session"
)

// pingInterval keeps idle event streams open through proxies.
const pingInterval = 15 * time.Second

// eventData is an event on the wire (API section 5). Progress is ours: how far
// the download of the image has come.
type eventData struct {
	Reason         string    `json:"reason"`
	SessionName    string    `json:"sessionName"`
	OwnerAccessKey string    `json:"ownerAccessKey"`
	SessionID      string    `json:"sessionId"`
	ExitCode       *int      `json:"exitCode"`
	KernelID       string    `json:"kernelId,omitempty"`
	ClusterRole    string    `json:"clusterRole,omitempty"`
	ClusterIdx     int       `json:"clusterIdx,omitempty"`
	Progress       *progress `json:"progress,omitempty"`
}

// progress is a PullProgress on the wire.
type progress struct {
	Ref    string `json:"ref"`
	Stage  string `json:"stage"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
	Layers int    `json:"layers"`
}

// sessionEvents streams what the caller may see from now on as server-sent
// events. A client that is too slow is cut off and connects again.
func (h *Handler) sessionEvents(c *call) error {
	filter := session.EventFilter{
		Session: everything(c.text("", "sessionId", "session_id", "sessionName", "session_name", "name")),
		Group:   everything(c.text("", "group", "groupName", "group_name")),
		Scope:   c.text("*", "scope"),
	}
	if err := c.err(); err != nil {
		return err
	}
	events, err := h.opts.Sessions.Events(c.r.Context(), c.caller, filter)
	if err != nil {
		return err
	}
	rc := c.stream("text/event-stream")
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	for {
		select {
		case e, open := <-events:
			if !open {
				return nil
			}
			if err := writeEvent(c.w, e); err != nil {
				return nil // the client has gone
			}
		case <-ping.C:
			if _, err := io.WriteString(c.w, ": ping\n\n"); err != nil {
				return nil
			}
		}
		if err := rc.Flush(); err != nil {
			return nil
		}
	}
}

// everything is the filter that does not restrict, for the wildcard of the wire.
func everything(text string) string {
	if text == "*" {
		return ""
	}
	return text
}

func writeEvent(w io.Writer, e backendai.Event) error {
	data := eventData{
		Reason: e.Reason, SessionName: e.Session, OwnerAccessKey: e.AccessKey, SessionID: e.SessionID, ExitCode: e.ExitCode,
	}
	if strings.HasPrefix(e.Name, "kernel_") {
		data.KernelID, data.ClusterRole, data.ClusterIdx = e.SessionID, "main", 1
	}
	if p := e.Progress; p != nil {
		data.Progress = (*progress)(p)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Name, text)
	return err
}
