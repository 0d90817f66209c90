package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newTerminalsCommand is "terminals".
func newTerminalsCommand(e *env, name string) *cobra.Command {
	var end []string
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: "List and end the web terminals of a session", Args: arguments("SESSION"),
		Long: "Lists the web terminals of a session, which go on when no browser shows them, or ends some of them and what runs in them. 'backend.ai app SESSION ttyd' leads to the first one; the address with ?session=NAME after it to another.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			if len(end) > 0 {
				return e.endTerminals(cmd.Context(), c, args[0], end)
			}
			open, err := c.Terminals(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return e.showTerminals(open)
		},
	}
	cmd.Flags().StringArrayVar(&end, "end", nil, "end the terminal with the `NAME`")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of the session, or how one of them begins"}},
		examples:  [][2]string{{"What is open?", "backend.ai terminals mysession"}, {"End one", "backend.ai terminals mysession --end build"}},
	})
}

func (e *env) endTerminals(ctx context.Context, c *client.Client, session string, names []string) error {
	for _, name := range names {
		if err := c.EndTerminal(ctx, session, name); err != nil {
			return err
		}
		if e.output == outputConsole {
			e.term.Done("The terminal %s of session %s has ended.", name, session)
		}
	}
	if e.output == outputJSON {
		return e.done(map[string]any{"session": session, "terminals": names}, "%d terminals have ended.", len(names))
	}
	return nil
}

func (e *env) showTerminals(open []client.Terminal) error {
	if e.output == outputJSON {
		return e.term.JSON(map[string]any{"count": len(open), "total_count": len(open), "items": open})
	}
	if len(open) == 0 {
		return e.term.Text("No matching items.\n")
	}
	rows := make([][]string, len(open))
	for i, t := range open {
		rows[i] = []string{
			t.Name, t.Command, strconv.Itoa(t.PID), strconv.Itoa(t.Viewers), fmt.Sprintf("%dx%d", t.Cols, t.Rows),
			t.Started.Local().Format(time.DateTime),
		}
	}
	return e.term.Table([]string{"Terminal", "Command", "PID", "Viewers", "Size", "Started"}, rows)
}
