package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
)

const sshConfigHelp = `Makes configuration for ssh, with which "ssh mysession.backend.ai" leads into the session mysession, and with it all programs that use ssh: rsync, git, Ansible, editors. Sessions that are started later work too.

With --write the configuration is put into a file of the client's state, and one line that includes that file into ~/.ssh/config; nothing else there is changed, and doing it again changes nothing. Without it the configuration is printed: with SESSION that of these sessions, else the one for all.

Before each connection ssh asks this program for the session's host key, which is checked, and for the session's own key for logging in. The program finds the server as always: in the environment of ssh, or in the profile.`

// newSSHConfigCommand is "ssh-config".
func newSSHConfigCommand(e *env) *cobra.Command {
	var write bool
	cmd := &cobra.Command{
		Use: "ssh-config [SESSION…]", Short: "Make ssh NAME.backend.ai work", Long: sshConfigHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, err := e.openSSHFolder("")
			if err != nil {
				return err
			}
			defer folder.close()
			config, err := e.sshConfig(folder)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				sessions, err := e.sessionsConfig(cmd.Context(), folder, args)
				if err != nil {
					return err
				}
				if !write {
					config = sessions
				}
			}
			if !write {
				return e.showSSHConfig(config)
			}
			if err := folder.write("config", []byte(config)); err != nil {
				return err
			}
			return e.includeSSHConfig(folder.in("config"))
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "put it into ~/.ssh/config; else it is printed")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of a session, or how one of them begins; without it the configuration is for all"}},
		examples: [][2]string{
			{"Once for all sessions", "backend.ai ssh-config --write\nssh mysession.backend.ai\nrsync -a data/ mysession.backend.ai:data/"},
			{"For a program with a file of its own", "backend.ai ssh-config mysession > ssh.conf\nssh -F ssh.conf mysession.backend.ai"},
		},
	})
}

// sessionsConfig prepares sessions and gives the configuration of them alone.
func (e *env) sessionsConfig(ctx context.Context, folder *sshFolder, refs []string) (string, error) {
	c, err := e.client()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, ref := range refs {
		s, err := folder.prepare(ctx, c, sessionOf(ref))
		if err != nil {
			return "", err
		}
		if !s.own {
			e.term.Info("Session %s has the keys of your .ssh folder: log in with one of yours.", s.name)
		}
		options, err := e.sessionOptions(folder, s)
		if err != nil {
			return "", err
		}
		b.WriteString("Host " + s.name + hostSuffix + "\n")
		writeSSHOptions(&b, options)
	}
	return b.String(), nil
}

func (e *env) showSSHConfig(config string) error {
	if e.output == outputJSON {
		return e.term.JSON(map[string]any{"ok": true, "config": config})
	}
	return e.term.Text(config)
}

// includeSSHConfig puts the line that includes a file at the top of
// ~/.ssh/config, where it holds for all hosts. The rest of the file, its mode,
// and a link that it may be stay.
func (e *env) includeSSHConfig(file string) error {
	home := e.getenv("HOME")
	if !filepath.IsAbs(home) {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return fmt.Errorf("find the home folder: %w", err)
		}
	}
	path := filepath.Join(home, ".ssh", "config")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read configuration of ssh: %w", err)
	}
	line := "Include " + quoted(file)
	text, err := os.ReadFile(path)
	mode := fs.FileMode(0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read configuration of ssh: %w", err)
	default:
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read configuration of ssh: %w", err)
		}
		mode = info.Mode().Perm()
	}
	item := map[string]any{"file": file, "included_by": path}
	if includes(string(text), line) {
		return e.done(item, "ssh NAME%s works: %s includes %s already.", hostSuffix, path, file)
	}
	if err := replaceFile(path, []byte(line+"\n"+string(text)), mode); err != nil {
		return backendai.Errorf(backendai.CodeForbidden, "the file %s cannot be written: %w", path, err).
			WithHint("put this line at its top yourself: %s", line)
	}
	return e.done(item, "ssh NAME%s works from now on: %s includes %s.", hostSuffix, path, file)
}

// includes tells whether a configuration of ssh has a line that holds for all hosts.
func includes(text, line string) bool {
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		word, _, _ := strings.Cut(strings.ToLower(l), " ")
		if l == line {
			return true
		}
		if word == "host" || word == "match" {
			return false
		}
	}
	return false
}

// replaceFile replaces a file as a whole.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".backend.ai-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
