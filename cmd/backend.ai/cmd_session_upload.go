package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newUploadCommand is "upload".
func newUploadCommand(e *env, name string) *cobra.Command {
	var o uploadOptions
	cmd := &cobra.Command{
		Use: name + " SESSION FILE…", Short: "Put files into a session", Args: arguments("SESSION", "FILE…"),
		Long: `Puts files and directories below the home of a session, as its user, under their paths from the current directory on, with their modes and times. Folders that are mounted in the home take them too. A file of the same name is replaced when all of the new one has arrived.

Files in the home end with the session; 'backend.ai vfolder upload' keeps them, and goes on with what was broken off.

Links are kept as links. Special files, and links that lead out of what is sent, are left out with a warning, and the exit code is 1.`,
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return o.toSession(ctx, e, c, args[0], args[1:])
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.recursive, "recursive", "r", false, "send directories too, and all that is in them")
	f.StringVarP(&o.dir, "dst-dir", "d", "", "`PATH` of the directory in the session to put the files into; without it the home")
	f.StringVarP(&o.baseDir, "base-dir", "b", "", "`DIR` from which on paths count; without it the current directory")
	return document(cmd, manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"FILE", "path of a file or directory here, below the current directory or that of -b"},
		},
		examples: [][2]string{{"A program", "backend.ai upload mysession train.py"}, {"A directory, into a mounted folder", "backend.ai upload -r -d data mysession images"}},
	})
}

func (o *uploadOptions) toSession(ctx context.Context, e *env, c *client.Client, session string, files []string) error {
	sources, skipped, err := o.sources(files)
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		dir = "."
	}
	start := time.Now()
	bar := e.meter("uploading to session "+session, total(sources))
	result, err := c.UploadToSession(ctx, client.SessionTransfer{Session: session, Dir: filepath.ToSlash(dir), Sources: sources, Progress: bar.add})
	bar.Close()
	if err != nil {
		return err
	}
	item := map[string]any{"session": session, "files": result.Files, "bytes": result.Bytes, "skipped": len(skipped) + len(result.Skipped)}
	if err := e.done(item, "Uploaded %s (%s) to session %s in %s.", count(result.Files, "file", "files"), backendai.FormatSize(result.Bytes), session, took(start)); err != nil {
		return err
	}
	return e.leftOutBySession(e.leftOut(skipped), result.Skipped)
}

// leftOutBySession tells what a session has left out of a transfer, which makes
// it a failure, as what was left out here does.
func (e *env) leftOutBySession(err error, skipped []string) error {
	for i, text := range skipped {
		if i == shownSkipped {
			e.term.Warn("and %d more", len(skipped)-i)
			break
		}
		e.term.Warn("left out: %s", text)
	}
	if err == nil && len(skipped) > 0 {
		return exitError{code: exitFailure}
	}
	return err
}
