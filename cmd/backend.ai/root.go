package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/version"
)

// newRootCommand makes the tree of all commands.
func newRootCommand(e *env) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "backend.ai",
		Short: "Isolated container sessions, and the way into their apps",
		Long: `Starts isolated container sessions on a server and leads to the apps inside them: Jupyter, a terminal, SSH and whatever else the image of the session has.

The client finds its server and its keys in the environment (BACKEND_ENDPOINT, BACKEND_ACCESS_KEY, BACKEND_SECRET_KEY) or in the profile file, which the first start of a server writes for its own user; 'backend.ai config' shows both. 'backend.ai server' runs a server.

Messages go to standard error, results to standard output. Exit codes: 0 success, 1 failure, 2 a wrong command line, 3 the waiting is over (it goes on), 4 an argument that names nothing (no session for rm, an unknown field for -f), 130 Ctrl+C, 143 SIGTERM; ssh, scp and sftp pass on those of their programs. Each command tells its own.`,
		Example:       "# A Jupyter notebook in a session of its own\nbackend.ai start -t mysession python\nbackend.ai app -b 9900 mysession jupyter",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{outputConsole, outputJSON}, e.output) {
				bad := e.output
				e.output = outputConsole
				return usagef("--output %s is neither console nor json", bad)
			}
			e.term.Quiet(e.output == outputJSON)
			return nil
		},
	},
		newStartCommand(e, "start", "create"),
		newAppCommand(e, "app"),
		newAppsCommand(e, "apps"),
		newSessionListCommand(e, "ps"),
		newSessionInfoCommand(e, "info"),
		newSessionRemoveCommand(e, "rm", "kill", "destroy", "terminate"),
		newSessionRestartCommand(e, "restart"),
		newSessionRenameCommand(e, "rename"),
		newSessionLogsCommand(e, "logs"),
		newEventsCommand(e, "events"),
		newUploadCommand(e, "upload"),
		newDownloadCommand(e, "download"),
		newSessionFilesCommand(e, "ls"),
		newSSHCommand(e, "ssh"),
		newSCPCommand(e, "scp"),
		newSFTPCommand(e, "sftp"),
		newSSHConfigCommand(e),
		newSSHProxyCommand(e),
		newTerminalsCommand(e, "terminals"),
		newSessionGroup(e),
		newVFolderGroup(e),
		newDotfileGroup(e),
		newImageGroup(e),
		newAdminGroup(e),
		newConfigCommand(e),
		newServerCommand(e),
		newCompletionCommand(),
	)
	help := newHelpCommand()
	root.SetHelpCommand(help)
	root.CompletionOptions.DisableDefaultCmd = true
	// Global options stand before a command whose own arguments are another program's.
	root.TraverseChildren = true
	root.SetVersionTemplate("backend.ai, version {{.Version}}\n")
	global := root.PersistentFlags()
	global.StringVar(&e.output, "output", outputConsole, "`FORM` of the result: console, or json for programs")
	global.BoolVar(&e.skipTLS, "skip-sslcert-validation", false, "do not check the certificate of the server; only for servers of your own")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return shape(err) })
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		// The only failure is that nobody reads it.
		_ = writeHelp(cmd.OutOrStdout(), cmd)
	})
	e.complete(root)
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("version").Usage = "show the version and exit"
	return root
}

// complete gives every command the option -h in our words, makes errors of its
// arguments usage errors, and lets the shell complete them.
func (e *env) complete(cmd *cobra.Command) {
	cmd.Flags().BoolP("help", "h", false, "show this manual and exit")
	cmd.Flags().SortFlags = false
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return shape(err)
			}
			return nil
		}
	}
	if !isGroup(cmd) && cmd.ValidArgs == nil {
		e.completeArguments(cmd)
	}
	e.completeOptions(cmd)
	for _, sub := range cmd.Commands() {
		e.complete(sub)
	}
}

// group makes a command that only has commands below it.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{sectionGroup: "true"}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return shape(errors.New("a command is missing"))
		}
		err := fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(like, " or "))
		}
		return shape(err)
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(subs...)
	return cmd
}

// arguments checks how many arguments there are: names without brackets must be
// given, and the last may stand for several when it ends in "…".
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		required, most := 0, len(names)
		for _, name := range names {
			if !strings.HasPrefix(name, "[") {
				required++
			}
			if strings.Contains(name, "…") {
				most = int(^uint(0) >> 1)
			}
		}
		switch {
		case len(args) < required:
			return fmt.Errorf("the argument %s is missing", strings.TrimSuffix(names[len(args)], "…"))
		case len(args) > most:
			return fmt.Errorf("there is one argument too many: %q", args[most])
		}
		return nil
	}
}
