package main

import (
	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newKeypairAddCommand is "admin keypair add".
func newKeypairAddCommand(e *env) *cobra.Command {
	var admin, inactive bool
	var rate int
	cmd := &cobra.Command{
		Use: "add EMAIL [POLICY]", Short: "Add a keypair to a user", Args: arguments("EMAIL", "[POLICY]"),
		Long: "Adds a keypair to a user and prints its access key and its secret key.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			props := map[string]any{"is_active": !inactive, "is_admin": admin, "resource_policy": "default", "rate_limit": rate, "concurrency_limit": 0}
			if len(args) > 1 {
				props["resource_policy"] = args[1]
			}
			row, err := c.Mutate(cmd.Context(), "create_keypair", map[string]client.Argument{
				"user_id": {Type: "String!", Value: args[0]}, "props": {Type: "KeyPairInput!", Value: props},
			}, "keypair { access_key secret_key }")
			if err != nil {
				return err
			}
			return e.showKeypair(map[string]any{"user_id": args[0]}, row["keypair"], "A keypair of "+args[0]+" is added.")
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&admin, "admin", "a", false, "the keypair is an administrator's")
	f.BoolVarP(&inactive, "inactive", "i", false, "the keypair cannot be used until it is activated")
	f.IntVarP(&rate, "rate-limit", "r", 5000, "at most so many `REQUESTS` in 15 minutes")
	return document(cmd, manual{
		arguments: [][2]string{{"EMAIL", "address that names the user"}, {"POLICY", "name of the resource policy; without it default"}},
		examples:  [][2]string{{"A second key for a user", "backend.ai admin keypair add kim@example.com"}},
	})
}

// newKeypairActivateCommand is "admin keypair activate" and "deactivate".
func newKeypairActivateCommand(e *env, active bool) *cobra.Command {
	name, short, long, word, x := "activate", "Let a keypair be used again", "Lets a keypair be used again.", "active", "Back to work"
	if !active {
		name, short, word, x = "deactivate", "Keep a keypair from being used", "inactive", "A key has leaked"
		long = "Keeps a keypair from being used from now on. What was started with it goes on."
	}
	return document(&cobra.Command{
		Use: name + " ACCESS_KEY", Short: short, Args: arguments("ACCESS_KEY"), Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			vars := map[string]client.Argument{
				"access_key": {Type: "String!", Value: args[0]}, "props": {Type: "ModifyKeyPairInput!", Value: map[string]any{"is_active": active}},
			}
			if _, err := c.Mutate(cmd.Context(), "modify_keypair", vars, ""); err != nil {
				return err
			}
			return e.done(map[string]any{"access_key": args[0], "is_active": active}, "The keypair %s is %s.", args[0], word)
		},
	}, manual{
		arguments: [][2]string{{"ACCESS_KEY", "the access key of the pair"}},
		examples:  [][2]string{{x, "backend.ai admin keypair " + name + " AKIAEXAMPLE000000000"}},
	})
}

// newKeypairDeleteCommand is "admin keypair delete".
func newKeypairDeleteCommand(e *env) *cobra.Command {
	return document(&cobra.Command{
		Use: "delete ACCESS_KEY", Aliases: []string{"rm"}, Short: "Delete a keypair", Args: arguments("ACCESS_KEY"),
		Long: "Deletes a keypair for good.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			if _, err := c.Mutate(cmd.Context(), "delete_keypair", map[string]client.Argument{"access_key": {Type: "String!", Value: args[0]}}, ""); err != nil {
				return err
			}
			return e.done(map[string]any{"access_key": args[0]}, "The keypair %s is deleted.", args[0])
		},
	}, manual{
		arguments: [][2]string{{"ACCESS_KEY", "the access key of the pair"}},
		examples:  [][2]string{{"A key that nobody needs", "backend.ai admin keypair delete AKIAEXAMPLE000000000"}},
	})
}
