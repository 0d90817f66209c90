package vfolder

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"backendai"
)

// CreateRequest is what a new folder is asked to be.
type CreateRequest struct {
	Name       string
	Host       string // empty is the default host
	Group      string // the project that shall own it; empty makes it the caller's own
	UsageMode  backendai.UsageMode
	Permission backendai.Permission
	Cloneable  bool
	MaxSize    int64 // bytes; 0 is no limit of its own
}

// Create makes an empty folder.
func (s *Service) Create(ctx context.Context, caller backendai.Caller, req CreateRequest) (View, error) {
	f, err := s.draft(caller, req)
	if err != nil {
		return View{}, err
	}
	if err := s.insert(ctx, caller, f); err != nil {
		return View{}, err
	}
	v, _, err := s.view(ctx, caller, f)
	return v, err
}

// insert makes the directory and the record of a new folder.
func (s *Service) insert(ctx context.Context, caller backendai.Caller, f *backendai.VFolder) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.mayOwn(ctx, caller, f); err != nil {
		return err
	}
	dir, err := s.folderDir(ctx, f)
	if err != nil {
		return err
	}
	if err := s.makeDir(ctx, dir, f); err != nil {
		return err
	}
	if err := s.store.InsertFolder(ctx, f); err != nil {
		s.discard(f.Host, dir)
		return err
	}
	s.log.Info("folder is made", "vfolder", f.ID, "name", f.Name, "host", f.Host, "user", caller.User.Email)
	return nil
}

// draft checks a request and makes a record of it.
func (s *Service) draft(caller backendai.Caller, req CreateRequest) (*backendai.VFolder, error) {
	if err := backendai.ValidateFolderName(req.Name); err != nil {
		return nil, err
	}
	host := cmp.Or(req.Host, s.opts.DefaultHost)
	if _, ok := s.opts.Hosts[host]; !ok {
		names, _ := s.Hosts()
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "there is no storage host %q", host).
			WithHint("the storage hosts are: %s", strings.Join(names, ", "))
	}
	switch {
	case req.MaxSize < 0:
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the quota %d is less than nothing", req.MaxSize)
	case s.opts.FolderQuota > 0 && req.MaxSize > s.opts.FolderQuota && !caller.Superadmin():
		return nil, backendai.Errorf(backendai.CodeQuota, "a folder may hold %s at most", backendai.FormatSize(s.opts.FolderQuota)).
			WithHint("ask for less, or ask the administrator for more")
	}
	f := &backendai.VFolder{
		ID: uuid.NewString(), Name: req.Name, Host: host, Domain: caller.User.Domain, Creator: caller.User.Email,
		UsageMode: cmp.Or(req.UsageMode, backendai.UsageGeneral), Permission: cmp.Or(req.Permission, backendai.ReadWrite),
		Cloneable: req.Cloneable, MaxSize: req.MaxSize, Status: backendai.FolderReady, CreatedAt: s.now().UTC(),
	}
	if req.Group == "" {
		f.UserID = caller.User.ID
		return f, nil
	}
	switch {
	case req.Group != caller.User.Group:
		return nil, backendai.NotFound("project", req.Group).WithHint("your project is %q", caller.User.Group)
	case caller.User.Role != backendai.RoleAdmin && caller.User.Role != backendai.RoleSuperadmin:
		return nil, backendai.Errorf(backendai.CodeForbidden, "only administrators may make folders of a project").
			WithHint("without -g the folder is your own; share it with 'backend.ai vfolder invite'")
	case f.Hidden() && f.Name != ".local":
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "a folder of a project cannot be called %q", f.Name).
			WithHint("names that begin with a dot are for users' own folders, and .local for projects")
	}
	f.Group = req.Group
	return f, nil
}

// mayOwn refuses a folder whose name the caller has already, and one too many.
func (s *Service) mayOwn(ctx context.Context, caller backendai.Caller, f *backendai.VFolder) error {
	if err := s.nameIsFree(ctx, caller, f.Name, f.ID); err != nil {
		return err
	}
	if f.UserID == "" || s.opts.MaxFolders == 0 {
		return nil
	}
	owned, err := s.store.Folders(ctx, Query{OwnerID: f.UserID, Statuses: append(slices.Clone(live), backendai.FolderTrashed)})
	if err != nil {
		return err
	}
	if len(owned) >= s.opts.MaxFolders {
		return backendai.Errorf(backendai.CodeQuota, "you have %d folders, which is as many as you may have", len(owned)).
			WithHint("purge one from the trash with 'backend.ai vfolder purge', or ask the administrator")
	}
	return nil
}

// nameIsFree refuses a name that stands for another folder the caller sees.
func (s *Service) nameIsFree(ctx context.Context, caller backendai.Caller, name, id string) error {
	taken, err := s.visible(ctx, caller, name, live...)
	if err != nil {
		return err
	}
	for _, v := range taken {
		if v.ID != id {
			return backendai.Errorf(backendai.CodeVFolderExists, "there is a folder %q already", name).
				WithHint("choose another name").WithData(map[string]any{"id": v.ID})
		}
	}
	return nil
}

// ListQuery selects the folders of a list.
type ListQuery struct {
	All   bool   // of all users; for superadmins
	Group string // of one project
	Owner string // email of the owner; for superadmins
	Trash bool   // also those in the trash
}

// List shows the folders that the caller may see.
func (s *Service) List(ctx context.Context, caller backendai.Caller, q ListQuery) ([]View, error) {
	query := Query{Viewer: &caller.User, Statuses: slices.Clone(live)}
	if q.Trash {
		query.Statuses = append(query.Statuses, backendai.FolderTrashed, backendai.FolderDeleted)
	}
	everyone := q.All && caller.Superadmin()
	if everyone {
		query.Viewer = nil
	}
	if q.Owner != "" && q.Owner != caller.User.Email {
		owner, err := s.store.UserByEmail(ctx, q.Owner)
		if err != nil || !caller.Superadmin() {
			return nil, backendai.NotFound("user", q.Owner)
		}
		everyone, query.Viewer, query.OwnerID = true, nil, owner.ID
	}
	folders, err := s.store.Folders(ctx, query)
	if err != nil {
		return nil, err
	}
	views := make([]View, 0, len(folders))
	for _, f := range folders {
		v, ok, err := s.view(ctx, caller, f)
		switch {
		case err != nil:
			return nil, err
		case !ok && everyone:
			v = View{VFolder: f, Effective: f.Permission}
		case !ok:
			continue
		}
		if q.Group == "" || v.Group == q.Group {
			views = append(views, v)
		}
	}
	return views, nil
}

// Find is one folder with its usage, which is measured when that takes no long time.
func (s *Service) Find(ctx context.Context, caller backendai.Caller, ref string) (View, error) {
	v, err := s.find(ctx, caller, ref, append(slices.Clone(live), backendai.FolderTrashed, backendai.FolderDeleted)...)
	if backendai.CodeOf(err) == backendai.CodeTooManyVFolders {
		v, err = s.find(ctx, caller, ref) // the one that is not in the trash
	}
	if err != nil {
		return View{}, err
	}
	if v.Status == backendai.FolderReady {
		s.remeasure(ctx, v.VFolder)
	}
	return v, nil
}

// change reads a folder's record anew, changes it and writes it back.
func (s *Service) change(ctx context.Context, id string, edit func(*backendai.VFolder) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	f, err := s.store.Folder(ctx, id)
	if err != nil {
		return err
	}
	if err := edit(f); err != nil {
		return err
	}
	return s.store.UpdateFolder(ctx, f)
}

// Rename gives a folder another name.
func (s *Service) Rename(ctx context.Context, caller backendai.Caller, ref, name string) error {
	if err := backendai.ValidateFolderName(name); err != nil {
		return err
	}
	v, err := s.managed(ctx, caller, ref)
	if err != nil {
		return err
	}
	if v.Group != "" && strings.HasPrefix(name, ".") && name != ".local" {
		return backendai.Errorf(backendai.CodeInvalidParams, "a folder of a project cannot be called %q", name)
	}
	if strings.HasPrefix(name, ".") {
		shares, err := s.store.Shares(ctx, ShareQuery{FolderID: v.ID})
		if err != nil {
			return err
		}
		if len(shares) > 0 {
			return backendai.Errorf(backendai.CodeVFolderFailed, "the folder %q is shared, and shared folders cannot have a name that begins with a dot", v.Name).
				WithHint("such a folder would mount by itself in the sessions of others; end the shares first")
		}
	}
	return s.change(ctx, v.ID, func(f *backendai.VFolder) error {
		if err := s.nameIsFree(ctx, caller, name, f.ID); err != nil {
			return err
		}
		f.Name = name
		return nil
	})
}

// Update is what can be changed of a folder; nil leaves it as it is.
type Update struct {
	Cloneable  *bool
	Permission *backendai.Permission
	MaxSize    *int64 // for superadmins
}

// Update changes a folder's options.
func (s *Service) Update(ctx context.Context, caller backendai.Caller, ref string, u Update) error {
	v, err := s.managed(ctx, caller, ref)
	if err != nil {
		return err
	}
	if u.MaxSize != nil && !caller.Superadmin() {
		return backendai.Errorf(backendai.CodeForbidden, "only a superadmin may change the quota of a folder")
	}
	if u.MaxSize != nil {
		if err := s.probe(ctx, v.Host); err != nil {
			return err
		}
		defer s.wake() // for a folder that is no project yet
	}
	err = s.change(ctx, v.ID, func(f *backendai.VFolder) error {
		if u.Cloneable != nil {
			f.Cloneable = *u.Cloneable
		}
		if u.Permission != nil {
			f.Permission = *u.Permission
		}
		if u.MaxSize == nil {
			return nil
		}
		f.MaxSize = *u.MaxSize
		dir, err := s.folderDir(ctx, f)
		if err != nil {
			return err
		}
		if err := s.limit(f, dir); err != nil {
			return fullDisk(f.Name, err)
		}
		return nil
	})
	if err == nil && u.MaxSize != nil && s.dealt(v.VFolder) {
		err = s.deal(ctx, v.UserID)
	}
	return err
}

// touch remembers that a folder was used now.
func (s *Service) touch(ctx context.Context, id string, at time.Time) error {
	err := s.change(ctx, id, func(f *backendai.VFolder) error {
		f.LastUsed = at
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the use of folder %s: %w", id, err)
	}
	return nil
}
