package main

import (
	"github.com/spf13/cobra"

	"backendai"
)

// newSessionRenameCommand is "rename".
func newSessionRenameCommand(e *env, name string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " SESSION NAME", Short: "Give a session another name", Args: arguments("SESSION", "NAME"),
		Long: "Gives a running session another name. What runs in it does not notice.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := backendai.ValidateSessionName(args[1]); err != nil {
				return usageError{err}
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			if err := c.RenameSession(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return e.done(map[string]any{"name": args[1]}, "Session %s is now called %s.", args[0], args[1])
		},
	}
	return document(cmd, manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"NAME", "the new name: 4 to 64 letters, digits, dots, dashes and underscores, which no other live session of yours has"},
		},
		examples: [][2]string{{"A better name", "backend.ai rename session-1f2e3d4c5b training"}},
	})
}
