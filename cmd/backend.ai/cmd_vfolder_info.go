package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newVFolderInfoCommand is "vfolder info".
func newVFolderInfoCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "info FOLDER", Short: "Describe a folder", Args: arguments("FOLDER"),
		Long: "Tells who has a folder, what it is for, and how much is in it.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			f, err := c.Folder(ctx, args[0])
			if err != nil {
				return err
			}
			if e.output == outputJSON {
				return e.term.JSON(f)
			}
			return e.term.Text(folderText(f))
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"How much is in it?", "backend.ai vfolder info data"}},
	})
}

func folderText(f *client.Folder) string {
	var b strings.Builder
	b.WriteString("Virtual folder \"" + f.Name + "\" (ID: " + f.ID + ")\n")
	line := func(key, value string) {
		if value == "" {
			value = "(none)"
		}
		b.WriteString("- " + key + ": " + value + "\n")
	}
	yes := func(v bool) string { return plainCell(v) }
	used := f.UsedBytes.String()
	if used == "" {
		used = f.CurSize.String()
	}
	status := f.Status
	if f.StatusInfo != "" {
		status += " (" + f.StatusInfo + ")"
	}
	line("Owner", yes(f.IsOwner))
	line("Permission", f.Permission)
	line("Status", status)
	line("Number of files", f.Files.String())
	line("Used", sizeCell(used))
	line("Quota", quotaCell(f.MaxSize))
	line("Ownership Type", strings.TrimSpace(f.Type+" "+map[bool]string{true: "", false: f.Ownership}[f.Type != ""]))
	line("Usage Mode", f.UsageMode)
	line("Host", f.Host)
	line("Creator", f.Creator)
	line("Group ID", f.Group)
	line("User ID", f.User)
	line("Clone Allowed", yes(f.Cloneable))
	line("Created", f.CreatedAt)
	line("Last used", f.LastUsed)
	return b.String()
}

// newVFolderRenameCommand is "vfolder rename".
func newVFolderRenameCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rename FOLDER NAME", Short: "Give a folder another name", Args: arguments("FOLDER", "NAME"),
		Long: "Gives a folder another name. Sessions that have it mounted do not notice.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := backendai.ValidateFolderName(args[1]); err != nil {
				return usageError{err: err}
			}
			if err := c.RenameFolder(ctx, args[0], args[1]); err != nil {
				return err
			}
			return e.done(map[string]any{"name": args[1]}, "Folder %s is now called %s.", args[0], args[1])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"NAME", "the new name, which no other folder of yours has"}},
		examples:  [][2]string{{"A better name", "backend.ai vfolder rename data data-2026"}},
	})
}

// newVFolderUpdateCommand is "vfolder update-options".
func newVFolderUpdateCommand(e *env) *cobra.Command {
	var permission string
	var cloneable bool
	cmd := &cobra.Command{
		Use: "update-options FOLDER", Short: "Change what may be done with a folder", Args: arguments("FOLDER"),
		Long: "Changes the permission of a folder, which is the most that anyone has in it, and whether it may be copied.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := e.client()
		if err != nil {
			return err
		}
		p, b := &permission, &cloneable
		if permission == "" {
			p = nil
		}
		if !cmd.Flags().Changed("set-cloneable") {
			b = nil
		}
		if p == nil && b == nil {
			return usagef("there is nothing to change: give -p or --set-cloneable")
		}
		if err := c.UpdateFolder(cmd.Context(), args[0], p, b); err != nil {
			return err
		}
		return e.done(map[string]any{"folder": args[0]}, "The options of folder %s are changed.", args[0])
	}
	f := cmd.Flags()
	f.VarP(&choice{&permission, []string{"ro", "rw", "wd"}}, "permission", "p", "`PERMISSION`: the most that anyone has in the folder: ro, rw or wd; without it it stays")
	f.Var(&boolean{&cloneable}, "set-cloneable", "`BOOL`: whether those who have the folder may copy it: true or false; without it it stays")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"Nobody changes it any more", "backend.ai vfolder update-options -p ro data"}},
	})
}

// boolean is the value of an option that is true or false in words.
type boolean struct{ value *bool }

// String implements pflag.Value.
func (b *boolean) String() string { return "" }

// Type implements pflag.Value.
func (b *boolean) Type() string { return "string" }

// Set implements pflag.Value.
func (b *boolean) Set(text string) error {
	switch strings.ToLower(text) {
	case "true", "yes", "y", "t", "1":
		*b.value = true
	case "false", "no", "n", "f", "0":
		*b.value = false
	default:
		return usagef("it is neither true nor false")
	}
	return nil
}
