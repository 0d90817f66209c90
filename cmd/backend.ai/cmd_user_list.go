package main

import (
	"github.com/spf13/cobra"

	"backendai/internal/client"
)

var userColumns = []column{
	{name: "uuid"},
	{name: "username"},
	{name: "role"},
	{name: "email"},
	{name: "full_name"},
	{name: "need_password_change"},
	{name: "status"},
	{name: "status_info"},
	{name: "created_at"},
	{name: "domain_name"},
	{name: "groups", query: "groups { id name }", format: groupsCell},
	{name: "description"},
	{name: "is_active"},
}

// usualUserColumns are those without -f (API section 9).
func usualUserColumns() []column {
	return pick(userColumns, "uuid", "username", "role", "email", "full_name", "need_password_change", "status", "status_info", "created_at", "domain_name", "groups")
}

// newUserListCommand is "admin user list".
func newUserListCommand(e *env) *cobra.Command {
	var l listing
	var status, group string
	cmd := &cobra.Command{
		Use: "list", Short: "List users", Args: arguments(),
		Long: "Lists the users. Who is no administrator sees only itself.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(userColumns, usualUserColumns())
			if err != nil {
				return err
			}
			args := map[string]client.Argument{}
			if status != "" {
				args["status"] = client.Argument{Type: "String", Value: status}
			}
			if group != "" {
				args["group_id"] = client.Argument{Type: "UUID", Value: group}
			}
			return e.list(cmd.Context(), &l, "user_list", args, columns)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&status, "status", "s", "", "show users of the `STATUS`: active, inactive, before-verification or deleted; without it all")
	f.StringVarP(&group, "group", "g", "", "show users of the project with the `ID`; without it of all")
	l.flags(cmd, userColumns)
	return document(cmd, manual{
		examples: [][2]string{{"All users", "backend.ai admin user list"}, {"Who is locked out", "backend.ai admin user list -s inactive --plain -f email"}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}

// newUserInfoCommand is "admin user info".
func newUserInfoCommand(e *env) *cobra.Command {
	var email string
	cmd := &cobra.Command{
		Use: "info", Short: "Show all about a user", Args: arguments(),
		Long: "Shows all that is known of a user.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			args := map[string]client.Argument{}
			if email != "" {
				args["email"] = client.Argument{Type: "String", Value: email}
			}
			columns := append(usualUserColumns(), pick(userColumns, "description")...)
			row, err := c.One(cmd.Context(), "user", args, selections(columns))
			if err != nil {
				return err
			}
			return showOne(e, columns, row, "user", email)
		},
	}
	cmd.Flags().StringVarP(&email, "email", "e", "", "`ADDRESS` of the user; without it yourself")
	return document(cmd, manual{examples: [][2]string{{"Who am I?", "backend.ai admin user info"}, {"Another user", "backend.ai admin user info -e kim@example.com"}}})
}
