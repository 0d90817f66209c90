package api

import (
	"net/http"

	"backendai"
	"backendai/internal/vfolder"
)

// emails are the users that a call names, under all names.
func (c *call) emails() []string { return c.texts("emails", "user_ids", "userIDs", "userIds") }

func (h *Handler) inviteToFolder(c *call) error {
	permission, emails := c.permission(backendai.ReadWrite, "perm", "permission"), c.emails()
	if err := c.err(); err != nil {
		return err
	}
	invited, err := h.opts.Folders.Invite(c.r.Context(), c.caller, c.path["folder"], permission, emails)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, map[string]any{"invited_ids": nonNil(invited)})
}

// invitations lists those that the caller got, or those that it has sent.
func (h *Handler) invitations(sent bool) func(*call) error {
	return func(c *call) error {
		found, err := h.opts.Folders.Invitations(c.r.Context(), c.caller, sent)
		if err != nil {
			return err
		}
		list := make([]map[string]any, 0, len(found))
		for _, i := range found {
			list = append(list, invitationData(i))
		}
		return c.json(http.StatusOK, map[string]any{"invitations": list})
	}
}

func invitationData(i *vfolder.Invitation) map[string]any {
	return map[string]any{
		"id": i.ID, "inviter": i.Inviter, "invitee": i.Invitee, "perm": i.Permission, "state": i.State,
		"created_at": stamp(i.CreatedAt), "modified_at": stamp(i.ModifiedAt), "vfolder_id": i.FolderID, "vfolder_name": i.FolderName,
	}
}

func (h *Handler) acceptInvitation(c *call) error {
	id := c.required("inv_id", "invId", "id")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Folders.Accept(c.r.Context(), c.caller, id); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{})
}

func (h *Handler) declineInvitation(c *call) error {
	id := c.required("inv_id", "invId", "id")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Folders.Decline(c.r.Context(), c.caller, id); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{})
}

func (h *Handler) shareFolder(c *call) error {
	permission, emails := c.permission(backendai.ReadWrite, "permission", "perm"), c.emails()
	if err := c.err(); err != nil {
		return err
	}
	shared, err := h.opts.Folders.Share(c.r.Context(), c.caller, c.path["folder"], permission, emails)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, map[string]any{"shared_emails": nonNil(shared)})
}

func (h *Handler) unshareFolder(c *call) error {
	emails := c.emails()
	if err := c.err(); err != nil {
		return err
	}
	unshared, err := h.opts.Folders.Unshare(c.r.Context(), c.caller, c.path["folder"], emails)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"unshared_emails": nonNil(unshared)})
}

func (h *Handler) leaveFolder(c *call) error {
	user := c.text("", "shared_user_uuid", "sharedUserUuid")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Folders.Leave(c.r.Context(), c.caller, c.path["folder"], user); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"msg": "left the shared vfolder"})
}
