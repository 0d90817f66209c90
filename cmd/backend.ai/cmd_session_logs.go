package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// newSessionLogsCommand is "logs".
func newSessionLogsCommand(e *env, name string) *cobra.Command {
	var kernel string
	var follow bool
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: "Show what a session printed", Args: arguments("SESSION"),
		Long: "Writes to standard output what the programs of a session have printed, as they printed it. The log of a session that has ended is found by its full id.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			log, err := c.SessionLogs(cmd.Context(), args[0], kernel, follow)
			if err != nil {
				return err
			}
			defer log.Close()
			if e.output == outputJSON && !follow {
				text, err := io.ReadAll(log)
				if err != nil {
					return fmt.Errorf("read log: %w", err)
				}
				return e.term.JSON(map[string]any{"ok": true, "logs": string(text)})
			}
			if _, err := io.Copy(e.term.Out(), log); err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return fmt.Errorf("the server has ended the connection in the middle of the log")
				}
				return fmt.Errorf("read log: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what it will print, until it ends or Ctrl+C")
	f.StringVarP(&kernel, "kernel", "k", "", "`ID` of the container in a session of several; without it the main one")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of the session, or how one of them begins"}},
		examples:  [][2]string{{"Why did it fail?", "backend.ai logs mysession"}, {"Watch a batch session", "backend.ai logs -f training"}},
	})
}
