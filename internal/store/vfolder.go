package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"backendai"
	"backendai/internal/vfolder"
)

var _ vfolder.Store = (*Store)(nil)

const (
	folderColumns = `name, host, domain_name, user_id, group_name, creator, usage_mode, permission, cloneable, max_size, status, status_info,
		created_at, last_used, trashed_at, used_bytes, used_files`
	selectFolder     = "SELECT id, " + folderColumns + " FROM vfolders"
	insertFolder     = "INSERT INTO vfolders (" + folderColumns + ", named, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	updateFolder     = "UPDATE vfolders SET (" + folderColumns + ", named) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?"
	selectInvitation = `SELECT i.id, folder_id, name, inviter, invitee, i.permission, state, i.created_at, modified_at
		FROM vfolder_invitations AS i JOIN vfolders ON vfolders.id = folder_id`
)

// InsertFolder implements vfolder.Store.
func (s *Store) InsertFolder(ctx context.Context, f *backendai.VFolder) error {
	return s.putFolder(ctx, insertFolder, f)
}

// UpdateFolder implements vfolder.Store.
func (s *Store) UpdateFolder(ctx context.Context, f *backendai.VFolder) error {
	return s.putFolder(ctx, updateFolder, f)
}

func (s *Store) putFolder(ctx context.Context, query string, f *backendai.VFolder) error {
	defer s.wrote()
	named := f.Status != backendai.FolderTrashed && f.Status != backendai.FolderDeleted
	done, err := s.writer.ExecContext(ctx, query, f.Name, f.Host, f.Domain, f.UserID, f.Group, f.Creator, f.UsageMode, f.Permission, f.Cloneable, f.MaxSize,
		f.Status, f.StatusInfo, nanoseconds(f.CreatedAt), nanoseconds(f.LastUsed), nanoseconds(f.TrashedAt), f.UsedBytes, f.UsedFiles, named, f.ID)
	if unique(err) {
		return &backendai.Error{Code: backendai.CodeVFolderExists, Title: "there is a folder \"" + f.Name + "\" already", Hint: "choose another name", Err: err}
	}
	return one(done, err, "folder", f.ID)
}

// DeleteFolder implements vfolder.Store.
func (s *Store) DeleteFolder(ctx context.Context, id string) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "DELETE FROM vfolders WHERE id = ?", id)
	return one(done, err, "folder", id)
}

// SetUsage implements vfolder.Store.
func (s *Store) SetUsage(ctx context.Context, id string, bytes, files int64) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "UPDATE vfolders SET used_bytes = ?, used_files = ? WHERE id = ?", bytes, files, id)
	return one(done, err, "folder", id)
}

// Folder implements vfolder.Store.
func (s *Store) Folder(ctx context.Context, id string) (*backendai.VFolder, error) {
	f, err := scanFolder(s.reader.QueryRowContext(ctx, selectFolder+" WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, backendai.NotFound("folder", id)
	}
	if err != nil {
		return nil, failed("read folder "+id, err)
	}
	return f, nil
}

func scanFolder(row scanner) (*backendai.VFolder, error) {
	f := &backendai.VFolder{}
	var created, used, trashed sql.NullInt64
	err := row.Scan(&f.ID, &f.Name, &f.Host, &f.Domain, &f.UserID, &f.Group, &f.Creator, &f.UsageMode, &f.Permission, &f.Cloneable, &f.MaxSize,
		&f.Status, &f.StatusInfo, &created, &used, &trashed, &f.UsedBytes, &f.UsedFiles)
	f.CreatedAt, f.LastUsed, f.TrashedAt = moment(created), moment(used), moment(trashed)
	return f, err
}

// conditions are the parts of a WHERE and their values.
type conditions struct {
	parts []string
	args  []any
}

func (c *conditions) add(part string, values ...any) {
	c.parts, c.args = append(c.parts, part), append(c.args, values...)
}

// equal restricts a column to a value that is not empty.
func (c *conditions) equal(column, value string) {
	if value != "" {
		c.add(column+" = ?", value)
	}
}

func (c *conditions) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

// Folders implements vfolder.Store.
func (s *Store) Folders(ctx context.Context, q vfolder.Query) ([]*backendai.VFolder, error) {
	var c conditions
	if v := q.Viewer; v != nil {
		c.add(`id IN (SELECT id FROM vfolders WHERE user_id = ? AND user_id <> ''
			UNION SELECT id FROM vfolders WHERE group_name = ? AND domain_name = ? AND group_name <> ''
			UNION SELECT folder_id FROM vfolder_shares WHERE user_id = ?)`, v.ID, v.Group, v.Domain, v.ID)
	}
	c.equal("user_id", q.OwnerID)
	c.equal("name", q.Name)
	c.equal("host", q.Host)
	if len(q.Statuses) > 0 {
		values := make([]any, len(q.Statuses))
		for i, status := range q.Statuses {
			values[i] = status
		}
		c.add("status IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
	}
	return all(ctx, s.reader, "folders", scanFolder, selectFolder+c.where()+" ORDER BY name, created_at, id", c.args...)
}

// SetShare implements vfolder.Store.
func (s *Store) SetShare(ctx context.Context, one vfolder.Share) error {
	defer s.wrote()
	_, err := s.writer.ExecContext(ctx, `INSERT INTO vfolder_shares (folder_id, user_id, permission, created_at) VALUES (?, ?, ?, ?)
		ON CONFLICT (folder_id, user_id) DO UPDATE SET permission = excluded.permission`, one.FolderID, one.UserID, one.Permission, nanoseconds(one.CreatedAt))
	if err != nil {
		return failed("share folder "+one.FolderID, err)
	}
	return nil
}

// DeleteShare implements vfolder.Store.
func (s *Store) DeleteShare(ctx context.Context, folderID, userID string) error {
	defer s.wrote()
	if _, err := s.writer.ExecContext(ctx, "DELETE FROM vfolder_shares WHERE folder_id = ? AND user_id = ?", folderID, userID); err != nil {
		return failed("end share of folder "+folderID, err)
	}
	return nil
}

// Shares implements vfolder.Store.
func (s *Store) Shares(ctx context.Context, q vfolder.ShareQuery) ([]vfolder.Share, error) {
	var c conditions
	c.equal("folder_id", q.FolderID)
	c.equal("user_id", q.UserID)
	found, err := all(ctx, s.reader, "shares", scanShare, "SELECT folder_id, user_id, permission, created_at FROM vfolder_shares"+c.where()+" ORDER BY folder_id, user_id", c.args...)
	shares := make([]vfolder.Share, len(found))
	for i, one := range found {
		shares[i] = *one
	}
	return shares, err
}

func scanShare(row scanner) (*vfolder.Share, error) {
	one := &vfolder.Share{}
	var created sql.NullInt64
	err := row.Scan(&one.FolderID, &one.UserID, &one.Permission, &created)
	one.CreatedAt = moment(created)
	return one, err
}

// InsertInvitation implements vfolder.Store.
func (s *Store) InsertInvitation(ctx context.Context, i *vfolder.Invitation) error {
	defer s.wrote()
	_, err := s.writer.ExecContext(ctx, `INSERT INTO vfolder_invitations (id, folder_id, inviter, invitee, permission, state, created_at, modified_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, i.ID, i.FolderID, i.Inviter, i.Invitee, i.Permission, i.State, nanoseconds(i.CreatedAt), nanoseconds(i.ModifiedAt))
	if err != nil {
		return failed("write invitation "+i.ID, err)
	}
	return nil
}

// UpdateInvitation implements vfolder.Store.
func (s *Store) UpdateInvitation(ctx context.Context, i *vfolder.Invitation) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "UPDATE vfolder_invitations SET permission = ?, state = ?, modified_at = ? WHERE id = ?",
		i.Permission, i.State, nanoseconds(i.ModifiedAt), i.ID)
	return one(done, err, "invitation", i.ID)
}

// Invitation implements vfolder.Store.
func (s *Store) Invitation(ctx context.Context, id string) (*vfolder.Invitation, error) {
	i, err := scanInvitation(s.reader.QueryRowContext(ctx, selectInvitation+" WHERE i.id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, backendai.NotFound("invitation", id)
	}
	if err != nil {
		return nil, failed("read invitation "+id, err)
	}
	return i, nil
}

// Invitations implements vfolder.Store.
func (s *Store) Invitations(ctx context.Context, q vfolder.InvitationQuery) ([]*vfolder.Invitation, error) {
	var c conditions
	c.equal("folder_id", q.FolderID)
	c.equal("inviter", q.Inviter)
	c.equal("invitee", q.Invitee)
	c.equal("state", string(q.State))
	return all(ctx, s.reader, "invitations", scanInvitation, selectInvitation+c.where()+" ORDER BY i.created_at, i.id", c.args...)
}

func scanInvitation(row scanner) (*vfolder.Invitation, error) {
	i := &vfolder.Invitation{}
	var created, modified sql.NullInt64
	err := row.Scan(&i.ID, &i.FolderID, &i.FolderName, &i.Inviter, &i.Invitee, &i.Permission, &i.State, &created, &modified)
	i.CreatedAt, i.ModifiedAt = moment(created), moment(modified)
	return i, err
}

// FolderSessions implements vfolder.Store.
func (s *Store) FolderSessions(ctx context.Context, folderID string) ([]string, error) {
	found, err := all(ctx, s.reader, "sessions", scanName, `SELECT name FROM sessions WHERE live AND EXISTS
		(SELECT 1 FROM json_each(detail, '$.mounts') WHERE json_extract(value, '$.folder_id') = ?) ORDER BY created_at`, folderID)
	names := make([]string, len(found))
	for i, name := range found {
		names[i] = *name
	}
	return names, err
}

func scanName(row scanner) (*string, error) {
	var name string
	err := row.Scan(&name)
	return &name, err
}
