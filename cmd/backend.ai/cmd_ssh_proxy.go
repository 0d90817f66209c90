package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// prepareTime bounds what ssh waits for before it connects.
const prepareTime = 30 * time.Second

// newSSHProxyCommand is "ssh-proxy", which the configuration of ssh calls.
func newSSHProxyCommand(e *env) *cobra.Command {
	var dir string
	var prepare bool
	cmd := &cobra.Command{
		Use: "ssh-proxy HOST", Short: "Be the connection of an SSH client", Args: arguments("HOST"), Hidden: true,
		Long: "Connects standard input and output to the SSH server of a session. It is the ProxyCommand of the configuration that 'backend.ai ssh-config' makes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			host := sessionOf(args[0])
			if !hostRE.MatchString(host) {
				return usagef("%q is not the name of a session", host)
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			if prepare {
				return e.prepareHost(cmd.Context(), c, dir, host)
			}
			return e.sshProxy(cmd.Context(), c, host, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`DIR` with the keys of sessions; without it that of the client's state")
	f.BoolVar(&prepare, "prepare", false, "do not connect, but write what ssh must know of the host")
	return document(cmd, manual{
		arguments: [][2]string{{"HOST", "the session, with or without .backend.ai after it"}},
		examples:  [][2]string{{"In ~/.ssh/config", "ProxyCommand backend.ai ssh-proxy %n"}},
	})
}

// prepareHost writes what belongs to a host before ssh reads it. That the
// server does not tell it, the connection that follows tells the user.
func (e *env) prepareHost(ctx context.Context, c *client.Client, dir, host string) error {
	folder, err := e.openSSHFolder(dir)
	if err != nil {
		return err
	}
	defer folder.close()
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	a, err := askSSH(ctx, c, host)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		if err := folder.forget(host); err != nil {
			return err
		}
	}
	if err != nil {
		return exitError{code: exitFailure}
	}
	if err := folder.keep(a); err != nil {
		return err
	}
	return folder.lead(host, a.session)
}

// sshProxy moves bytes between a session's SSH server and ssh until the server
// has ended.
func (e *env) sshProxy(ctx context.Context, c *client.Client, session string, in io.Reader, out io.Writer) error {
	conn, err := c.Connect(ctx, session, client.ConnectRequest{App: backendai.AppSSHD})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	// It reads until ssh has ended: it cannot be woken, and ends with the process.
	go func() {
		_, err := io.Copy(conn, in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite() // a server that is gone has nothing more to be told
			return
		}
		_ = conn.Close()
	}()
	_, err = io.Copy(out, conn)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("connection to session %s: %w", session, err)
	}
	return nil
}
