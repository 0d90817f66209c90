package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"

	"backendai"
)

// sshTool is one of OpenSSH's programs. Its options are left to it; only which
// of them have a value must be known to tell options from operands.
type sshTool struct {
	name   string
	valued string // letters of the options with a value
	// place puts the host into what the user has written after the session.
	place func(host, session string, args []string) ([]string, error)
}

// run is "backend.ai ssh", "scp" or "sftp". It does not return when the tool
// could be started and the system can replace a program by another.
func (t sshTool) run(ctx context.Context, e *env, args []string) error {
	before, session, after, err := t.split(args)
	if err != nil {
		return shape(err)
	}
	program, err := exec.LookPath(t.name)
	if err != nil {
		return backendai.Errorf(backendai.CodeUnavailable, "the program %s is not on this machine: %w", t.name, err).
			WithHint("install the OpenSSH client, or use another client through 'backend.ai app %s sshd'", session)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	folder, err := e.openSSHFolder("")
	if err != nil {
		return err
	}
	defer folder.close()
	s, err := folder.prepare(ctx, c, session)
	if err != nil {
		return err
	}
	options, err := e.sessionOptions(folder, s)
	if err != nil {
		return err
	}
	if !s.own {
		e.term.Info("Session %s has the keys of your .ssh folder: log in with one of yours.", s.name)
	}
	argv := []string{t.name}
	for _, o := range options {
		argv = append(argv, "-o", o.name+"="+o.value)
	}
	rest, err := t.place(s.name+hostSuffix, session, after)
	if err != nil {
		return shape(err)
	}
	return replaceBy(ctx, program, slices.Concat(argv, before, rest), os.Environ())
}

// split finds the session among the arguments: it is the first operand.
func (t sshTool) split(args []string) (before []string, session string, after []string, err error) {
	for len(args) > 0 {
		if n := t.option(args); n > 0 {
			before, args = append(before, args[:n]...), args[n:]
			continue
		}
		if args[0] == "--" {
			args = args[1:]
			continue
		}
		return before, sessionOf(args[0]), args[1:], nil
	}
	return nil, "", nil, errors.New("the argument SESSION is missing")
}

// option tells how many of the arguments are the first option and its value.
func (t sshTool) option(args []string) int {
	first := args[0]
	if len(first) < 2 || first[0] != '-' || first == "--" {
		return 0
	}
	for i, letter := range first[1:] {
		if strings.ContainsRune(t.valued, letter) {
			if i == len(first)-2 && len(args) > 1 {
				return 2
			}
			break
		}
	}
	return 1
}

// sort puts options before operands, as the tools other than ssh want them.
func (t sshTool) sort(args []string) (options, operands []string) {
	for len(args) > 0 {
		if args[0] == "--" {
			return options, append(operands, args[1:]...)
		}
		if n := t.option(args); n > 0 {
			options, args = append(options, args[:n]...), args[n:]
			continue
		}
		operands, args = append(operands, args[0]), args[1:]
	}
	return options, operands
}
