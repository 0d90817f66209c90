package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newVFolderFilesCommand is "vfolder ls".
func newVFolderFilesCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls FOLDER [PATH]", Short: "List files in a folder", Args: arguments("FOLDER", "[PATH]"),
		Long: "Lists a directory of a folder.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			path := "."
			if len(args) > 1 {
				path = args[1]
			}
			files, err := c.FolderFiles(ctx, args[0], path)
			if err != nil {
				return err
			}
			return e.showFiles(files)
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of the directory in the folder; without it the folder itself"}},
		examples:  [][2]string{{"What is in the folder?", "backend.ai vfolder ls data"}, {"And in a directory of it?", "backend.ai vfolder ls data images/cats"}},
	})
}

// showFiles writes a list of files.
func (e *env) showFiles(files []client.FolderFile) error {
	if e.output == outputJSON {
		items := make([]item, len(files))
		for i, f := range files {
			items[i] = item{{"file name", f.Name}, {"type", f.Type}, {"size", f.Size}, {"modified", f.Modified}, {"mode", f.Mode}}
		}
		return e.term.JSON(page{len(files), len(files), items})
	}
	if len(files) == 0 {
		return e.term.Text("No matching items.\n")
	}
	rows := make([][]string, len(files))
	for i, f := range files {
		name, size := f.Name, sizeCell(f.Size)
		switch f.Type {
		case "DIRECTORY":
			name, size = name+"/", ""
		case "SYMLINK":
			name += "@"
		}
		rows[i] = []string{name, size, f.Modified, f.Mode}
	}
	return e.term.Table([]string{"file name", "size", "modified", "mode"}, rows)
}

// newVFolderMkdirCommand is "vfolder mkdir".
func newVFolderMkdirCommand(e *env) *cobra.Command {
	var parents, existOK bool
	cmd := &cobra.Command{
		Use: "mkdir FOLDER PATH…", Short: "Make directories in a folder", Args: arguments("FOLDER", "PATH…"),
		Long: "Makes directories in a folder. One that cannot be made does not keep the others.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			failed, err := c.MakeFolderDirs(ctx, args[0], args[1:], parents, existOK)
			if err != nil {
				return err
			}
			var made []string
			for _, path := range args[1:] {
				if reason, ok := failed[path]; ok {
					e.term.Fail("%s", reason)
				} else {
					made = append(made, path)
				}
			}
			if len(made) > 0 {
				if err := e.done(map[string]any{"folder": args[0], "paths": made}, "Made %s in folder %s.", strings.Join(made, ", "), args[0]); err != nil {
					return err
				}
			}
			if len(failed) > 0 {
				return exitError{code: exitFailure}
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&parents, "parents", "p", false, "make the directories above it too, as far as they are missing")
	f.BoolVarP(&existOK, "exist-ok", "e", false, "a directory that is there already is as good")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of the directory in the folder"}},
		examples:  [][2]string{{"One below another", "backend.ai vfolder mkdir -p data images/cats"}},
	})
}

// newVFolderMoveCommand is "vfolder mv".
func newVFolderMoveCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "mv FOLDER PATH NEW_PATH", Short: "Move a file in a folder", Args: arguments("FOLDER", "PATH", "NEW_PATH"),
		Long: "Moves a file or directory to another place in the folder. It replaces nothing.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.MoveFolderFile(ctx, args[0], args[1], args[2]); err != nil {
				return err
			}
			return e.done(map[string]any{"folder": args[0], "path": args[2]}, "Moved %s to %s.", args[1], args[2])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of the file or directory in the folder"}, {"NEW_PATH", "its new path, or the path of a directory to move it into"}},
		examples:  [][2]string{{"Into a directory", "backend.ai vfolder mv data cat.png images"}},
	})
}

// newVFolderRenameFileCommand is "vfolder rename-file".
func newVFolderRenameFileCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rename-file FOLDER PATH NAME", Short: "Give a file in a folder another name", Args: arguments("FOLDER", "PATH", "NAME"),
		Long: "Gives a file or directory another name in the directory where it is. It replaces nothing.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RenameFolderFile(ctx, args[0], args[1], args[2]); err != nil {
				return err
			}
			return e.done(map[string]any{"folder": args[0], "name": args[2]}, "Renamed %s to %s.", args[1], args[2])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of the file or directory in the folder"}, {"NAME", "its new name, without slashes"}},
		examples:  [][2]string{{"A better name", "backend.ai vfolder rename-file data images/1.png cat.png"}},
	})
}

// newVFolderRemoveCommand is "vfolder rm".
func newVFolderRemoveCommand(e *env) *cobra.Command {
	var recursive, yes bool
	cmd := &cobra.Command{
		Use: "rm FOLDER PATH…", Aliases: []string{"delete-file"}, Short: "Delete files in a folder", Args: arguments("FOLDER", "PATH…"),
		Long: "Deletes files in a folder, for good: there is no trash for files. It asks before.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := e.confirmed(yes); err != nil {
				return err
			}
			if err := c.RemoveFolderFiles(ctx, args[0], args[1:], recursive); err != nil {
				return err
			}
			return e.done(map[string]any{"folder": args[0], "files": args[1:]}, "Deleted %s.", strings.Join(args[1:], ", "))
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&recursive, "recursive", "r", false, "delete directories too, and all that is in them")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"PATH", "path of the file or directory in the folder"}},
		examples:  [][2]string{{"A file", "backend.ai vfolder rm data cat.png"}, {"A directory, without a question", "backend.ai vfolder rm -r -y data images"}},
	})
}

// newVFolderHostsCommand is "vfolder list-hosts".
func newVFolderHostsCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list-hosts", Short: "List the storage hosts", Args: arguments(),
		Long: "Lists the storage hosts on which folders can be, and the default one.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			hosts, err := c.FolderHosts(ctx)
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				return e.term.JSON(hosts)
			}
			return e.term.Text("Default vfolder host: " + hosts.Default + "\nUsable hosts: " + strings.Join(hosts.Allowed, ", ") + "\n")
		}),
	}
	return document(cmd, manual{examples: [][2]string{{"Where can folders be?", "backend.ai vfolder list-hosts"}}})
}

// newVFolderTypesCommand is "vfolder list-allowed-types".
func newVFolderTypesCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list-allowed-types", Short: "List what folders may belong to", Args: arguments(),
		Long: "Lists what folders may belong to: users, groups (projects), or both.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			types, err := c.FolderTypes(ctx)
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				return e.term.JSON(types)
			}
			return e.term.Text(strings.Join(slices.Sorted(slices.Values(types)), "\n") + "\n")
		}),
	}
	return document(cmd, manual{examples: [][2]string{{"What may folders belong to?", "backend.ai vfolder list-allowed-types"}}})
}

// newVFolderRequestDownloadCommand is "vfolder request-download".
func newVFolderRequestDownloadCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "request-download FOLDER FILE", Short: "Get an address to download a file from", Args: arguments("FOLDER", "FILE"),
		Long: "Gets an address from which anyone can download a file of a folder for a day, with a browser or curl. Whoever has the address has the file.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			address, token, err := c.DownloadAddress(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				return e.term.JSON(map[string]any{"url": address, "token": token})
			}
			if err := e.term.Text(address + "\n"); err != nil {
				return err
			}
			e.term.Done("Whoever has the address can download %s for a day.", args[1])
			return nil
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"FILE", "path of the file in the folder"}},
		examples:  [][2]string{{"Fetch it with curl", "curl -O -J \"$(backend.ai vfolder request-download data results.csv)\""}},
	})
}

// notHere explains what an older server does not have.
func notHere(err error) error {
	if backendai.CodeOf(err) == backendai.CodeURLNotFound {
		return backendai.Errorf(backendai.CodeNotImplemented, "this server cannot do that").WithHint("it is of a version that does not have it")
	}
	return err
}
