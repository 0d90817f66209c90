package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// newServerConfigCommand is "backend.ai server config"; file is the option of its parent.
func newServerConfigCommand(e *env, file *string) *cobra.Command {
	return document(&cobra.Command{
		Use:   "config",
		Short: "Show every setting of the server and where it comes from",
		Long:  "Shows every setting that 'backend.ai server' would run with, given the same options, environment and file, and where each value comes from. It fails if a setting is wrong.",
		Args:  arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadServerConfig(e, cmd.Flags(), *file)
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				settings := map[string]any{}
				for _, s := range cfg.Settings() {
					settings[s.Key] = map[string]string{"value": s.Value, "from": s.Origin}
				}
				return e.term.JSON(settings)
			}
			w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tVALUE\tFROM")
			for _, s := range cfg.Settings() {
				value := s.Value
				if value == "" {
					value = "-"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, value, s.Origin)
			}
			return w.Flush()
		},
	}, manual{examples: [][2]string{
		{"What would the server run with?", "backend.ai server config"},
		{"Check a file before it is used", "backend.ai server config --config new.toml"},
	}})
}
