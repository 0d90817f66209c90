package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

var keypairColumns = []column{
	{name: "user_id"},
	{name: "full_name", title: "Full Name", query: "user_info { full_name }", format: func(v any) string {
		info, _ := v.(map[string]any)
		return fmt.Sprint(info["full_name"])
	}},
	{name: "access_key", title: "Access Key"},
	{name: "secret_key"},
	{name: "is_active"},
	{name: "is_admin"},
	{name: "created_at"},
	{name: "last_used"},
	{name: "resource_policy"},
	{name: "rate_limit"},
	{name: "concurrency_used"},
	{name: "concurrency_limit"},
}

// newKeypairListCommand is "admin keypair list".
func newKeypairListCommand(e *env) *cobra.Command {
	var l listing
	var email, active string
	cmd := &cobra.Command{
		Use: "list", Short: "List keypairs", Args: arguments(),
		Long: "Lists the keypairs of all users; who is no administrator sees its own. Secret keys are shown only if -f names the field secret_key.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(keypairColumns, pick(keypairColumns,
				"user_id", "full_name", "access_key", "is_active", "is_admin", "created_at", "last_used", "resource_policy", "rate_limit", "concurrency_used"))
			if err != nil {
				return err
			}
			args := map[string]client.Argument{}
			if email != "" {
				args["email"] = client.Argument{Type: "String", Value: email}
			}
			if active != "" {
				yes, err := strconv.ParseBool(active)
				if err != nil {
					return usagef("--is-active %s is neither true nor false", active)
				}
				args["is_active"] = client.Argument{Type: "Boolean", Value: yes}
			}
			return e.list(cmd.Context(), &l, "keypair_list", args, columns)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&email, "user-id", "u", "", "show keypairs of the user with the `EMAIL`; without it of all")
	f.StringVar(&active, "is-active", "", "show only keypairs that are active (`true`) or not (false); without it both")
	l.flags(cmd, keypairColumns)
	return document(cmd, manual{
		examples: [][2]string{{"All keypairs", "backend.ai admin keypair list"}, {"Those of one user", "backend.ai admin keypair list -u kim@example.com"}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}

// newKeypairInfoCommand is "admin keypair info".
func newKeypairInfoCommand(e *env) *cobra.Command {
	return document(&cobra.Command{
		Use: "info", Short: "Show your own keypair", Args: arguments(),
		Long: "Shows the keypair that this client uses, with its secret key.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			row, err := c.One(cmd.Context(), "keypair", nil, selections(keypairColumns))
			if err != nil {
				return err
			}
			return showOne(e, keypairColumns, row, "keypair", c.Config().AccessKey)
		},
	}, manual{examples: [][2]string{{"Which key am I using?", "backend.ai admin keypair info"}}})
}
