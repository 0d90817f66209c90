package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
)

// newAppsCommand is "apps".
func newAppsCommand(e *env, name string) *cobra.Command {
	var names bool
	cmd := &cobra.Command{
		Use: name + " SESSION [APP…]", Short: "List the apps of a session", Args: arguments("SESSION", "[APP…]"),
		Long: "Lists the apps of a session with their protocols and the arguments and environment variables with which each may be started.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			apps, err := c.Apps(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if chosen := args[1:]; len(chosen) > 0 {
				for _, app := range chosen {
					if !slices.ContainsFunc(apps, func(a backendai.App) bool { return a.Name == app }) {
						return noApp(apps, args[0], app)
					}
				}
				apps = slices.DeleteFunc(apps, func(a backendai.App) bool { return !slices.Contains(chosen, a.Name) })
			}
			return e.showApps(apps, names)
		},
	}
	cmd.Flags().BoolVarP(&names, "list-names", "l", false, "only the names, in one line")
	return document(cmd, manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"APP", "show these only; without it all"},
		},
		examples: [][2]string{{"What can be reached in a session?", "backend.ai apps mysession"}, {"Only the names", "backend.ai apps -l mysession"}},
	})
}

func (e *env) showApps(apps []backendai.App, names bool) error {
	if e.output == outputJSON {
		return e.term.JSON(map[string]any{"count": len(apps), "total_count": len(apps), "items": apps})
	}
	if names {
		list := make([]string, len(apps))
		for i, a := range apps {
			list[i] = a.Name
		}
		return e.term.Text(strings.Join(list, " ") + "\n")
	}
	rows := make([][]string, len(apps))
	for i, a := range apps {
		rows[i] = []string{a.Name, string(a.Protocol), dash(a.AllowedArguments), dash(a.AllowedEnvs)}
	}
	return e.term.Table([]string{"App", "Protocol", "Arguments", "Environment"}, rows)
}

func dash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, " ")
}
