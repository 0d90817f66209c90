package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

const scpHelp = `Copies files to and from a session with the program scp of OpenSSH. A path in the session begins with a colon; relative ones start in its home, /home/work. Options are for scp; its exit code is passed on.

How the host key is checked and which key logs in is told by 'backend.ai ssh -h'.`

// newSCPCommand is "scp".
func newSCPCommand(e *env, name string) *cobra.Command {
	tool := sshTool{name: "scp", valued: "cDFiJloPSX"}
	tool.place = func(host, session string, args []string) ([]string, error) {
		return placeSCP(tool, host, session, args)
	}
	return document(toolCommand(e, name+" SESSION SOURCE… TARGET", "Copy files to and from a session", scpHelp, tool), manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"SOURCE", "what to copy: a path here, or with a colon before it one in the session"},
			{"TARGET", "where to: a path here, or with a colon before it one in the session"},
		},
		examples: [][2]string{
			{"A folder into the session", "backend.ai scp mysession -r data :"},
			{"A file out of it", "backend.ai scp mysession :out/model.bin ."},
		},
	})
}

// placeSCP writes the host before the paths in the session.
func placeSCP(tool sshTool, host, session string, args []string) ([]string, error) {
	options, paths := tool.sort(withoutPort(recursive(args)))
	if len(paths) < 2 {
		return nil, fmt.Errorf("scp needs a SOURCE and a TARGET; a path in the session begins with a colon, as in 'backend.ai scp %s file :'", session)
	}
	remote := false
	for i, p := range paths {
		for _, prefix := range []string{":", session + ":", host + ":", "work@" + host + ":", "work@localhost:", "localhost:"} {
			if rest, found := strings.CutPrefix(p, prefix); found {
				paths[i], remote = host+":"+rest, true
				break
			}
		}
	}
	if !remote {
		return nil, fmt.Errorf("no path is in the session; one there begins with a colon, as in :%s", paths[len(paths)-1])
	}
	return append(append(options, "--"), paths...), nil
}

// withoutPort leaves out the local port that the protocol's own client needs.
// It is written -p there, which scp has for another use: only a number after it
// is taken for one.
func withoutPort(args []string) (rest []string) {
	for i := 0; i < len(args); i++ {
		number := i+1 < len(args) && portRE.MatchString(args[i+1])
		switch {
		case args[i] == "--":
			return append(rest, args[i:]...)
		case args[i] == "--port" && number:
			i++
		case strings.HasPrefix(args[i], "--port="):
		case args[i] == "-p" && number:
			i++
			rest = append(rest, "-p")
		default:
			rest = append(rest, args[i])
		}
	}
	return rest
}

var portRE = regexp.MustCompile(`^\d{1,5}$`)

// recursive writes the long form of -r, which scp does not have, as -r.
func recursive(args []string) []string {
	short := make([]string, len(args))
	for i, a := range args {
		if short[i] = a; a == "--recursive" {
			short[i] = "-r"
		}
	}
	return short
}
