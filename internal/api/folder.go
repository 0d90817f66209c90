package api

import (
	"cmp"
	"net/http"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

// folderData is a folder on the wire (API section 7.2). Its name appears under
// all keys that the generations of clients read.
func folderData(v vfolder.View) map[string]any {
	ownership, user, userEmail, group := "user", any(v.UserID), any(v.Creator), any(nil)
	if v.Group != "" {
		ownership, user, userEmail, group = "group", nil, nil, v.Group
	}
	return map[string]any{
		"id": v.Hex(), "name": v.Name, "host": v.Host, "status": v.Status, "status_info": v.StatusInfo, "usage_mode": v.UsageMode,
		"created_at": stamp(v.CreatedAt), "is_owner": v.Owner, "permission": v.Effective, "user": user, "group": group,
		"creator": v.Creator, "user_email": userEmail, "group_name": group, "ownership_type": ownership, "type": ownership,
		"cloneable": v.Cloneable, "max_files": 0, "max_size": v.MaxSize, "cur_size": v.UsedBytes,
		"quota_scope_id": ownership + ":" + cmp.Or(v.UserID, v.Group), "unmanaged_path": nil,
	}
}

// createFolder makes a folder on the named host or on the default one.
func (h *Handler) createFolder(c *call) error {
	req := vfolder.CreateRequest{
		Name: c.required("name"), Host: c.text("", "host", "folder_host", "vfolder_host"), Group: c.text("", "group", "group_id", "groupId"),
		UsageMode: c.usageMode(backendai.UsageGeneral), Permission: c.permission(backendai.ReadWrite, "permission", "perm"),
		Cloneable: c.flag(false, "cloneable"), MaxSize: c.size("quota", "max_size"),
	}
	if c.text("", "unmanaged_path", "unmanagedPath") != "" {
		c.fault("unmanaged_path", "folders outside of the storage hosts are not supported")
	}
	if err := c.err(); err != nil {
		return err
	}
	v, err := h.opts.Folders.Create(c.r.Context(), c.caller, req)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, folderData(v))
}

// permission reads a permission; absent is what is given.
func (p *params) permission(otherwise backendai.Permission, names ...string) backendai.Permission {
	text := p.text(string(otherwise), names...)
	permission, err := backendai.ParsePermission(text)
	if err != nil {
		p.fault(names[0], "is none of ro, rw and wd")
	}
	return permission
}

func (p *params) usageMode(otherwise backendai.UsageMode) backendai.UsageMode {
	mode, err := backendai.ParseUsageMode(p.text(string(otherwise), "usage_mode", "usageMode"))
	if err != nil {
		p.fault("usage_mode", "is none of general, model and data")
	}
	return mode
}

// size reads a number of bytes; absent is none.
func (p *params) size(names ...string) int64 {
	n, err := backendai.ParseSize(p.text("0", names...))
	if err != nil {
		p.fault(names[0], "is not a size such as 512m or 4g")
	}
	return n
}

func (h *Handler) listFolders(c *call) error {
	q := vfolder.ListQuery{
		All: c.flag(false, "all"), Group: c.text("", "group_id", "groupId", "group"), Owner: c.text("", "owner_user_email", "ownerUserEmail"),
		Trash: c.flag(false, "trash"),
	}
	if err := c.err(); err != nil {
		return err
	}
	views, err := h.opts.Folders.List(c.r.Context(), c.caller, q)
	if err != nil {
		return err
	}
	list := make([]map[string]any, 0, len(views))
	for _, v := range views {
		list = append(list, folderData(v))
	}
	return c.json(http.StatusOK, list)
}

func (h *Handler) folderInfo(c *call) error {
	v, err := h.opts.Folders.Find(c.r.Context(), c.caller, c.path["folder"])
	if err != nil {
		return err
	}
	data := folderData(v)
	for key, value := range map[string]any{
		"numFiles": v.UsedFiles, "num_files": v.UsedFiles, "used_bytes": v.UsedBytes, "created": stamp(v.CreatedAt), "last_used": stamp(v.LastUsed),
	} {
		data[key] = value
	}
	return c.json(http.StatusOK, data)
}

// folderID finds the id of a name, which newer clients ask for first.
func (h *Handler) folderID(c *call) error {
	name := c.required("name", "vfolder_name")
	if err := c.err(); err != nil {
		return err
	}
	v, err := h.opts.Folders.Find(c.r.Context(), c.caller, name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"id": v.Hex(), "name": v.Name})
}

// folderRef is the folder that a path or a parameter names.
func (c *call) folderRef() string {
	if ref := c.path["folder"]; ref != "" {
		return ref
	}
	return c.required("id", "vfolder_id", "vfolderId", "name")
}

// onFolder does something with a folder that has no answer of its own.
func (h *Handler) onFolder(status int, do func(c *call, ref string) error) func(*call) error {
	return func(c *call) error {
		ref := c.folderRef()
		if err := c.err(); err != nil {
			return err
		}
		if err := do(c, ref); err != nil {
			return err
		}
		if status == http.StatusNoContent {
			return c.noContent()
		}
		return c.json(status, map[string]any{})
	}
}

func (h *Handler) trashFolder(c *call, ref string) error {
	return h.opts.Folders.Trash(c.r.Context(), c.caller, ref)
}

func (h *Handler) restoreFolder(c *call, ref string) error {
	return h.opts.Folders.Restore(c.r.Context(), c.caller, ref)
}

func (h *Handler) eraseFolder(c *call, ref string) error {
	return h.opts.Folders.Erase(c.r.Context(), c.caller, ref)
}

func (h *Handler) purgeFolder(c *call, ref string) error {
	return h.opts.Folders.Purge(c.r.Context(), c.caller, ref)
}

// forceFolder deletes a folder for good at once, also one that is not in the trash.
func (h *Handler) forceFolder(c *call, ref string) error {
	v, err := h.opts.Folders.Find(c.r.Context(), c.caller, ref)
	if err != nil {
		return err
	}
	if v.Status != backendai.FolderTrashed && v.Status != backendai.FolderDeleted {
		if err := h.opts.Folders.Trash(c.r.Context(), c.caller, v.ID); err != nil {
			return err
		}
	}
	return h.opts.Folders.Purge(c.r.Context(), c.caller, v.ID)
}

func (h *Handler) renameFolder(c *call, ref string) error {
	name := c.required("new_name", "newName")
	if err := c.err(); err != nil {
		return err
	}
	return h.opts.Folders.Rename(c.r.Context(), c.caller, ref, name)
}

func (h *Handler) updateFolder(c *call, ref string) error {
	var u vfolder.Update
	if _, _, ok := c.raw([]string{"cloneable"}); ok {
		cloneable := c.flag(false, "cloneable")
		u.Cloneable = &cloneable
	}
	if _, _, ok := c.raw([]string{"permission", "perm"}); ok {
		permission := c.permission("", "permission", "perm")
		u.Permission = &permission
	}
	if _, _, ok := c.raw([]string{"quota", "max_size"}); ok {
		size := c.size("quota", "max_size")
		u.MaxSize = &size
	}
	if err := c.err(); err != nil {
		return err
	}
	return h.opts.Folders.Update(c.r.Context(), c.caller, ref, u)
}

// cloneFolder copies a folder in the background: the task tells how far it is.
func (h *Handler) cloneFolder(c *call) error {
	req := vfolder.CloneRequest{
		Name: c.required("target_name", "targetName"), Host: c.text("", "target_host", "targetHost"),
		UsageMode: c.usageMode(backendai.UsageGeneral), Permission: c.permission(backendai.ReadWrite, "permission", "perm"), Cloneable: c.flag(false, "cloneable"),
	}
	if err := c.err(); err != nil {
		return err
	}
	v, task, err := h.opts.Folders.Clone(c.r.Context(), c.caller, c.path["folder"], req)
	if err != nil {
		return err
	}
	data := folderData(v)
	data["bgtask_id"] = task
	return c.json(http.StatusCreated, data)
}

// spaceTime bounds how long a list of storage hosts waits for one of them.
const spaceTime = time.Second

// folderHosts lists the storage hosts, and how full they are.
func (h *Handler) folderHosts(c *call) error {
	names, standard := h.opts.Folders.Hosts()
	info := map[string]any{}
	for _, name := range names {
		usage := map[string]any{"percentage": nil}
		if free, total, err := h.space(c, name); err == nil && total > 0 {
			usage = map[string]any{"percentage": float64(total-free) * 100 / float64(total), "free_bytes": free, "total_bytes": total}
		}
		info[name] = map[string]any{"backend": "vfs", "capabilities": []string{"vfolder"}, "usage": usage, "sftp_scaling_groups": []string{}}
	}
	return c.json(http.StatusOK, map[string]any{"default": standard, "allowed": names, "volume_info": info})
}

func (h *Handler) folderTypes(c *call) error {
	return c.json(http.StatusOK, []string{"user", "group"})
}
