package main

import (
	"errors"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newUserUpdateCommand is "admin user update".
func newUserUpdateCommand(e *env) *cobra.Command {
	var o userOptions
	cmd := &cobra.Command{
		Use: "update EMAIL", Short: "Change a user", Args: arguments("EMAIL"),
		Long: "Changes what the options say of a user; the rest stays. An inactive user can do nothing any more; the user's sessions go on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			props := o.props(cmd)
			if len(props) == 0 {
				return shape(errors.New("no option says what to change"))
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			vars := map[string]client.Argument{"email": {Type: "String!", Value: args[0]}, "props": {Type: "ModifyUserInput!", Value: props}}
			if _, err := c.Mutate(cmd.Context(), "modify_user", vars, ""); err != nil {
				return err
			}
			return e.done(map[string]any{"email": args[0]}, "The user %s is changed.", args[0])
		},
	}
	o.flags(cmd)
	return document(cmd, manual{
		arguments: [][2]string{{"EMAIL", "address that names the user"}},
		examples:  [][2]string{{"Lock a user out", "backend.ai admin user update kim@example.com -s inactive"}},
	})
}
