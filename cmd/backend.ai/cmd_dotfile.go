package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newDotfileGroup has the commands for dotfiles.
func newDotfileGroup(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use: "dotfile", Short: "Keep small files that every session has in its home",
		Long: "Keeps small files, such as .bashrc or .gitconfig, that every new session of yours has in its home. All of them together have at most 64KiB; what is larger belongs into a folder whose name begins with a dot.",
	},
		newDotfilePutCommand(e, "create", "Make a dotfile", "Makes a dotfile.", (*client.Client).CreateDotfile, "made"),
		newDotfileGetCommand(e),
		newDotfileListCommand(e),
		newDotfilePutCommand(e, "update", "Change a dotfile", "Replaces the content and the permission of a dotfile.", (*client.Client).UpdateDotfile, "changed"),
		newDotfileDeleteCommand(e),
	)
}

var (
	dotfileArgument = [2]string{"PATH", "path of the file below the home of the session, such as .bashrc"}
	ownerUsage      = "access `KEY` of the user whose file it is; for administrators; without it your own"
)

// maxDotfile is more than any server takes.
const maxDotfile = 1 << 20

// newDotfilePutCommand is "dotfile create" and "dotfile update".
func newDotfilePutCommand(e *env, name, short, long string, put func(*client.Client, context.Context, string, client.Dotfile) error, done string) *cobra.Command {
	var file, permission, owner string
	cmd := &cobra.Command{
		Use: name + " PATH", Short: short, Args: arguments("PATH"), Long: long,
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			from := e.in
			if file != "" {
				f, err := os.Open(file)
				if err != nil {
					return usagef("--file %s: %w", file, plainCause(err))
				}
				defer f.Close()
				from = f
			}
			data, err := io.ReadAll(io.LimitReader(from, maxDotfile))
			if err != nil {
				return err
			}
			if err := put(c, ctx, owner, client.Dotfile{Path: args[0], Permission: permission, Data: string(data)}); err != nil {
				return err
			}
			return e.done(map[string]any{"path": args[0], "permission": permission}, "Dotfile %s is %s.", args[0], done)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&permission, "perm", "755", "`MODE` of the file: three octal digits")
	f.StringVarP(&file, "file", "f", "", "`FILE` here whose content it gets; without it standard input")
	f.StringVarP(&owner, "owner", "o", "", ownerUsage)
	return document(cmd, manual{
		arguments: [][2]string{dotfileArgument},
		examples:  [][2]string{{"The shell as here", "backend.ai dotfile " + name + " --perm 644 -f ~/.bashrc .bashrc"}, {"From another command", "git config --global --list | backend.ai dotfile " + name + " .gitconfig"}},
	})
}

// newDotfileGetCommand is "dotfile get".
func newDotfileGetCommand(e *env) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use: "get PATH", Short: "Show a dotfile", Args: arguments("PATH"),
		Long: "Writes the content of a dotfile to standard output.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			f, err := c.Dotfile(ctx, owner, args[0])
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				return e.term.JSON(f)
			}
			return e.term.Text(f.Data)
		}),
	}
	cmd.Flags().StringVarP(&owner, "owner", "o", "", ownerUsage)
	return document(cmd, manual{
		arguments: [][2]string{dotfileArgument},
		examples:  [][2]string{{"What is in it?", "backend.ai dotfile get .bashrc"}},
	})
}

// newDotfileListCommand is "dotfile list".
func newDotfileListCommand(e *env) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use: "list", Short: "List dotfiles", Args: arguments(),
		Long: "Lists the dotfiles, each with the beginning of its first line.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			files, err := c.Dotfiles(ctx, owner)
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				items := make([]item, len(files))
				for i, f := range files {
					items[i] = item{{"path", f.Path}, {"data", f.Data}, {"permission", f.Permission}}
				}
				return e.term.JSON(page{len(files), len(files), items})
			}
			if len(files) == 0 {
				return e.term.Text("No matching items.\n")
			}
			rows := make([][]string, len(files))
			for i, f := range files {
				first, _, _ := strings.Cut(f.Data, "\n")
				if r := []rune(first); len(r) > 30 {
					first = string(r[:30]) + "…"
				}
				rows[i] = []string{f.Path, first, f.Permission}
			}
			return e.term.Table([]string{"Path", "Data", "Permission"}, rows)
		}),
	}
	cmd.Flags().StringVarP(&owner, "owner", "o", "", ownerUsage)
	return document(cmd, manual{examples: [][2]string{{"All of them", "backend.ai dotfile list"}}})
}

// newDotfileDeleteCommand is "dotfile delete".
func newDotfileDeleteCommand(e *env) *cobra.Command {
	var owner string
	var force bool
	cmd := &cobra.Command{
		Use: "delete PATH", Short: "Delete a dotfile", Args: arguments("PATH"),
		Long: "Deletes a dotfile: new sessions do not have it any more. It asks before.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := e.confirmed(force); err != nil {
				return err
			}
			if err := c.DeleteDotfile(ctx, owner, args[0]); err != nil {
				return err
			}
			return e.done(map[string]any{"path": args[0]}, "Dotfile %s is deleted.", args[0])
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.StringVarP(&owner, "owner", "o", "", ownerUsage)
	return document(cmd, manual{
		arguments: [][2]string{dotfileArgument},
		examples:  [][2]string{{"Away with it", "backend.ai dotfile delete -f .bashrc"}},
	})
}
