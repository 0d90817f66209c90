package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newVFolderDeleteCommand is "vfolder delete".
func newVFolderDeleteCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete FOLDER", Short: "Move a folder to the trash", Args: arguments("FOLDER"),
		Long: "Moves a folder to the trash. 'backend.ai vfolder restore' brings it back, as long as it was not purged and the server's time for that has not passed. Sessions that have it mounted keep it until they end.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DeleteFolder(ctx, args[0]); err != nil {
				return err
			}
			return e.done(map[string]any{"folder": args[0]}, "Folder %s is in the trash.", args[0])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"Away, but not for good", "backend.ai vfolder delete data"}},
	})
}

// newVFolderRestoreCommand is "vfolder restore".
func newVFolderRestoreCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FOLDER", Aliases: []string{"recover"}, Short: "Bring a folder back from the trash", Args: arguments("FOLDER"),
		Long: "Brings a folder back from the trash, if no other folder of yours has its name by now.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RestoreFolder(ctx, args[0]); err != nil {
				return notHere(err)
			}
			return e.done(map[string]any{"folder": args[0]}, "Folder %s is back.", args[0])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"What is in the trash, and back with it", "backend.ai vfolder list --trash\nbackend.ai vfolder restore data"}},
	})
}

// newVFolderEraseCommand is "vfolder delete-trash".
func newVFolderEraseCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete-trash FOLDER", Short: "Delete the files of a folder in the trash", Args: arguments("FOLDER"),
		Long: "Deletes the files of a folder in the trash for good and keeps its record. It is refused while a session has the folder mounted.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.EraseFolder(ctx, args[0]); err != nil {
				return notHere(err)
			}
			return e.done(map[string]any{"folder": args[0]}, "The files of folder %s are deleted.", args[0])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"Make room", "backend.ai vfolder delete-trash data"}},
	})
}

// newVFolderPurgeCommand is "vfolder purge".
func newVFolderPurgeCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "purge FOLDER", Short: "Delete a folder in the trash for good", Args: arguments("FOLDER"),
		Long: "Deletes a folder in the trash for good, its files and its record. It is refused while a session has the folder mounted.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.PurgeFolder(ctx, args[0]); err != nil {
				return notHere(err)
			}
			return e.done(map[string]any{"folder": args[0]}, "Folder %s is gone for good.", args[0])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"Nothing shall be left", "backend.ai vfolder delete data\nbackend.ai vfolder purge data"}},
	})
}

// newVFolderCloneCommand is "vfolder clone".
func newVFolderCloneCommand(e *env) *cobra.Command {
	var r client.FolderRequest
	cmd := &cobra.Command{
		Use: "clone FOLDER NAME [HOST]", Short: "Copy a folder", Args: arguments("FOLDER", "NAME", "[HOST]"),
		Long: "Copies a folder into a new one of your own and waits until the copy is complete. The owner of the folder must have allowed it: see --cloneable of 'backend.ai vfolder create'. Ctrl+C ends the waiting only.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			r.Name = args[1]
			if len(args) > 2 {
				r.Host = args[2]
			}
			return e.clone(ctx, c, args[0], r)
		}),
	}
	folderFlags(cmd.Flags(), &r)
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"NAME", "name of the copy"}, {"HOST", "name of the storage host to keep the copy on; without it that of the folder"}},
		examples:  [][2]string{{"A copy to try things on", "backend.ai vfolder clone data data-try"}},
	})
}

func (e *env) clone(ctx context.Context, c *client.Client, from string, r client.FolderRequest) error {
	if r.Host == "" {
		original, err := c.Folder(ctx, from)
		if err != nil {
			return err
		}
		r.Host = original.Host
	}
	f, err := c.CloneFolder(ctx, from, r)
	if err != nil {
		return err
	}
	if f.TaskID != "" {
		bar := e.term.Transfer()
		end, err := c.FollowTask(ctx, f.TaskID, func(s client.TaskStep) {
			done, _ := s.Done.Int64() // what is not told is not shown
			total, _ := s.Total.Int64()
			bar.Set("copying to "+r.Name, done, total)
		})
		bar.Close()
		if err != nil {
			return err
		}
		if !end.OK {
			return backendai.Errorf(backendai.CodeVFolderFailed, "folder %s could not be copied: %s", from, end.Message)
		}
	}
	return e.done(map[string]any{"name": r.Name, "id": f.ID, "host": r.Host}, "Folder %s is copied to %s.", from, r.Name)
}

// took is how long something has taken, for people.
func took(since time.Time) string { return fmt.Sprintf("%.1fs", time.Since(since).Seconds()) }
