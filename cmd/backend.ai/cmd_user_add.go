package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// userOptions are what of a user can be given when it is added or changed.
type userOptions struct {
	username, fullName, role, status, description string
	needPasswordChange                            bool
}

func (o *userOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.username, "username", "u", "", "short `NAME` of the user")
	f.StringVarP(&o.fullName, "full-name", "n", "", "full `NAME` of the user")
	f.StringVarP(&o.role, "role", "r", "", "`ROLE` of the user: user, admin or superadmin")
	f.StringVarP(&o.status, "status", "s", "", "`STATUS` of the user: active, or inactive to lock the user out")
	f.BoolVar(&o.needPasswordChange, "need-password-change", false, "the user must change the password, on servers where users log in with it")
	f.StringVar(&o.description, "description", "", "free `TEXT`")
}

// props are the options that were given, as the protocol names them.
func (o *userOptions) props(cmd *cobra.Command) map[string]any {
	props := map[string]any{}
	for flag, value := range map[string]any{
		"username": o.username, "full-name": o.fullName, "role": o.role, "status": o.status,
		"need-password-change": o.needPasswordChange, "description": o.description,
	} {
		if cmd.Flags().Changed(flag) {
			props[strings.ReplaceAll(flag, "-", "_")] = value
		}
	}
	return props
}

// newUserAddCommand is "admin user add".
func newUserAddCommand(e *env) *cobra.Command {
	var o userOptions
	cmd := &cobra.Command{
		Use: "add DOMAIN EMAIL [PASSWORD]", Short: "Add a user", Args: arguments("DOMAIN", "EMAIL", "[PASSWORD]"),
		Long: "Adds a user with a first keypair and prints that: the access key and the secret key are what the user's client needs (BACKEND_ACCESS_KEY and BACKEND_SECRET_KEY). A password among the arguments can be read by everyone on this machine; without it, or with -, it is asked for, or is the first line of standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			password := ""
			if len(args) > 2 {
				password = args[2]
			}
			if password == "" || password == "-" {
				if password, err = e.term.Secret(cmd.InOrStdin(), "Password of "+args[1]); err != nil {
					return err
				}
			}
			if password == "" {
				return usagef("the password is empty")
			}
			props := o.props(cmd)
			props["domain_name"], props["password"] = args[0], password
			if o.username == "" {
				props["username"] = args[1]
			}
			for name, value := range map[string]string{"role": cmp.Or(o.role, "user"), "status": cmp.Or(o.status, "active")} {
				props[name] = value
			}
			return e.addUser(cmd.Context(), c, args[1], props)
		},
	}
	o.flags(cmd)
	for name, otherwise := range map[string]string{"username": "; without it the EMAIL", "role": "; without it user", "status": "; without it active"} {
		cmd.Flags().Lookup(name).Usage += otherwise
	}
	return document(cmd, manual{
		arguments: [][2]string{
			{"DOMAIN", "the domain of the user; where there is one only: default"},
			{"EMAIL", "address that names the user"},
			{"PASSWORD", "password of the user; - for one that is read from standard input"},
		},
		examples: [][2]string{
			{"A user", "backend.ai admin user add default kim@example.com -n 'Kim Lee'"},
			{"In a script, with the password from a file", "backend.ai --output json admin user add default kim@example.com - < password"},
		},
	})
}

func (e *env) addUser(ctx context.Context, c *client.Client, email string, props map[string]any) error {
	const user = "user { uuid username email full_name role status domain_name } "
	vars := map[string]client.Argument{"email": {Type: "String!", Value: email}, "props": {Type: "UserInput!", Value: props}}
	row, err := c.Mutate(ctx, "create_user", vars, user+"keypair { access_key secret_key }")
	if backendai.CodeOf(err) == backendai.CodeGraphQL && strings.Contains(err.Error(), "keypair") {
		// Other servers do not tell the keypair here, and have done nothing yet.
		if row, err = c.Mutate(ctx, "create_user", vars, user); err == nil {
			row["keypair"], err = firstKeypair(ctx, c, email)
		}
	}
	if err != nil {
		return err
	}
	item, _ := row["user"].(map[string]any)
	return e.showKeypair(item, row["keypair"], "The user "+email+" is added.")
}

// firstKeypair is one that a user has.
func firstKeypair(ctx context.Context, c *client.Client, email string) (any, error) {
	rows, _, err := c.List(ctx, client.ListRequest{
		Query: "keypair_list", Args: map[string]client.Argument{"email": {Type: "String", Value: email}},
		Fields: []string{"access_key", "secret_key"}, Limit: 1,
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return map[string]any(rows[0]), nil
}

// showKeypair tells of a new keypair, whose secret is shown this once.
func (e *env) showKeypair(item map[string]any, keypair any, text string) error {
	pair, _ := keypair.(map[string]any)
	if e.output == outputJSON {
		if item == nil {
			item = map[string]any{}
		}
		item["access_key"], item["secret_key"] = pair["access_key"], pair["secret_key"]
		return e.term.JSON(mutation(item, "%s", text))
	}
	e.term.Done("%s", text)
	if pair == nil {
		return nil
	}
	return e.term.Fields([][2]string{{"Access Key", plainCell(pair["access_key"])}, {"Secret Key", plainCell(pair["secret_key"])}})
}
