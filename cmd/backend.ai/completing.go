package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai/internal/client"
)

// completeTime bounds what a completion asks of the server: someone waits with
// a finger on the key. What it cannot tell in that time is not offered.
const completeTime = 700 * time.Millisecond

// names asks the server for what an argument may be; args are those before it.
type names func(ctx context.Context, c *client.Client, args []string) ([]string, error)

// byArgument are the names for arguments, by what the arguments are called in
// the usage of commands. Those that are not here are free texts.
var byArgument = map[string]names{
	"SESSION": sessionNames, "APP": appNames, "IMAGE": imageNames, "TARGET": imageNames, "ALIAS": imageAliases,
	"FOLDER": folderNames, "EMAIL": userEmails, "ACCESS_KEY": accessKeys, "RECIPE": words("base", "python"),
}

// byOption are the names for values of options.
var byOption = map[string]names{
	"output": words(outputConsole, outputJSON), "end": terminalNames, "email": userEmails, "user-id": userEmails,
	"type": words("interactive", "batch", "inference", "system"), "cluster-mode": words("single-node", "multi-node"),
	"role": words("user", "admin", "superadmin"), "is-active": words("true", "false"), "scope": words("session", "kernel"),
	"wait": words(waitForResult, eventStarted, eventEnded, eventSuccess, eventFailure),
}

// localArguments are paths on this machine.
var localArguments = []string{"FILE", "SOURCE"}

// completeArguments makes the shell complete the arguments of a command, as its
// usage names them.
func (e *env) completeArguments(cmd *cobra.Command) {
	usage := strings.Fields(cmd.Use)[1:]
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(usage) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		i := min(len(args), len(usage)-1)
		if len(args) > i && !strings.Contains(usage[i], "…") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		name := strings.Trim(usage[i], "[]…")
		if slices.Contains(localArguments, name) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if of := byArgument[name]; of != nil {
			return e.ask(cmd.Context(), of, args, begun), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// ask gives the names that begin with a text.
func (e *env) ask(ctx context.Context, of names, args []string, begun string) (fitting []string) {
	c, err := e.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	all, err := of(ctx, c, args)
	if err != nil {
		return nil
	}
	for _, name := range all {
		if strings.HasPrefix(name, begun) {
			fitting = append(fitting, name)
		}
	}
	return fitting
}

// sessionNames are the live sessions.
func sessionNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	return column1(c.List(ctx, client.ListRequest{
		Query: "compute_session_list", Fields: []string{"name"}, Limit: pageRows,
		Args: map[string]client.Argument{"status": {Type: "String", Value: strings.Join(liveStatuses, ",")}},
	}))
}

// appNames are the apps of the session that is the first argument.
func appNames(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	apps, err := c.Apps(ctx, args[0])
	list := make([]string, len(apps))
	for i, a := range apps {
		list[i] = a.Name
	}
	return list, err
}

// imageAliases are the other names of images.
func imageAliases(ctx context.Context, c *client.Client, _ []string) (list []string, err error) {
	rows, err := c.All(ctx, "images", nil, []string{"aliases"})
	for _, row := range rows {
		aliases, _ := row["aliases"].([]any)
		for _, a := range aliases {
			list = append(list, plainCell(a))
		}
	}
	return list, err
}

// imageNames are the aliases and references of images.
func imageNames(ctx context.Context, c *client.Client, _ []string) (list []string, err error) {
	rows, err := c.All(ctx, "images", nil, []string{"registry", "name", "tag", "aliases"})
	for _, row := range rows {
		aliases, _ := row["aliases"].([]any)
		for _, a := range aliases {
			list = append(list, plainCell(a))
		}
		list = append(list, plainCell(row["registry"])+"/"+plainCell(row["name"])+":"+plainCell(row["tag"]))
	}
	return list, err
}

// userEmails are the users.
func userEmails(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	return column1(c.List(ctx, client.ListRequest{Query: "user_list", Fields: []string{"email"}, Limit: pageRows}))
}

// accessKeys are the keypairs.
func accessKeys(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	return column1(c.List(ctx, client.ListRequest{Query: "keypair_list", Fields: []string{"access_key"}, Limit: pageRows}))
}

// terminalNames are the open terminals of the session that is the first argument.
func terminalNames(ctx context.Context, c *client.Client, args []string) (list []string, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	open, err := c.Terminals(ctx, args[0])
	for _, t := range open {
		list = append(list, t.Name)
	}
	return list, err
}

// column1 is the only field of the rows of a list.
func column1(rows []client.Row, _ int, err error) (list []string, _ error) {
	for _, row := range rows {
		for _, v := range row {
			list = append(list, plainCell(v))
		}
	}
	return list, err
}

// words offers texts that are known here.
func words(list ...string) names {
	return func(context.Context, *client.Client, []string) ([]string, error) { return list, nil }
}

// completeOptions makes the shell complete the values of a command's options:
// files where their name says so.
func (e *env) completeOptions(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			return
		}
		// It fails for an option of all commands, which has a completion already.
		_ = cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			value, _ := pflag.UnquoteUsage(f)
			switch of := byOption[f.Name]; {
			case of != nil:
				return e.ask(cmd.Context(), of, args, begun), cobra.ShellCompDirectiveNoFileComp
			case value == "FILE":
				return nil, cobra.ShellCompDirectiveDefault
			case value == "DIR":
				return nil, cobra.ShellCompDirectiveFilterDirs
			default:
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		})
	})
}
