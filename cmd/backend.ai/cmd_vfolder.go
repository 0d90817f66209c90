package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newVFolderGroup has the commands for folders.
func newVFolderGroup(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use: "vfolder", Short: "Make, fill, share and delete folders that outlive sessions",
		Long: `Makes, fills, shares and deletes virtual folders. A folder is a place for files on the server that outlives sessions; 'backend.ai start -m NAME' mounts it at /home/work/NAME. Folders whose names begin with a dot, such as .ssh or .local, mount by themselves in every session.

A folder is named by its name or by its id.`,
	},
		newVFolderCreateCommand(e),
		newVFolderListCommand(e, "list"),
		newVFolderOwnListCommand(e, "list-own", "vfolder_own_list", "List your own folders", "Lists the folders that belong to you."),
		newVFolderOwnListCommand(e, "list-invited", "vfolder_invited_list", "List the folders that others share with you", "Lists the folders that others share with you."),
		newVFolderOwnListCommand(e, "list-project", "vfolder_project_list", "List the folders of your project", "Lists the folders that belong to your project."),
		newVFolderInfoCommand(e),
		newVFolderRenameCommand(e),
		newVFolderUpdateCommand(e),
		newVFolderUploadCommand(e),
		newVFolderDownloadCommand(e),
		newVFolderRequestDownloadCommand(e),
		newVFolderFilesCommand(e),
		newVFolderMkdirCommand(e),
		newVFolderMoveCommand(e),
		newVFolderRenameFileCommand(e),
		newVFolderRemoveCommand(e),
		newVFolderDeleteCommand(e),
		newVFolderRestoreCommand(e),
		newVFolderEraseCommand(e),
		newVFolderPurgeCommand(e),
		newVFolderCloneCommand(e),
		newVFolderInviteCommand(e),
		newVFolderInvitationsCommand(e),
		newVFolderLeaveCommand(e),
		newVFolderShareCommand(e),
		newVFolderUnshareCommand(e),
		newVFolderHostsCommand(e),
		newVFolderTypesCommand(e),
	)
}

// folderArgument describes the argument that most commands have.
var folderArgument = [2]string{"FOLDER", "name or id of the folder"}

// withFolder does something as the client.
func (e *env) withClient(do func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := e.client()
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}
}

// folderNames are the folders that the caller has.
func folderNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	return column1(c.List(ctx, client.ListRequest{Query: "vfolder_list", Fields: []string{"name"}, Limit: pageRows}))
}

// say writes the result of a command to standard output: for people a text, for
// programs the result with the thing that was changed.
func (e *env) say(item any, format string, args ...any) error {
	if e.output == outputJSON {
		return e.term.JSON(mutation(item, format, args...))
	}
	return e.term.Text(mutation(item, format, args...)["msg"].(string) + "\n") //nolint:forcetypeassert // it is made so
}

// confirmed asks whether something may be done that cannot be undone.
func (e *env) confirmed(yes bool) error {
	if yes {
		return nil
	}
	answer, err := e.term.Ask(e.in, "Are you sure? (y/n)")
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a == "y" || a == "yes" {
		return nil
	}
	e.term.Info("Cancelled")
	return exitError{code: exitFailure}
}
