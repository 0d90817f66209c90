package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newDownloadCommand is "download".
func newDownloadCommand(e *env, name string) *cobra.Command {
	var dest string
	cmd := &cobra.Command{
		Use: name + " SESSION PATH…", Short: "Fetch files from a session", Args: arguments("SESSION", "PATH…"),
		Long: "Fetches files and directories from the home of a session into a directory here, each under the last part of its path, with their modes and times. Each file appears when all of it is here. A file that is there already is replaced. Special files, and links that lead out of what is fetched, are left out with a warning, and the exit code is 1.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			return e.download(cmd.Context(), c, args[0], args[1:], dest)
		},
	}
	cmd.Flags().StringVar(&dest, "dest", ".", "`DIR` that exists, to put the files into")
	return document(cmd, manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"PATH", "path below the session's home, /home/work"},
		},
		examples: [][2]string{{"The key for SSH", "backend.ai download mysession id_container"}, {"Results into a folder", "backend.ai download mysession out/figures --dest results"}},
	})
}

func (e *env) download(ctx context.Context, c *client.Client, session string, files []string, dest string) error {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return usagef("--dest %s: %w", dest, err)
	}
	defer root.Close()
	bar := e.meter("downloading from session "+session, 0)
	result, err := c.DownloadFromSession(ctx, client.SessionTransfer{Session: session, Paths: files, Root: root, Progress: bar.add})
	if backendai.CodeOf(err) == backendai.CodeURLNotFound {
		err = e.downloadParts(ctx, c, session, files, root, bar)
	}
	bar.Close()
	if err != nil {
		return err
	}
	where := ""
	if dest != "." {
		where = " into " + dest
	}
	if err := e.done(map[string]any{"session": session, "files": files, "skipped": len(result.Skipped)}, "Downloaded %s from session %s%s.", strings.Join(files, ", "), session, where); err != nil {
		return err
	}
	return e.leftOutBySession(nil, result.Skipped)
}

// downloadParts fetches files from a server that has no streams.
func (e *env) downloadParts(ctx context.Context, c *client.Client, session string, files []string, root *os.Root, bar *meter) error {
	return c.Download(ctx, session, files, func(file string, archive io.Reader) error {
		counted := &counter{Reader: archive, seen: func(n int64, _ error) { bar.add(file, n) }}
		if err := untar(root, counted); err != nil {
			return fmt.Errorf("unpack %q: %w", file, err)
		}
		return nil
	})
}

// counter tells of the bytes that pass.
type counter struct {
	io.Reader

	seen func(n int64, err error)
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.seen(int64(n), err)
	return n, err
}
