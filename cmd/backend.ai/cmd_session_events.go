package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// The events that are waited for most, and the one that stands for two.
const (
	waitForResult = "batch_session_result"
	eventSuccess  = "session_success"
	eventFailure  = "session_failure"
	eventStarted  = "session_started"
	eventEnded    = "session_terminated"
	eventNever    = "session_cancelled"
)

// eventWait is the wait for one event.
type eventWait struct {
	event   string // "" is none
	session string
	failure error // set when it was the result, and that is bad
}

// see is client.ErrStop when the event is the one that is waited for, or the
// last that there can be.
func (w *eventWait) see(event string) error {
	switch {
	case w.event == "":
		return nil
	case w.event == event:
		return client.ErrStop
	case w.event != waitForResult:
		return nil
	case event == eventSuccess:
		return client.ErrStop
	case event == eventFailure:
		w.failure = exitError{code: exitFailure}
		return client.ErrStop
	case event == eventEnded || event == eventNever:
		return backendai.Errorf(backendai.CodeCreationFailed, "session %q has ended without a result", w.session).
			WithHint("'backend.ai ps --dead -f name,session_id,status_info' tells why")
	}
	return nil
}

// already sees what had happened before the events came.
func (w *eventWait) already(ctx context.Context, c *client.Client) error {
	field := "name"
	if uuidRE.MatchString(w.session) {
		field = "session_id"
	}
	rows, _, err := c.List(ctx, client.ListRequest{
		Query: "compute_session_list", Fields: []string{"status", "result"}, Filter: fmt.Sprintf("%s == %q", field, w.session),
		Args:  map[string]client.Argument{"status": {Type: "String", Value: strings.Join(slices.Concat(liveStatuses, deadStatuses), ",")}},
		Order: "-created_at", Limit: 1,
	})
	if err != nil || len(rows) == 0 {
		return err // of a session that is not there yet, the events will tell
	}
	result := map[any]string{"SUCCESS": eventSuccess, "FAILURE": eventFailure}[rows[0]["result"]]
	status := map[any]string{"RUNNING": eventStarted, "TERMINATED": eventEnded, "CANCELLED": eventNever}[rows[0]["status"]]
	return cmp.Or(w.see(result), w.see(status))
}

// newEventsCommand is "events".
func newEventsCommand(e *env, name string) *cobra.Command {
	var filter client.EventFilter
	var wait string
	var quiet bool
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: "Show what happens to a session", Args: arguments("SESSION"),
		Long: "Writes one line for each thing that happens to a session from now on: the name of the event, a space, and its data as a JSON object. It goes on until Ctrl+C, and connects again when the server restarts. With --wait it ends at an event, at once if that has happened already.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			filter.Session, filter.ByID = args[0], uuidRE.MatchString(args[0])
			w := eventWait{event: wait, session: args[0]}
			ctx := cmd.Context()
			var subscribed func() error
			if wait != "" && args[0] != "*" {
				subscribed = func() error { return w.already(ctx, c) }
			}
			err = c.Events(ctx, filter, subscribed, func(event client.Event) error {
				if !quiet {
					if err := e.showEvent(event); err != nil {
						return err
					}
				}
				return w.see(event.Name)
			})
			return cmp.Or(err, w.failure)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&filter.Owner, "owner", "o", "", "access `KEY` of the user whose session it is; for administrators; without it your own")
	f.StringVar(&filter.Scope, "scope", "*", "`KINDS` of events: session, kernel, both with a comma, or * for all")
	f.BoolVarP(&quiet, "quiet", "q", false, "show nothing; for --wait")
	f.StringVar(&wait, "wait", "", "end when the `EVENT` comes; batch_session_result stands for session_success and session_failure; without it never")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or full id of the session, or * for all that you may see"}},
		examples: [][2]string{
			{"Watch a session", "backend.ai events mysession"},
			{"Wait for the result of a batch session", "backend.ai events -q --wait batch_session_result training && echo good"},
		},
		exits: [][2]string{{"1", "with --wait batch_session_result also: the command of the session failed"}},
	})
}

func (e *env) showEvent(event client.Event) error {
	var data bytes.Buffer
	if err := json.Compact(&data, event.Data); err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	if e.output == outputJSON {
		line, err := json.Marshal(map[string]any{"event": event.Name, "data": event.Data})
		if err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		return e.term.Text(string(line) + "\n")
	}
	return e.term.Text(event.Name + " " + data.String() + "\n")
}
