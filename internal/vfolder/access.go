package vfolder

import (
	"context"
	"slices"

	"backendai"
)

// View is a folder as one user sees it.
type View struct {
	*backendai.VFolder

	Effective backendai.Permission // what the user may do with its files
	Owner     bool                 // it belongs to the user
	Manager   bool                 // the user may rename, share and delete it
	base      string               // below the content; what the user sees of it
}

// view is the folder as a user sees it; ok tells whether the user may see it.
func (s *Service) view(ctx context.Context, caller backendai.Caller, f *backendai.VFolder) (v View, ok bool, err error) {
	v = View{VFolder: f, Effective: f.Permission}
	u := caller.User
	switch {
	case f.UserID != "" && f.UserID == u.ID:
		v.Owner, v.Manager = true, true
		if f.Permission == backendai.ReadWrite {
			v.Effective = backendai.WriteDelete
		}
		return v, true, nil
	case f.Group != "" && (f.Group != u.Group || f.Domain != u.Domain):
		return View{}, false, nil
	}
	shares, err := s.store.Shares(ctx, ShareQuery{FolderID: f.ID, UserID: u.ID})
	if err != nil || f.Group == "" && len(shares) == 0 {
		return View{}, false, err
	}
	v.Manager = f.Group != "" && (u.Role == backendai.RoleAdmin || u.Role == backendai.RoleSuperadmin)
	switch {
	case v.Manager && f.Permission == backendai.ReadWrite:
		v.Effective = backendai.WriteDelete
	case f.Group != "" && !v.Manager && f.Hidden():
		v.base = u.ID // it mounts by itself: each member has a part of it alone
		v.Effective = backendai.WriteDelete
	case len(shares) > 0 && f.Permission != backendai.ReadOnly:
		v.Effective = shares[0].Permission
	}
	return v, true, nil
}

// visible finds the folders of the reference that the caller may see and that
// are in one of the statuses.
func (s *Service) visible(ctx context.Context, caller backendai.Caller, ref string, statuses ...backendai.FolderStatus) ([]View, error) {
	var found []*backendai.VFolder
	if id, ok := backendai.FolderID(ref); ok {
		f, err := s.store.Folder(ctx, id)
		if backendai.CodeOf(err) == backendai.CodeNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if slices.Contains(statuses, f.Status) {
			found = []*backendai.VFolder{f}
		}
	} else {
		var err error
		if found, err = s.store.Folders(ctx, Query{Viewer: &caller.User, Name: ref, Statuses: statuses}); err != nil {
			return nil, err
		}
	}
	var views []View
	for _, f := range found {
		v, ok, err := s.view(ctx, caller, f)
		if err != nil {
			return nil, err
		}
		if ok {
			views = append(views, v)
		}
	}
	return views, nil
}

// live are the statuses of folders that a name stands for.
var live = []backendai.FolderStatus{backendai.FolderReady, backendai.FolderCloning, backendai.FolderError}

// find is the one folder that a reference stands for. Without statuses it is
// one that is not in the trash.
func (s *Service) find(ctx context.Context, caller backendai.Caller, ref string, statuses ...backendai.FolderStatus) (View, error) {
	if len(statuses) == 0 {
		statuses = live
	}
	views, err := s.visible(ctx, caller, ref, statuses...)
	switch {
	case err != nil:
		return View{}, err
	case len(views) == 1:
		return views[0], nil
	case len(views) == 0:
		return View{}, backendai.NotFound("folder", ref).WithHint("'backend.ai vfolder list' shows the folders that you have")
	}
	matches := make([]map[string]any, 0, len(views))
	for _, v := range views {
		matches = append(matches, map[string]any{"id": v.ID, "name": v.Name, "status": v.Status, "created_at": v.CreatedAt})
	}
	return View{}, backendai.Errorf(backendai.CodeTooManyVFolders, "there are %d folders with the name %q", len(views), ref).
		WithHint("name one by its id: %s", ids(views)).WithData(map[string]any{"matches": matches})
}

func ids(views []View) string {
	text := ""
	for i, v := range views {
		if i > 0 {
			text += ", "
		}
		text += v.ID
	}
	return text
}

// usable is a folder whose files the caller may use with the permission.
func (s *Service) usable(ctx context.Context, caller backendai.Caller, ref string, need backendai.Permission) (View, error) {
	v, err := s.find(ctx, caller, ref)
	if err != nil {
		return View{}, err
	}
	return v, v.allow(need)
}

// allow refuses what the user may not do with the folder's files.
func (v View) allow(need backendai.Permission) error {
	switch {
	case v.Status == backendai.FolderCloning:
		return backendai.Errorf(backendai.CodeVFolderFailed, "the folder %q is still being copied", v.Name).WithHint("try again when its status is ready")
	case v.Status == backendai.FolderError:
		return backendai.Errorf(backendai.CodeVFolderFailed, "the folder %q cannot be used: %s", v.Name, v.StatusInfo).WithHint("delete it, or ask the administrator")
	case !v.Usable():
		return backendai.NotFound("folder", v.Name)
	case v.Effective.Allows(need):
		return nil
	case need == backendai.WriteDelete:
		return backendai.Errorf(backendai.CodeForbidden, "you may not delete in the folder %q (permission %s)", v.Name, v.Effective).
			WithHint("its owner can share it with the permission wd")
	case v.Owner:
		return backendai.Errorf(backendai.CodeForbidden, "the folder %q is read-only (permission %s)", v.Name, v.Effective).
			WithHint("change it with 'backend.ai vfolder update-options -p rw %s'", v.Name)
	default:
		return backendai.Errorf(backendai.CodeForbidden, "you may not write in the folder %q (permission %s)", v.Name, v.Effective).
			WithHint("its owner can share it with the permission rw")
	}
}

// managed is a folder that the caller may rename, share and delete.
func (s *Service) managed(ctx context.Context, caller backendai.Caller, ref string, statuses ...backendai.FolderStatus) (View, error) {
	v, err := s.find(ctx, caller, ref, statuses...)
	if err == nil && !v.Manager {
		err = backendai.Errorf(backendai.CodeForbidden, "the folder %q is not yours", v.Name).
			WithHint("its owner is %s; 'backend.ai vfolder leave' gives up a folder that is shared with you", v.Creator)
	}
	return v, err
}
