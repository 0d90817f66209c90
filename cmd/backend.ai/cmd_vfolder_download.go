package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

type downloadOptions struct {
	transferOptions

	overwrite bool
}

// newVFolderDownloadCommand is "vfolder download".
func newVFolderDownloadCommand(e *env) *cobra.Command {
	var o downloadOptions
	cmd := &cobra.Command{
		Use: "download FOLDER PATH…", Short: "Fetch files from a folder", Args: arguments("FOLDER", "PATH…"),
		Long: `Fetches files and directories from a folder, to their paths below the current directory. Each file appears when all of it is here and has the checksum that the server tells. Files that are here already, with the same size and time, are not fetched again; other files of the same names are not replaced unless --overwrite is given.

What is broken off goes on where it stopped when the same command is given again.`,
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return o.run(ctx, e, c, args[0], args[1:])
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&o.overwrite, "overwrite", false, "replace files that are here")
	o.flags(f, "`DIR` that exists, to put the files into; without it the current directory")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of a file or directory in the folder; . is all of it"}},
		examples: [][2]string{
			{"Results, into a directory", "mkdir results && backend.ai vfolder download -b results data out/figures"},
			{"All of the folder", "backend.ai vfolder download data ."},
		},
	})
}

func (o *downloadOptions) run(ctx context.Context, e *env, c *client.Client, folder string, paths []string) error {
	if _, err := o.apply(c); err != nil {
		return err
	}
	dir := o.baseDir
	if dir == "" {
		dir = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return usagef("--base-dir %s: %w", dir, plainCause(err))
	}
	defer root.Close()
	start := time.Now()
	bar := e.meter("downloading from "+folder, 0)
	defer bar.Close()
	var all client.DownloadResult
	for _, path := range paths {
		result, err := c.DownloadAll(ctx, client.FolderDownload{
			Folder: folder, Path: path, Root: root, Overwrite: o.overwrite, Tries: o.tries, Total: bar.expect, Progress: bar.add,
		})
		all.Files, all.Bytes, all.There, all.Skipped = all.Files+result.Files, all.Bytes+result.Bytes, all.There+result.There, append(all.Skipped, result.Skipped...)
		if err != nil {
			return err
		}
	}
	bar.Close()
	return e.downloaded(folder, all, start)
}

func (e *env) downloaded(folder string, all client.DownloadResult, start time.Time) error {
	there := ""
	if all.There > 0 {
		there = "; " + count(all.There, "file was", "files were") + " here already"
	}
	item := map[string]any{"folder": folder, "files": all.Files, "bytes": all.Bytes, "there": all.There, "skipped": len(all.Skipped)}
	if err := e.done(item, "Downloaded %s (%s) from folder %s in %s%s.", count(all.Files, "file", "files"), backendai.FormatSize(all.Bytes), folder, took(start), there); err != nil {
		return err
	}
	return e.leftOut(all.Skipped)
}

// count is a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// plainCause is what is wrong with a file, without its path, which has been told.
func plainCause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
