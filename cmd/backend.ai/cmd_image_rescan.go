package main

import (
	"context"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newImageRescanCommand is "admin image rescan".
func newImageRescanCommand(e *env) *cobra.Command {
	var registry, project string
	cmd := &cobra.Command{
		Use: "rescan", Short: "Read again which images the registries have", Args: arguments(),
		Long: "Makes the server read again which images its registries have, and waits until it has. A server of this platform keeps no such list: it finds an image in its registry when the image is asked for.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			return e.rescan(cmd.Context(), c, registry, project)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&registry, "registry", "r", "", "`NAME` of the registry to read; without it all")
	f.StringVar(&project, "project", "", "`NAME` of the project in the registry to read; without it all")
	return document(cmd, manual{examples: [][2]string{{"All registries", "backend.ai admin image rescan"}}})
}

func (e *env) rescan(ctx context.Context, c *client.Client, registry, project string) error {
	vars := map[string]client.Argument{}
	if registry != "" {
		vars["registry"] = client.Argument{Type: "String", Value: registry}
	}
	if project != "" {
		vars["project"] = client.Argument{Type: "String", Value: project}
	}
	row, err := c.Mutate(ctx, "rescan_images", vars, "task_id")
	if err != nil {
		return err
	}
	task, _ := row["task_id"].(string)
	if task == "" {
		return e.done(nil, "The registries have been read.")
	}
	end, err := c.FollowTask(ctx, task, func(s client.TaskStep) {
		e.term.Wait("Reading the registries: %v of %v %s", s.Done, s.Total, s.Message)
	})
	if err != nil {
		return err
	}
	if !end.OK {
		return backendai.Errorf(backendai.CodeInternal, "the registries could not be read: %s", end.Message)
	}
	return e.done(map[string]any{"task_id": task}, "The registries have been read. %s", end.Message)
}
