package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

var imageColumns = []column{
	{name: "name"},
	{name: "registry"},
	{name: "architecture"},
	{name: "tag"},
	{name: "digest", format: digestCell},
	{name: "size_bytes", format: sizeCell},
	{name: "aliases"},
	{name: "labels", query: "labels { key value }", format: labelsCell},
	{name: "installed"},
	{name: "humanized_name"},
	{name: "supported_accelerators"},
}

// digestCell shows as much of a digest as tells two apart.
func digestCell(v any) string {
	const shown = len("sha256:") + 12
	text := fmt.Sprint(v)
	return text[:min(shown, len(text))]
}

func labelsCell(v any) string {
	return nestedCell(v, func(o map[string]any) string { return fmt.Sprintf("%v=%v", o["key"], o["value"]) }, "\n")
}

// newImageListCommand is "image list" and "admin image list".
func newImageListCommand(e *env) *cobra.Command {
	var l listing
	var operation bool
	cmd := &cobra.Command{
		Use: "list", Short: "List images", Args: arguments(),
		Long: "Lists the images that sessions can be made of. A session may name an image by its alias, by its name, or by registry/name:tag.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(imageColumns, pick(imageColumns, "name", "registry", "architecture", "tag", "digest", "size_bytes", "aliases"))
			if err != nil {
				return err
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			rows, err := c.All(cmd.Context(), "images", map[string]client.Argument{"is_operation": {Type: "Boolean", Value: operation}}, selections(columns))
			if err != nil {
				return err
			}
			return l.write(e, columns, rows, len(rows))
		},
	}
	cmd.Flags().BoolVar(&operation, "operation", false, "list images for the operation of a cluster instead, on servers that have such")
	l.formFlags(cmd, imageColumns)
	return document(cmd, manual{
		examples: [][2]string{{"What can be started?", "backend.ai image list"}, {"For a script", "backend.ai image list --plain -f registry,name,tag"}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}
