//go:build linux

package vfolder_test

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"backendai"
	"backendai/internal/vfolder"
)

// memory is a Store for tests.
type memory struct {
	mu          sync.Mutex
	folders     map[string]backendai.VFolder
	shares      []vfolder.Share
	invitations map[string]vfolder.Invitation
	users       []backendai.User
	mounted     map[string][]string // folder → sessions
	keypairs    map[string]backendai.Keypair
}

func newMemory() *memory {
	return &memory{folders: map[string]backendai.VFolder{}, invitations: map[string]vfolder.Invitation{}, mounted: map[string][]string{}, keypairs: map[string]backendai.Keypair{}}
}

// mount says which sessions have a folder.
func (m *memory) mount(folder string, sessions ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mounted[folder] = sessions
}

func trashed(f *backendai.VFolder) bool {
	return f.Status == backendai.FolderTrashed || f.Status == backendai.FolderDeleted
}

func (m *memory) put(f *backendai.VFolder) error {
	for _, other := range m.folders {
		if other.ID != f.ID && other.Name == f.Name && other.UserID == f.UserID && other.Group == f.Group && !trashed(&other) && !trashed(f) {
			return backendai.Errorf(backendai.CodeVFolderExists, "there is a folder %q already", f.Name)
		}
	}
	m.folders[f.ID] = *f
	return nil
}

func (m *memory) InsertFolder(_ context.Context, f *backendai.VFolder) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(f)
}

func (m *memory) UpdateFolder(_ context.Context, f *backendai.VFolder) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.folders[f.ID]; !ok {
		return backendai.NotFound("folder", f.ID)
	}
	return m.put(f)
}

func (m *memory) DeleteFolder(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.folders, id)
	m.shares = slices.DeleteFunc(m.shares, func(s vfolder.Share) bool { return s.FolderID == id })
	for key, i := range m.invitations {
		if i.FolderID == id {
			delete(m.invitations, key)
		}
	}
	return nil
}

func (m *memory) Folder(_ context.Context, id string) (*backendai.VFolder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.folders[id]
	if !ok {
		return nil, backendai.NotFound("folder", id)
	}
	return &f, nil
}

func (m *memory) Folders(_ context.Context, q vfolder.Query) ([]*backendai.VFolder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*backendai.VFolder
	for _, f := range m.folders {
		fits := (q.OwnerID == "" || f.UserID == q.OwnerID) && (q.Name == "" || f.Name == q.Name) && (q.Host == "" || f.Host == q.Host) &&
			(len(q.Statuses) == 0 || slices.Contains(q.Statuses, f.Status))
		if v := q.Viewer; v != nil {
			fits = fits && (f.UserID == v.ID || f.Group != "" && f.Group == v.Group && f.Domain == v.Domain ||
				slices.ContainsFunc(m.shares, func(s vfolder.Share) bool { return s.FolderID == f.ID && s.UserID == v.ID }))
		}
		if fits {
			found = append(found, &f)
		}
	}
	slices.SortFunc(found, func(a, b *backendai.VFolder) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return found, nil
}

func (m *memory) SetUsage(_ context.Context, id string, bytes, files int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.folders[id]
	if !ok {
		return backendai.NotFound("folder", id)
	}
	f.UsedBytes, f.UsedFiles = bytes, files
	m.folders[id] = f
	return nil
}

func (m *memory) SetShare(_ context.Context, s vfolder.Share) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = slices.DeleteFunc(m.shares, func(o vfolder.Share) bool { return o.FolderID == s.FolderID && o.UserID == s.UserID })
	m.shares = append(m.shares, s)
	return nil
}

func (m *memory) DeleteShare(_ context.Context, folderID, userID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = slices.DeleteFunc(m.shares, func(o vfolder.Share) bool { return o.FolderID == folderID && o.UserID == userID })
	return nil
}

func (m *memory) Shares(_ context.Context, q vfolder.ShareQuery) ([]vfolder.Share, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []vfolder.Share
	for _, s := range m.shares {
		if (q.FolderID == "" || s.FolderID == q.FolderID) && (q.UserID == "" || s.UserID == q.UserID) {
			found = append(found, s)
		}
	}
	return found, nil
}

func (m *memory) InsertInvitation(_ context.Context, i *vfolder.Invitation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.invitations[i.ID] = *i
	return nil
}

func (m *memory) UpdateInvitation(ctx context.Context, i *vfolder.Invitation) error {
	return m.InsertInvitation(ctx, i)
}

func (m *memory) Invitation(_ context.Context, id string) (*vfolder.Invitation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.invitations[id]
	if !ok {
		return nil, backendai.NotFound("invitation", id)
	}
	i.FolderName = m.folders[i.FolderID].Name
	return &i, nil
}

func (m *memory) Invitations(_ context.Context, q vfolder.InvitationQuery) ([]*vfolder.Invitation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*vfolder.Invitation
	for _, i := range m.invitations {
		if (q.FolderID == "" || i.FolderID == q.FolderID) && (q.Inviter == "" || i.Inviter == q.Inviter) && (q.Invitee == "" || i.Invitee == q.Invitee) &&
			(q.State == "" || i.State == q.State) {
			i.FolderName = m.folders[i.FolderID].Name
			found = append(found, &i)
		}
	}
	slices.SortFunc(found, func(a, b *vfolder.Invitation) int { return cmp.Compare(a.ID, b.ID) })
	return found, nil
}

func (m *memory) User(_ context.Context, id string) (*backendai.User, error) {
	for _, u := range m.users {
		if u.ID == id {
			return &u, nil
		}
	}
	return nil, backendai.NotFound("user", id)
}

func (m *memory) Keypair(_ context.Context, accessKey string) (*backendai.Keypair, error) {
	if k, ok := m.keypairs[accessKey]; ok {
		return &k, nil
	}
	return nil, backendai.NotFound("keypair", accessKey)
}

func (m *memory) UserByEmail(_ context.Context, email string) (*backendai.User, error) {
	for _, u := range m.users {
		if u.Email == email {
			return &u, nil
		}
	}
	return nil, backendai.NotFound("user", email)
}

func (m *memory) FolderSessions(_ context.Context, id string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mounted[id]), nil
}
