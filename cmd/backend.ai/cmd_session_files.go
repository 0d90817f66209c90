package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newSessionFilesCommand is "ls".
func newSessionFilesCommand(e *env, name string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " SESSION [PATH]", Short: "List files in a session", Args: arguments("SESSION", "[PATH]"),
		Long: "Lists a directory below the home of a session.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			path := "/home/work"
			if len(args) > 1 {
				path = args[1]
			}
			files, _, err := c.SessionFiles(ctx, args[0], path)
			if showErr := e.showSessionFiles(files, err != nil); showErr != nil {
				return showErr
			}
			return err
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of the session, or how one of them begins"}, {"PATH", "path of the directory, below /home/work; without it the home"}},
		examples:  [][2]string{{"What is there?", "backend.ai ls mysession"}, {"And in a mounted folder?", "backend.ai ls mysession data"}},
	})
}

// showSessionFiles writes a list of files; partial means that an error follows.
func (e *env) showSessionFiles(files []client.SessionFile, partial bool) error {
	if e.output == outputJSON {
		if partial {
			return nil
		}
		items := make([]item, len(files))
		for i, f := range files {
			items[i] = item{{"file name", f.Name}, {"size", f.Size}, {"modified", f.Modified}, {"mode", f.Mode}}
		}
		return e.term.JSON(page{len(files), len(files), items})
	}
	if len(files) == 0 {
		if partial {
			return nil
		}
		return e.term.Text("No matching items.\n")
	}
	rows := make([][]string, len(files))
	for i, f := range files {
		modified := ""
		if seconds, err := f.Modified.Float64(); err == nil {
			modified = time.Unix(int64(seconds), 0).Format("Jan 02 2006 15:04:05")
		}
		rows[i] = []string{f.Name, sizeCell(f.Size), modified, f.Mode}
	}
	return e.term.Table([]string{"File name", "Size", "Modified", "Mode"}, rows)
}
