package main

import "github.com/spf13/cobra"

// newSessionGroup has the session commands by their full names.
func newSessionGroup(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use: "session", Short: "Start, list, use and remove sessions",
		Long: "Starts, lists, uses and removes sessions. The commands that are needed most exist without the word session too.",
	},
		newStartCommand(e, "create", "start"),
		newAppCommand(e, "app"),
		newAppsCommand(e, "apps"),
		newSessionListCommand(e, "list", "ps"),
		newSessionInfoCommand(e, "info"),
		newSessionRemoveCommand(e, "destroy", "rm", "kill", "terminate"),
		newSessionRestartCommand(e, "restart"),
		newSessionRenameCommand(e, "rename"),
		newSessionLogsCommand(e, "logs"),
		newEventsCommand(e, "events"),
		newUploadCommand(e, "upload"),
		newDownloadCommand(e, "download"),
		newSessionFilesCommand(e, "ls"),
		newSSHCommand(e, "ssh"),
		newSCPCommand(e, "scp"),
		newSFTPCommand(e, "sftp"),
		newTerminalsCommand(e, "terminals"),
	)
}

// newImageGroup has the commands for the images on the server's machine.
func newImageGroup(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use: "image", Short: "Get, list and remove the images on the server's machine",
		Long: "Gets, lists and removes images. They belong to the server: what is pulled, imported or built is there for every user. All but the list is for superadmins.",
	},
		newImagePullCommand(e),
		newImageImportCommand(e),
		newImageBuildCommand(e),
		newImageListCommand(e),
		newImageRemoveCommand(e),
	)
}

// newAdminGroup has the commands for administrators.
func newAdminGroup(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use: "admin", Short: "Manage users, keypairs, images and machines",
		Long: "Manages what belongs to all users. Most of it is for superadmins; the lists show other users what is their own.",
	},
		group(&cobra.Command{Use: "session", Short: "List sessions of all users", Long: "Lists the sessions of all users."},
			newSessionListCommand(e, "list"),
			newSessionInfoCommand(e, "info"),
		),
		group(&cobra.Command{Use: "image", Short: "List images and give them names", Long: "Lists images and gives them other names."},
			newImageListCommand(e),
			newImageRescanCommand(e),
			newImageAliasCommand(e),
			newImageDealiasCommand(e),
		),
		group(&cobra.Command{Use: "user", Short: "Add, list and change users", Long: "Adds, lists and changes users."},
			newUserAddCommand(e),
			newUserListCommand(e),
			newUserInfoCommand(e),
			newUserUpdateCommand(e),
		),
		group(&cobra.Command{
			Use: "keypair", Short: "Add, list, activate and delete keypairs",
			Long: "Manages keypairs: an access key, which names its user, and the secret key that signs requests. A user may have several.",
		},
			newKeypairInfoCommand(e),
			newKeypairListCommand(e),
			newKeypairAddCommand(e),
			newKeypairActivateCommand(e, true),
			newKeypairActivateCommand(e, false),
			newKeypairDeleteCommand(e),
		),
		group(&cobra.Command{Use: "vfolder", Short: "List the folders of all users", Long: "Lists the folders of all users, and the storage hosts."},
			newVFolderListCommand(e, "list"),
			newVFolderHostsCommand(e),
		),
		group(&cobra.Command{Use: "agent", Short: "List the machines that run sessions", Long: "Lists the machines that run sessions."},
			newAgentListCommand(e),
			newAgentInfoCommand(e),
		),
	)
}
