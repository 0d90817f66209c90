package main

import (
	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newImageAliasCommand is "admin image alias".
func newImageAliasCommand(e *env) *cobra.Command {
	var arch string
	cmd := &cobra.Command{
		Use: "alias ALIAS TARGET", Short: "Give an image another name", Args: arguments("ALIAS", "TARGET"),
		Long: "Gives an image another name. An alias that there is already leads to the new image from then on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			vars := map[string]client.Argument{"alias": {Type: "String!", Value: args[0]}, "target": {Type: "String!", Value: args[1]}}
			if arch != "" {
				vars["architecture"] = client.Argument{Type: "String", Value: arch}
			}
			if _, err := c.Mutate(cmd.Context(), "alias_image", vars, ""); err != nil {
				return err
			}
			return e.done(map[string]any{"alias": args[0], "target": args[1]}, "The alias %s stands for %s.", args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&arch, "arch", "", "`NAME` of the image's architecture, such as x86_64; without it the server's")
	return document(cmd, manual{
		arguments: [][2]string{{"ALIAS", "the other name"}, {"TARGET", "full reference of the image: registry/name:tag"}},
		examples:  [][2]string{{"A short name", "backend.ai admin image alias deb docker.io/library/debian:12"}},
	})
}

// newImageDealiasCommand is "admin image dealias".
func newImageDealiasCommand(e *env) *cobra.Command {
	return document(&cobra.Command{
		Use: "dealias ALIAS", Short: "Take another name of an image away", Args: arguments("ALIAS"),
		Long: "Takes another name of an image away. The image stays.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			if _, err := c.Mutate(cmd.Context(), "dealias_image", map[string]client.Argument{"alias": {Type: "String!", Value: args[0]}}, ""); err != nil {
				return err
			}
			return e.done(map[string]any{"alias": args[0]}, "The alias %s is gone.", args[0])
		},
	}, manual{
		arguments: [][2]string{{"ALIAS", "the name that no image shall have"}},
		examples:  [][2]string{{"Take a name away", "backend.ai admin image dealias deb"}},
	})
}
