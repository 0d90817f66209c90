package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai"
	tarball "backendai/internal/archive"
	"backendai/internal/client"
	"backendai/internal/term"
)

// transferOptions are what uploads to and downloads from folders share.
type transferOptions struct {
	baseDir, chunk, proxies string
	tries                   int
}

func (o *transferOptions) flags(f *pflag.FlagSet, baseUsage string) {
	f.StringVarP(&o.baseDir, "base-dir", "b", "", baseUsage)
	f.StringVar(&o.proxies, "override-storage-proxy", "", "`X=Y,…`: replace X by Y where the server's addresses for files begin so; without it they stay")
	f.IntVar(&o.tries, "max-retries", client.DefaultTries, "try so many `TIMES` to go on when the connection breaks and nothing comes through")
	f.StringVar(&o.chunk, "chunk-size", "16m", "`SIZE` of what is sent at a time to servers that take one chunk after another")
}

// apply checks the options and gives the client what it must know of them.
func (o *transferOptions) apply(c *client.Client) (chunk int64, err error) {
	if o.tries < 1 {
		return 0, usagef("--max-retries is a number of 1 or more")
	}
	proxies, err := client.ParseStorageProxies(o.proxies)
	if err != nil {
		return 0, usageError{err: err}
	}
	c.OverrideStorage(proxies)
	if chunk, err = backendai.ParseSize(o.chunk); err != nil || chunk < 1 {
		return 0, usagef("--chunk-size %s is not a size such as 16m", o.chunk)
	}
	return chunk, nil
}

type uploadOptions struct {
	transferOptions

	dir       string
	recursive bool
}

// newVFolderUploadCommand is "vfolder upload".
func newVFolderUploadCommand(e *env) *cobra.Command {
	var o uploadOptions
	cmd := &cobra.Command{
		Use: "upload FOLDER FILE…", Short: "Put files into a folder", Args: arguments("FOLDER", "FILE…"),
		Long: `Puts files into a folder, under their paths from the current directory on. A file of the same name is replaced when all of the new one has arrived.

What is broken off, by Ctrl+C, by a lost connection or because a machine was switched off, goes on where it stopped when the same command is given again. With several files those that are in the folder already, with the same size and time, are not sent again.

Links are kept as links. Special files, and links that lead out of what is sent, are left out with a warning, and the exit code is 1.`,
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return o.run(ctx, e, c, args[0], args[1:])
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.recursive, "recursive", "r", false, "send directories too, and all that is in them")
	f.StringVarP(&o.dir, "dst-dir", "d", "", "`PATH` of the directory in the folder to put the files into; without it the folder itself")
	o.flags(f, "`DIR` from which on paths count; without it the current directory")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"FILE", "path of a file or directory here, below the current directory or that of -b"}},
		examples: [][2]string{
			{"One's own key for SSH, for every session from now on", "cd ~/.ssh && backend.ai vfolder upload .ssh authorized_keys"},
			{"A directory, into another one in the folder", "backend.ai vfolder upload -r -d images/2026 data cats dogs"},
		},
	})
}

// sources are the files that are named, under their names in the folder.
func (o *uploadOptions) sources(files []string) (sources []tarball.Source, skipped []tarball.Skipped, err error) {
	base, err := filepath.Abs(o.baseDir)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, nil, err
		}
		name, err := filepath.Rel(base, abs)
		if err != nil || !filepath.IsLocal(name) {
			return nil, nil, usagef("%s is not below %s; -b gives another directory from which on paths count", file, base)
		}
		info, err := os.Stat(abs)
		switch {
		case err != nil:
			return nil, nil, usagef("%s cannot be read: %w", file, plainCause(err))
		case info.IsDir() && !o.recursive:
			return nil, nil, usagef("%s is a directory; -r sends directories too", file)
		case info.Mode().IsRegular():
			// A link that is named is followed; those in directories are not.
			sources = append(sources, tarball.Source{Name: filepath.ToSlash(name), Path: abs, Size: info.Size(), Mode: info.Mode(), Modified: info.ModTime()})
			continue
		}
		more, left, err := tarball.Collect(abs, filepath.ToSlash(name))
		if err != nil {
			return nil, nil, usagef("%s cannot be read: %w", file, plainCause(err))
		}
		sources, skipped = append(sources, more...), append(skipped, left...)
	}
	return sources, skipped, nil
}

func (o *uploadOptions) run(ctx context.Context, e *env, c *client.Client, folder string, files []string) error {
	chunk, err := o.apply(c)
	if err != nil {
		return err
	}
	sources, skipped, err := o.sources(files)
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		dir = "."
	}
	start := time.Now()
	bar := e.meter("uploading to "+folder, total(sources))
	result, err := upload(ctx, c, client.FolderUpload{Folder: folder, Dir: filepath.ToSlash(dir), Sources: sources, Chunk: chunk, Tries: o.tries, Progress: bar.add})
	bar.Close()
	if err != nil {
		return err
	}
	there := ""
	if result.There > 0 {
		there = "; " + count(result.There, "file was", "files were") + " there already"
	}
	item := map[string]any{"folder": folder, "files": result.Files, "bytes": result.Bytes, "there": result.There, "skipped": len(skipped)}
	if err := e.done(item, "Uploaded %s (%s) to folder %s in %s%s.", count(result.Files, "file", "files"), backendai.FormatSize(result.Bytes), folder, took(start), there); err != nil {
		return err
	}
	return e.leftOut(skipped)
}

// upload sends one small file as it is, and everything else as one whole.
func upload(ctx context.Context, c *client.Client, up client.FolderUpload) (client.UploadResult, error) {
	if len(up.Sources) != 1 || !up.Sources[0].Mode.IsRegular() || up.Sources[0].Size > 1<<20 {
		return c.UploadAll(ctx, up)
	}
	s := up.Sources[0]
	f, err := os.Open(s.Path)
	if err != nil {
		return client.UploadResult{}, backendai.Errorf(backendai.CodeInvalidParams, "%s cannot be read: %w", s.Path, plainCause(err))
	}
	defer f.Close()
	err = c.UploadFile(ctx, client.FileUpload{
		Folder: up.Folder, Path: filepath.ToSlash(filepath.Join(up.Dir, s.Name)), File: f, Chunk: up.Chunk, Tries: up.Tries,
		Progress: func(n int64) { up.Progress(s.Name, n) },
	})
	return client.UploadResult{Files: 1, Bytes: s.Size}, err
}

func total(sources []tarball.Source) (bytes int64) {
	for _, s := range sources {
		bytes += s.Size
	}
	return bytes
}

// meter shows the progress of a transfer.
type meter struct {
	*term.Progress

	label string

	mu          sync.Mutex
	done, total int64
}

// meter begins to show a transfer. The caller closes it.
func (e *env) meter(label string, total int64) *meter {
	m := &meter{Progress: e.term.Transfer(), label: label, total: total}
	m.add("", 0)
	return m
}

// add tells of bytes that have come through, of whatever file.
func (m *meter) add(_ string, more int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += more
	m.Set(m.label, max(0, m.done), m.total)
}

// expect adds bytes that are to come.
func (m *meter) expect(more int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += more
}

// shownSkipped is how many of the things that are left out are told one by one.
const shownSkipped = 20

// leftOut tells what a transfer has left out, which makes it a failure.
func (e *env) leftOut(skipped []tarball.Skipped) error {
	for i, s := range skipped {
		if i == shownSkipped {
			e.term.Warn("and %d more", len(skipped)-i)
			break
		}
		e.term.Warn("left out: %s %s", s.Path, s.Reason)
	}
	if len(skipped) > 0 {
		return exitError{code: exitFailure}
	}
	return nil
}
