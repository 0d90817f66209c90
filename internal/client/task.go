package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"backendai"
)

// TaskStep is how far a task that the server does in the background has come.
type TaskStep struct {
	Message string      `json:"message"`
	Done    json.Number `json:"current_progress"`
	Total   json.Number `json:"total_progress"`
}

// TaskEnd is how a task ended.
type TaskEnd struct {
	OK      bool
	Message string
}

// FollowTask calls step with how far a task of the server has come, and returns when it has ended.
func (c *Client) FollowTask(ctx context.Context, id string, step func(TaskStep)) (TaskEnd, error) {
	k := call{method: http.MethodGet, path: []string{"events", "background-task"}, query: url.Values{"taskId": {id}, "task_id": {id}}, stream: true}
	resp, err := c.do(ctx, k)
	if err != nil {
		return TaskEnd{}, err
	}
	defer resp.Body.Close()
	var end *TaskEnd
	err = readEvents(resp.Body, func(event Event) error {
		var s TaskStep
		_ = json.Unmarshal(event.Data, &s) // what it does not have stays empty
		_, name, _ := strings.Cut(event.Name, "_")
		switch name {
		case "updated":
			step(s)
			return nil
		case "done", "finished", "partial_success":
			end = &TaskEnd{true, s.Message}
		case "failed", "cancelled":
			end = &TaskEnd{false, s.Message}
		default:
			return nil
		}
		return ErrStop
	})
	switch {
	case end != nil:
		return *end, nil
	case ctx.Err() != nil:
		return TaskEnd{}, context.Cause(ctx)
	default:
		return TaskEnd{}, backendai.Errorf(backendai.CodeUnavailable, "the server broke off while task %s went on: %w", id, err).
			WithHint("it goes on there; ask for its result later")
	}
}
