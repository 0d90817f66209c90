package client

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"backendai"
)

// Folder is a folder as the server describes it.
type Folder struct {
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	Host       string      `json:"host"`
	Status     string      `json:"status"`
	StatusInfo string      `json:"status_info"` // our server's
	UsageMode  string      `json:"usage_mode"`
	Permission string      `json:"permission"`
	Ownership  string      `json:"ownership_type"`
	Type       string      `json:"type"`
	User       string      `json:"user"`
	Group      string      `json:"group"`
	Creator    string      `json:"creator"`
	Cloneable  bool        `json:"cloneable"`
	IsOwner    bool        `json:"is_owner"`
	Files      json.Number `json:"numFiles"`
	UsedBytes  json.Number `json:"used_bytes"`
	CurSize    json.Number `json:"cur_size"`
	MaxSize    json.Number `json:"max_size"`
	CreatedAt  string      `json:"created_at"`
	LastUsed   string      `json:"last_used"`
	TaskID     string      `json:"bgtask_id"` // of a copy
}

// FolderRequest is what a new folder is asked to be. Zero values leave the
// server's defaults.
type FolderRequest struct {
	Name       string
	Host       string
	Group      string
	UsageMode  string
	Permission string
	Quota      string
	Cloneable  bool
}

func folderPath(ref string, more ...string) []string {
	return append([]string{"folders", ref}, more...)
}

// CreateFolder makes a folder.
func (c *Client) CreateFolder(ctx context.Context, r FolderRequest) (*Folder, error) {
	body := object{"name": r.Name, "host": nil, "group": nil, "unmanaged_path": nil, "cloneable": r.Cloneable}
	body.set("host", r.Host, r.Host != "")
	body.set("group", r.Group, r.Group != "")
	body.set("usage_mode", r.UsageMode, r.UsageMode != "")
	body.set("permission", r.Permission, r.Permission != "")
	body.set("quota", r.Quota, r.Quota != "")
	f := &Folder{}
	return f, c.read(ctx, call{method: http.MethodPost, path: []string{"folders"}, json: body}, f)
}

// Folder describes one folder by its name or id.
func (c *Client) Folder(ctx context.Context, ref string) (*Folder, error) {
	f := &Folder{}
	return f, c.read(ctx, call{method: http.MethodGet, path: folderPath(ref)}, f)
}

// TrashedFolders are the folders in the trash.
func (c *Client) TrashedFolders(ctx context.Context) ([]Folder, error) {
	var all, trashed []Folder
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"folders"}, json: object{"all": false, "trash": true}}, &all)
	for _, f := range all {
		if strings.HasPrefix(f.Status, "delete-") {
			trashed = append(trashed, f)
		}
	}
	return trashed, err
}

// RenameFolder gives a folder another name.
func (c *Client) RenameFolder(ctx context.Context, ref, name string) error {
	return c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "rename"), json: object{"new_name": name}}, nil)
}

// UpdateFolder changes the options of a folder; nil leaves them.
func (c *Client) UpdateFolder(ctx context.Context, ref string, permission *string, cloneable *bool) error {
	body := object{}
	body.set("permission", permission, permission != nil)
	body.set("cloneable", cloneable, cloneable != nil)
	return c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "update-options"), json: body}, nil)
}

// DeleteFolder moves a folder to the trash; older servers delete it at once.
func (c *Client) DeleteFolder(ctx context.Context, ref string) error {
	return c.read(ctx, call{method: http.MethodDelete, path: folderPath(ref)}, nil)
}

// The calls that older servers do not have take the folder's id, or name, in the body.

// RestoreFolder brings a folder back from the trash.
func (c *Client) RestoreFolder(ctx context.Context, ref string) error {
	return c.inTrash(ctx, "restore-from-trash-bin", ref)
}

// EraseFolder deletes the files of a folder in the trash for good.
func (c *Client) EraseFolder(ctx context.Context, ref string) error {
	return c.inTrash(ctx, "delete-from-trash-bin", ref)
}

// PurgeFolder deletes a folder in the trash for good, files and record.
func (c *Client) PurgeFolder(ctx context.Context, ref string) error {
	return c.inTrash(ctx, "purge", ref)
}

func (c *Client) inTrash(ctx context.Context, what, ref string) error {
	return c.read(ctx, call{method: http.MethodPost, path: []string{"folders", what}, json: object{"id": ref}}, nil)
}

// CloneFolder copies a folder. The copy is complete when its task, if the server
// has made one, has ended.
func (c *Client) CloneFolder(ctx context.Context, ref string, r FolderRequest) (*Folder, error) {
	body := object{"target_name": r.Name, "target_host": r.Host, "cloneable": r.Cloneable}
	body.set("usage_mode", r.UsageMode, r.UsageMode != "")
	body.set("permission", r.Permission, r.Permission != "")
	f := &Folder{}
	return f, c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "clone"), json: body}, f)
}

// FolderHosts are the storage hosts that folders may be on, and the default one.
type FolderHosts struct {
	Default string         `json:"default"`
	Allowed []string       `json:"allowed"`
	Info    map[string]any `json:"volume_info"`
}

// FolderHosts lists the storage hosts.
func (c *Client) FolderHosts(ctx context.Context) (FolderHosts, error) {
	var hosts FolderHosts
	return hosts, c.read(ctx, call{method: http.MethodGet, path: []string{"folders", "_", "hosts"}}, &hosts)
}

// FolderTypes lists what folders may belong to.
func (c *Client) FolderTypes(ctx context.Context) ([]string, error) {
	var types []string
	return types, c.read(ctx, call{method: http.MethodGet, path: []string{"folders", "_", "allowed-types"}}, &types)
}

// Invitation offers a folder to a user.
type Invitation struct {
	ID         string `json:"id"`
	Inviter    string `json:"inviter"`
	Invitee    string `json:"invitee"`
	Permission string `json:"perm"`
	State      string `json:"state"`
	CreatedAt  string `json:"created_at"`
	FolderID   string `json:"vfolder_id"`
	FolderName string `json:"vfolder_name"`
}

// InviteToFolder offers a folder to users and tells who was invited.
func (c *Client) InviteToFolder(ctx context.Context, ref, permission string, emails []string) ([]string, error) {
	var answer struct {
		Invited []string `json:"invited_ids"`
	}
	body := object{"perm": permission, "permission": permission, "user_ids": emails, "emails": emails}
	return answer.Invited, c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "invite"), json: body}, &answer)
}

// Invitations lists the invitations that wait for an answer: those to the
// caller, or those that it has sent.
func (c *Client) Invitations(ctx context.Context, sent bool) ([]Invitation, error) {
	which := "list"
	if sent {
		which = "list-sent"
	}
	var answer struct {
		Invitations []Invitation `json:"invitations"`
	}
	return answer.Invitations, c.read(ctx, call{method: http.MethodGet, path: []string{"folders", "invitations", which}}, &answer)
}

// AcceptInvitation takes an invitation.
func (c *Client) AcceptInvitation(ctx context.Context, id string) error {
	return c.read(ctx, call{method: http.MethodPost, path: []string{"folders", "invitations", "accept"}, json: object{"inv_id": id}}, nil)
}

// DeclineInvitation rejects an invitation, or takes back one that was sent.
func (c *Client) DeclineInvitation(ctx context.Context, id string) error {
	return c.read(ctx, call{method: http.MethodDelete, path: []string{"folders", "invitations", "delete"}, json: object{"inv_id": id}}, nil)
}

// ShareFolder gives members of a project another permission in its folder.
func (c *Client) ShareFolder(ctx context.Context, ref, permission string, emails []string) ([]string, error) {
	var answer struct {
		Shared []string `json:"shared_emails"`
	}
	body := object{"permission": permission, "emails": emails}
	return answer.Shared, c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "share"), json: body}, &answer)
}

// UnshareFolder takes back what ShareFolder gave.
func (c *Client) UnshareFolder(ctx context.Context, ref string, emails []string) ([]string, error) {
	var answer struct {
		Unshared []string `json:"unshared_emails"`
	}
	return answer.Unshared, c.read(ctx, call{method: http.MethodDelete, path: folderPath(ref, "unshare"), json: object{"emails": emails}}, &answer)
}

// LeaveFolder gives up a shared folder, or ends the share of another user by id.
func (c *Client) LeaveFolder(ctx context.Context, ref, user string) error {
	body := object{}
	body.set("shared_user_uuid", user, user != "")
	return c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "leave"), json: body}, nil)
}

// FolderFile is one entry of a directory in a folder.
type FolderFile struct {
	Name     string      `json:"name"`
	Type     string      `json:"type"`
	Size     json.Number `json:"size"`
	Mode     string      `json:"mode"`
	Modified string      `json:"modified"`
}

// FolderFiles lists a directory of a folder.
func (c *Client) FolderFiles(ctx context.Context, ref, path string) ([]FolderFile, error) {
	var answer struct {
		Items []FolderFile `json:"items"`
		Files string       `json:"files"` // JSON in a text: older servers have nothing else
	}
	// Older servers read the body, newer ones the query.
	k := call{method: http.MethodGet, path: folderPath(ref, "files"), query: map[string][]string{"path": {path}}, json: object{"path": path}}
	if err := c.read(ctx, k, &answer); err != nil {
		return nil, err
	}
	if answer.Items != nil || answer.Files == "" {
		return answer.Items, nil
	}
	var old []struct {
		Name     string      `json:"filename"`
		Size     json.Number `json:"size"`
		Mode     string      `json:"mode"`
		Modified float64     `json:"mtime"`
	}
	if err := json.Unmarshal([]byte(answer.Files), &old); err != nil {
		return nil, backendai.Errorf(backendai.CodeInternal, "the server's list of files is not what the protocol says: %w", err)
	}
	for _, f := range old {
		kind := "FILE"
		if strings.HasPrefix(f.Mode, "d") {
			kind = "DIRECTORY"
		}
		answer.Items = append(answer.Items, FolderFile{f.Name, kind, f.Size, f.Mode, stampOf(f.Modified)})
	}
	return answer.Items, nil
}

// MakeFolderDirs makes directories in a folder; failed tells what is wrong with
// each that was not made.
func (c *Client) MakeFolderDirs(ctx context.Context, ref string, paths []string, parents, existOK bool) (failed map[string]string, err error) {
	var path any = paths
	if len(paths) == 1 {
		path = paths[0] // what the oldest servers take
	}
	var answer struct {
		Results struct {
			Failed []struct{ Msg, Item string } `json:"failed"`
		} `json:"results"`
	}
	resp, err := c.do(ctx, call{method: http.MethodPost, path: folderPath(ref, "mkdir"), json: object{"path": path, "parents": parents, "exist_ok": existOK}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	failed = map[string]string{}
	// Older servers answer with a text.
	if json.NewDecoder(resp.Body).Decode(&answer) == nil {
		for _, f := range answer.Results.Failed {
			failed[f.Item] = f.Msg
		}
	}
	return failed, nil
}

// RenameFolderFile gives a file another name in its directory.
func (c *Client) RenameFolderFile(ctx context.Context, ref, path, name string) error {
	return c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "rename-file"), json: object{"target_path": path, "new_name": name}}, nil)
}

// MoveFolderFile moves a file or directory in a folder.
func (c *Client) MoveFolderFile(ctx context.Context, ref, src, dst string) error {
	return c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "move-file"), json: object{"src": src, "dst": dst}}, nil)
}

// RemoveFolderFiles deletes files, with recursive also directories.
func (c *Client) RemoveFolderFiles(ctx context.Context, ref string, paths []string, recursive bool) error {
	body := object{"files": paths, "recursive": recursive}
	err := c.read(ctx, call{method: http.MethodDelete, path: folderPath(ref, "delete-files"), json: body}, nil)
	if backendai.CodeOf(err) == backendai.CodeMethod || backendai.CodeOf(err) == backendai.CodeURLNotFound {
		err = c.read(ctx, call{method: http.MethodPost, path: folderPath(ref, "delete-files"), json: body}, nil)
	}
	return err
}
