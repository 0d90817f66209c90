package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newDownloadCommand is "download".
func newDownloadCommand(e *env, name string) *cobra.Command {
	var dest string
	cmd := &cobra.Command{
		Use: name + " SESSION PATH…", Short: "Fetch files from a session", Args: arguments("SESSION", "PATH…"),
		Long: "Fetches files and folders from the home of a session into a folder here, with their modes. It is for small files, such as the key id_container; for large ones use scp or sftp. A file that is there already is replaced.",
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
			{"PATH", "path below the session's home, /home/work; at most 5"},
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
	e.term.Wait("Downloading from session %s…", session)
	bar := e.term.Progress()
	var total int64
	err = c.Download(ctx, session, files, func(file string, archive io.Reader) error {
		counted := &counter{Reader: archive, seen: func(n int64, _ error) { total += n; bar.Set("downloading "+file, total, 0) }}
		if err := untar(root, counted); err != nil {
			return fmt.Errorf("unpack %q: %w", file, err)
		}
		return nil
	})
	bar.Close()
	if err != nil {
		return err
	}
	where := ""
	if dest != "." {
		where = " into " + dest
	}
	return e.done(map[string]any{"session": session, "files": files}, "Downloaded %s from session %s%s.", strings.Join(files, ", "), session, where)
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
