package main

import (
	"github.com/spf13/cobra"
)

const sshHelp = `Opens a shell in a session, or runs a command there, with the program ssh of OpenSSH. Everything after SESSION is for ssh, as are options before it; ssh's exit code is passed on.

The way goes through the server, signed with your key; no port is opened on this machine. The session's host key comes from the server and is checked, and so is that it stays the same. The key for logging in is the session's own, or one of yours when a folder of yours is its .ssh. Both are kept in a folder of the client's state, not in the current one.

For other programs that use ssh (rsync, git, Ansible, an editor) see 'backend.ai ssh-config'.`

// newSSHCommand is "ssh".
func newSSHCommand(e *env, name string) *cobra.Command {
	tool := sshTool{name: "ssh", valued: "BbcDEeFIiJLlmOopPQRSWw", place: func(host, _ string, args []string) ([]string, error) {
		return append([]string{host}, args...), nil
	}}
	return document(toolCommand(e, name+" SESSION [ARGUMENT…]", "Open a shell in a session", sshHelp, tool), manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"ARGUMENT", "arguments of ssh: its options, and the command to run; without a command a shell"},
		},
		examples: [][2]string{
			{"A shell", "backend.ai ssh mysession"},
			{"A command", "backend.ai ssh mysession nvidia-smi -L"},
			{"A port of the session at a port here", "backend.ai ssh mysession -N -L 8000:localhost:8000"},
		},
		exits: [][2]string{{"255", "ssh could not connect; all other codes are those of the command"}},
	})
}

// toolCommand is a command whose arguments are another program's.
func toolCommand(e *env, use, short, long string, tool sshTool) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
				return writeHelp(cmd.OutOrStdout(), cmd)
			}
			return tool.run(cmd.Context(), e, args)
		},
	}
}
