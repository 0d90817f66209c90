package main

import (
	"context"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newSessionRestartCommand is "restart".
func newSessionRestartCommand(e *env, name string) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use: name + " SESSION…", Short: "Restart sessions",
		Long: "Makes the container of a session anew: all that runs in it ends, and the files in its home stay. It returns when the session runs again. One that cannot be restarted does not keep the others.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args, "Restarting session %s…", "Session %s runs again.", func(ctx context.Context, c *client.Client, ref string) (any, error) {
				return map[string]any{"session": ref}, c.RestartSession(ctx, ref, owner)
			})
		},
	}
	cmd.Flags().StringVarP(&owner, "owner", "o", "", "access `KEY` of the user whose sessions they are; for administrators; without it your own")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of a session, or how one of them begins"}},
		examples:  [][2]string{{"A program inside has gone astray", "backend.ai restart mysession"}},
		exits:     [][2]string{{"4", "no session was named"}},
	})
}
