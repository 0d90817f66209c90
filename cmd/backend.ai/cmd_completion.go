package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// newCompletionCommand is "completion".
func newCompletionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "completion SHELL", Short: "Make the shell complete command lines", Args: arguments("SHELL"),
		Long:      "Writes a script to standard output that makes a shell complete the commands and options of this program.",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				var script strings.Builder
				if err := root.GenFishCompletion(&script, true); err != nil {
					return err
				}
				// No variable of fish has a dot in its name.
				_, err := io.WriteString(out, strings.ReplaceAll(script.String(), "__"+root.Name()+"_", "__backend_ai_"))
				return err
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usagef("there is no completion for the shell %q; there is for bash, zsh, fish and powershell", args[0])
		},
	}
	return document(cmd, manual{
		arguments: [][2]string{{"SHELL", "bash, zsh, fish or powershell"}},
		examples: [][2]string{
			{"For this shell", "source <(backend.ai completion bash)"},
			{"For all shells to come", "backend.ai completion bash > ~/.local/share/bash-completion/completions/backend.ai"},
		},
	})
}
