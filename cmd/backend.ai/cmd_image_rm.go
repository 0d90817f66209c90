package main

import (
	"context"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newImageRemoveCommand is "image rm".
func newImageRemoveCommand(e *env) *cobra.Command {
	return document(&cobra.Command{
		Use: "rm IMAGE…", Aliases: []string{"remove"}, Short: "Remove images from the server's machine", Args: arguments("IMAGE…"),
		Long: "Removes images from the server's machine. Layers that other images share stay, and so does what a running session is made of until it ends. One image that cannot be removed does not keep the others.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args, "Removing the image %s…", "The image %s is removed.", func(ctx context.Context, c *client.Client, ref string) (any, error) {
				return map[string]any{"image": ref}, c.RemoveImage(ctx, ref)
			})
		},
	}, manual{
		arguments: [][2]string{{"IMAGE", "alias, name or full reference (registry/name:tag)"}},
		examples:  [][2]string{{"Remove one", "backend.ai image rm docker.io/library/debian:12"}},
	})
}
