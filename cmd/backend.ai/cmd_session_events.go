package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

const (
	waitForResult = "batch_session_result"
	eventSuccess  = "session_success"
	eventFailure  = "session_failure"
)

// newEventsCommand is "events".
func newEventsCommand(e *env, name string) *cobra.Command {
	var filter client.EventFilter
	var wait string
	var quiet bool
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: "Show what happens to a session", Args: arguments("SESSION"),
		Long: "Writes one line for each thing that happens to a session from now on: the name of the event, a space, and its data as a JSON object. It goes on until Ctrl+C, and connects again when the server restarts. With --wait it ends at an event.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			filter.Session, filter.ByID = args[0], uuidRE.MatchString(args[0])
			failed := false
			err = c.Events(cmd.Context(), filter, nil, func(event client.Event) error {
				if !quiet {
					if err := e.showEvent(event); err != nil {
						return err
					}
				}
				if wait == event.Name || wait == waitForResult && (event.Name == eventSuccess || event.Name == eventFailure) {
					failed = wait == waitForResult && event.Name == eventFailure
					return client.ErrStop
				}
				return nil
			})
			if err == nil && failed {
				return exitError{code: exitFailure}
			}
			return err
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
