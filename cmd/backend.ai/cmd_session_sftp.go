package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

const sftpHelp = `Opens an SFTP session, in which files are listed, fetched, sent and changed, with the program sftp of OpenSSH. Options are for sftp; its exit code is passed on.

How the host key is checked and which key logs in is told by 'backend.ai ssh -h'.`

// newSFTPCommand is "sftp".
func newSFTPCommand(e *env, name string) *cobra.Command {
	tool := sshTool{name: "sftp", valued: "BbcDFiJloPRSsX"}
	tool.place = func(host, _ string, args []string) ([]string, error) {
		options, paths := tool.sort(args)
		switch len(paths) {
		case 0:
		case 1:
			host += ":" + paths[0]
		default:
			return nil, fmt.Errorf("there is one argument too many: %q", paths[1])
		}
		return append(options, "--", host), nil
	}
	return document(toolCommand(e, name+" SESSION [PATH]", "Transfer files of a session interactively", sftpHelp, tool), manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"PATH", "folder in the session to begin in, or file to fetch; without it the home, /home/work"},
		},
		examples: [][2]string{
			{"Look around", "backend.ai sftp mysession"},
			{"Do what a file says", "backend.ai sftp mysession -b commands"},
		},
		exits: [][2]string{{"255", "sftp could not connect"}},
	})
}
