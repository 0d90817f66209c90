package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

const imageBuildHelp = `Makes an image on the server's machine from the packages of its own distribution, by a recipe. Nothing else is downloaded, so that it works wherever those packages can be had. It shows what the build prints.

The server has the recipes python (Python 3 with pip, numpy and Jupyter) and base. A recipe of your own is a TOML file with the keys name, description, packages, commands, and the tables labels, env and files. Its commands run as root on the server's machine.`

// newImageBuildCommand is "image build".
func newImageBuildCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "build [RECIPE]", Short: "Make an image from a recipe", Long: imageBuildHelp, Args: arguments("[RECIPE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) > 0) == (file != "") {
				return errOneOf("the name of a recipe", "a file with -f", file != "")
			}
			recipe := ""
			if file != "" {
				text, err := os.ReadFile(file)
				if err != nil {
					return usagef("-f: %w", err)
				}
				recipe = string(text) + "\n" // only a name has no line end
			} else {
				recipe = args[0]
			}
			return e.imageWork(cmd.Context(), func(ctx context.Context, c *client.Client, step func(client.ImageStep)) ([]client.Image, error) {
				return c.BuildImage(ctx, recipe, step)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` with a recipe, in place of the name of one")
	return document(cmd, manual{
		arguments: [][2]string{{"RECIPE", "name of a recipe that the server has"}},
		examples: [][2]string{
			{"The image of 'backend.ai start python'", "backend.ai image build python"},
			{"An image of one's own", "backend.ai image build -f lab.toml"},
		},
	})
}
