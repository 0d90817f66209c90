package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// permissionFlag adds the option for what others get in a folder.
func permissionFlag(cmd *cobra.Command, permission *string) {
	*permission = "rw"
	f := cmd.Flags()
	f.VarP(&choice{permission, []string{"ro", "rw", "wd"}}, "perm", "p", "`PERMISSION` to give: ro (read), rw (and write) or wd (and delete)")
	f.Lookup("perm").DefValue = *permission
}

// newVFolderInviteCommand is "vfolder invite".
func newVFolderInviteCommand(e *env) *cobra.Command {
	var permission string
	cmd := &cobra.Command{
		Use: "invite FOLDER EMAIL…", Short: "Share a folder of yours with other users", Args: arguments("FOLDER", "EMAIL…"),
		Long: "Invites users to a folder of yours. It is among their folders when they have accepted: 'backend.ai vfolder invitations'.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			invited, err := c.InviteToFolder(ctx, args[0], permission, args[1:])
			if err != nil {
				return err
			}
			if len(invited) == 0 {
				return e.done(map[string]any{"invited": []string{}}, "They have folder %s, or an invitation to it, already.", args[0])
			}
			return e.done(map[string]any{"invited": invited}, "Invited %s to folder %s.", strings.Join(invited, ", "), args[0])
		}),
	}
	permissionFlag(cmd, &permission)
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"EMAIL", "email of a user"}},
		examples:  [][2]string{{"Someone may read it", "backend.ai vfolder invite -p ro data bob@example.org"}},
	})
}

// newVFolderInvitationsCommand is "vfolder invitations".
func newVFolderInvitationsCommand(e *env) *cobra.Command {
	var sent bool
	var accept, decline string
	cmd := &cobra.Command{
		Use: "invitations", Short: "List and answer invitations to folders", Args: arguments(),
		Long: "Lists the invitations that wait for your answer and asks for it: accept one, reject it, or leave it. With --accept or --reject it does not ask; with --output json it only lists.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			switch {
			case accept != "":
				return e.answer(ctx, c, accept, true)
			case decline != "":
				return e.answer(ctx, c, decline, false)
			}
			list, err := c.Invitations(ctx, sent)
			if err != nil {
				return err
			}
			return e.invitations(ctx, c, list, sent)
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&sent, "sent", false, "list the invitations that you have sent and that wait for an answer")
	f.StringVar(&accept, "accept", "", "accept the invitation with the `ID`")
	f.StringVar(&decline, "reject", "", "reject the invitation with the `ID`, or take back one that you have sent")
	cmd.MarkFlagsMutuallyExclusive("sent", "accept", "reject")
	return document(cmd, manual{
		examples: [][2]string{{"Which are there, and what with them?", "backend.ai vfolder invitations"}, {"Without a question", "backend.ai vfolder invitations --accept 0f2e1d3c-4b5a-6978-8796-a5b4c3d2e1f0"}},
	})
}

func (e *env) answer(ctx context.Context, c *client.Client, id string, accept bool) error {
	if accept {
		if err := c.AcceptInvitation(ctx, id); err != nil {
			return err
		}
		return e.done(map[string]any{"id": id, "state": "accepted"}, "The invitation is accepted.")
	}
	if err := c.DeclineInvitation(ctx, id); err != nil {
		return err
	}
	return e.done(map[string]any{"id": id, "state": "rejected"}, "The invitation is rejected.")
}

// invitations shows a list and, where someone can answer, asks what to do.
func (e *env) invitations(ctx context.Context, c *client.Client, list []client.Invitation, sent bool) error {
	if e.output == outputJSON {
		return e.term.JSON(map[string]any{"count": len(list), "invitations": list})
	}
	if len(list) == 0 {
		return e.term.Text("No invitations.\n")
	}
	rows := make([][]string, len(list))
	for i, one := range list {
		who := one.Inviter
		if sent {
			who = one.Invitee
		}
		rows[i] = []string{strconv.Itoa(i + 1), one.FolderName, who, one.Permission, one.ID}
	}
	if err := e.term.Table([]string{"#", "Folder", map[bool]string{false: "From", true: "To"}[sent], "Permission", "ID"}, rows); err != nil || sent {
		return err
	}
	text, err := e.term.Ask(e.in, "Choose an invitation by its number, or nothing:")
	if err != nil || text == "" {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > len(list) {
		return backendai.Errorf(backendai.CodeInvalidParams, "there is no invitation %q", text).WithHint("give a number of the list")
	}
	text, err = e.term.Ask(e.in, "Choose: (a)ccept, (r)eject, (c)ancel:")
	if err != nil {
		return err
	}
	switch strings.ToLower(text) {
	case "a", "accept":
		return e.answer(ctx, c, list[n-1].ID, true)
	case "r", "reject":
		return e.answer(ctx, c, list[n-1].ID, false)
	}
	return nil
}

// newVFolderShareCommand is "vfolder share".
func newVFolderShareCommand(e *env) *cobra.Command {
	var permission string
	cmd := &cobra.Command{
		Use: "share FOLDER EMAIL…", Short: "Give members of a project another permission in its folder", Args: arguments("FOLDER", "EMAIL…"),
		Long: "Gives members of a project another permission in a folder of the project than the folder gives to all of them; for administrators. A folder of your own is shared with 'backend.ai vfolder invite'.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			shared, err := c.ShareFolder(ctx, args[0], permission, args[1:])
			if err != nil {
				return err
			}
			return e.done(map[string]any{"shared": shared}, "Gave %s the permission %s in folder %s.", strings.Join(shared, ", "), permission, args[0])
		}),
	}
	permissionFlag(cmd, &permission)
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"EMAIL", "email of a member of the project"}},
		examples:  [][2]string{{"One of them only reads", "backend.ai vfolder share -p ro team-data bob@example.org"}},
	})
}

// newVFolderUnshareCommand is "vfolder unshare".
func newVFolderUnshareCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unshare FOLDER EMAIL…", Short: "Take back what share gave", Args: arguments("FOLDER", "EMAIL…"),
		Long: "Takes back what 'backend.ai vfolder share' gave to members of a project: they have what the folder gives to all. For administrators.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			unshared, err := c.UnshareFolder(ctx, args[0], args[1:])
			if err != nil {
				return err
			}
			return e.done(map[string]any{"unshared": unshared}, "Took back what %s had in folder %s.", strings.Join(unshared, ", "), args[0])
		}),
	}
	return document(cmd, manual{
		arguments: [][2]string{folderArgument, {"EMAIL", "email of a member of the project"}},
		examples:  [][2]string{{"As all the others", "backend.ai vfolder unshare team-data bob@example.org"}},
	})
}

// newVFolderLeaveCommand is "vfolder leave".
func newVFolderLeaveCommand(e *env) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "leave FOLDER", Short: "Give up a folder that is shared with you", Args: arguments("FOLDER"),
		Long: "Gives up a folder that another user shares with you. With -s the owner of a folder ends the share of someone else.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.LeaveFolder(ctx, args[0], user); err != nil {
				return err
			}
			who := "You have"
			if user != "" {
				who = fmt.Sprintf("User %s has", user)
			}
			return e.done(map[string]any{"folder": args[0]}, "%s left folder %s.", who, args[0])
		}),
	}
	cmd.Flags().StringVarP(&user, "shared-user-uuid", "s", "", "`UUID` of the user whose share shall end; for owners; without it your own")
	return document(cmd, manual{
		arguments: [][2]string{folderArgument},
		examples:  [][2]string{{"No longer mine", "backend.ai vfolder leave data"}},
	})
}
