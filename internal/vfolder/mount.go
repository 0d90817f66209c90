package vfolder

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"backendai"
	"backendai/internal/engine"
)

// Resolve checks what the caller asks to mount and adds the folders that mount
// by themselves: those whose names begin with a dot. Every mount comes back with
// its folder, target and permission set; sources exist, targets neither clash
// nor are reserved. What nobody asked for never makes it fail.
func (s *Service) Resolve(ctx context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error) {
	mounts := make([]backendai.Mount, 0, len(asked))
	for _, m := range asked {
		resolved, err := s.resolve(ctx, caller, m)
		if err != nil {
			return nil, err
		}
		for _, other := range mounts {
			if err := clash(other, resolved); err != nil {
				return nil, err
			}
		}
		mounts = append(mounts, resolved)
	}
	auto, err := s.automatic(ctx, caller, mounts)
	if err != nil {
		return nil, err
	}
	return append(mounts, auto...), nil
}

// resolve checks one mount that was asked for.
func (s *Service) resolve(ctx context.Context, caller backendai.Caller, m backendai.Mount) (backendai.Mount, error) {
	name, sub, err := backendai.ParseMountSource(m.Source)
	if err != nil {
		return m, err
	}
	standard := path.Base(sub) // of the target, when a part of a folder is named
	if m.Subpath != "" {
		if sub, err = cleanPath(path.Join(sub, m.Subpath)); err != nil {
			return m, err
		}
	}
	v, err := s.usable(ctx, caller, name, backendai.ReadOnly)
	if err != nil {
		return m, err
	}
	m.FolderID = v.ID
	if m.Permission == "" {
		m.Permission = string(v.Effective)
	}
	asked, err := backendai.ParsePermission(m.Permission)
	if err != nil {
		return m, err
	}
	if !v.Effective.Allows(asked) && !(v.Effective == backendai.ReadWrite && asked == backendai.WriteDelete) {
		return m, backendai.Errorf(backendai.CodeForbidden, "the folder %q cannot be mounted with the permission %s: yours is %s", v.Name, asked, v.Effective).
			WithHint("mount it with perm=%s, or without a permission", v.Effective)
	}
	m.Permission = string(asked)
	if m.Target == "" && standard != "." {
		m.Target = standard
	}
	m.Target = cmp.Or(m.Target, backendai.MountTarget(v.Name))
	if m.Target, err = backendai.ParseMountTarget(m.Target); err != nil {
		return m, err
	}
	if err := s.probe(ctx, v.Host); err != nil {
		return m, err
	}
	root, err := s.content(ctx, v)
	if err != nil {
		return m, err
	}
	defer root.Close()
	m.Subpath = path.Join(v.base, sub)
	if sub == "" {
		return m, nil
	}
	return m, isFolder(root, v.Name, sub)
}

// isFolder tells why a path below a folder cannot be mounted.
func isFolder(root *os.Root, folder, sub string) error {
	info, err := root.Stat(sub)
	switch {
	case err != nil:
		return explain(folder, sub, err)
	case !info.IsDir():
		return backendai.Errorf(backendai.CodeInvalidParams, "%q in the folder %q is not a directory", sub, folder).
			WithHint("only directories can be mounted")
	}
	return nil
}

// clash tells whether two mounts of one session cannot be together.
func clash(a, b backendai.Mount) error {
	if backendai.Overlap(a.Target, b.Target) {
		return backendai.Errorf(backendai.CodeInvalidParams, "the mount targets %s of %q and %s of %q overlap", a.Target, a.Source, b.Target, b.Source).
			WithHint("give one of them another path: -m NAME=PATH")
	}
	if a.FolderID == b.FolderID && backendai.Overlap(a.Subpath, b.Subpath) {
		return backendai.Errorf(backendai.CodeInvalidParams, "the mounts %q and %q are of the same files", a.Source, b.Source).
			WithHint("mount them once")
	}
	return nil
}

// automatic are the mounts of the folders whose names begin with a dot, as far
// as they leave those alone that were asked for.
func (s *Service) automatic(ctx context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error) {
	folders, err := s.store.Folders(ctx, Query{Viewer: &caller.User, Statuses: []backendai.FolderStatus{backendai.FolderReady}})
	if err != nil {
		return nil, err
	}
	var mounts []backendai.Mount
	for _, f := range folders {
		if !f.Hidden() {
			continue
		}
		v, ok, err := s.view(ctx, caller, f)
		if err != nil {
			return nil, err
		}
		m := backendai.Mount{
			Source: f.Name, FolderID: f.ID, Target: backendai.MountTarget(f.Name), Permission: string(v.Effective), Subpath: v.base, Auto: true,
		}
		free := true
		for _, other := range slices.Concat(asked, mounts) {
			free = free && clash(other, m) == nil
		}
		// A shared folder never mounts by itself: its owner must not be able to
		// put files where the programs of others look for their settings.
		if !ok || !free || !v.Owner && f.Group == "" {
			continue
		}
		if err := s.ready(ctx, v); err != nil {
			s.log.Warn("folder does not mount by itself", "vfolder", f.ID, "name", f.Name, "user", caller.User.Email, "err", err)
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// Hidden names the folders that mount by themselves for a caller.
func (s *Service) Hidden(ctx context.Context, caller backendai.Caller) ([]string, error) {
	folders, err := s.store.Folders(ctx, Query{Viewer: &caller.User, Statuses: live})
	var names []string
	for _, f := range folders {
		if f.Hidden() {
			names = append(names, f.Name)
		}
	}
	return names, err
}

// ready tells whether a folder's files are there.
func (s *Service) ready(ctx context.Context, v View) error {
	if err := s.probe(ctx, v.Host); err != nil {
		return err
	}
	root, err := s.content(ctx, v)
	if err != nil {
		return err
	}
	return root.Close()
}

// Attach gives the directories behind resolved mounts, just before the
// container is made. A folder that has gone since is CodeNotFound, unless it
// mounted by itself.
func (s *Service) Attach(ctx context.Context, mounts []backendai.Mount) ([]engine.Mount, error) {
	attached := make([]engine.Mount, 0, len(mounts))
	defer s.dealFor(ctx, mounts)
	for _, m := range mounts {
		one, err := s.attach(ctx, m)
		if err != nil && m.Auto {
			s.log.Warn("folder does not mount by itself", "vfolder", m.FolderID, "name", m.Source, "err", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		attached = append(attached, one)
		if err := s.touch(ctx, m.FolderID, s.now().UTC()); err != nil {
			s.log.Warn("use of folder is not noted", "vfolder", m.FolderID, "err", err)
		}
	}
	return attached, nil
}

func (s *Service) attach(ctx context.Context, m backendai.Mount) (engine.Mount, error) {
	f, err := s.store.Folder(ctx, m.FolderID)
	if err != nil {
		return engine.Mount{}, err
	}
	if !f.Usable() {
		return engine.Mount{}, backendai.NotFound("folder", m.Source).WithHint("it was deleted while the session waited")
	}
	if err := s.probe(ctx, f.Host); err != nil {
		return engine.Mount{}, err
	}
	dir, err := s.folderDir(ctx, f)
	if err != nil {
		return engine.Mount{}, err
	}
	source := filepath.Join(dir, contentDir)
	root, err := os.OpenRoot(source)
	if err != nil {
		return engine.Mount{}, s.lost(f, err)
	}
	defer root.Close()
	if m.Subpath != "" {
		if err := isFolder(root, f.Name, m.Subpath); err != nil {
			return engine.Mount{}, err
		}
	}
	readOnly := m.Permission == string(backendai.ReadOnly)
	if free, _, err := freeSpace(s.opts.Hosts[f.Host]); err == nil && free == 0 && !readOnly && !m.Auto {
		return engine.Mount{}, backendai.Errorf(backendai.CodeVFolderFailed, "the storage of the folder %q is full: a session could write nothing there", f.Name).
			WithHint("remove files that you do not need with 'backend.ai vfolder rm', or mount the folder with perm=ro")
	}
	s.usage.spoil(f.ID) // the session writes without asking
	return engine.Mount{Source: source, Subpath: m.Subpath, Target: m.Target, ReadOnly: readOnly}, nil
}

// explain makes an error of the file system one for people.
func explain(folder, name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return backendai.Errorf(backendai.CodeNotFound, "no such file in the folder %q: %q", folder, name).
			WithHint("'backend.ai vfolder ls %s' shows what is there", folder)
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EISDIR):
		return backendai.Errorf(backendai.CodeVFolderFailed, "there is %q in the folder %q already", name, folder).
			WithHint("choose another name, or remove it first")
	case errors.Is(err, syscall.ENAMETOOLONG):
		return backendai.Errorf(backendai.CodeInvalidParams, "the name %q is too long", shorten(name)).WithHint("each part of a path has at most 255 bytes")
	case errors.Is(err, syscall.ELOOP), escapes(err):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q leads out of the folder %q or in a circle", name, folder).
			WithHint("links are followed only as long as they stay in the folder")
	case errors.Is(err, errNotRegular):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q in the folder %q is not a file", name, folder).
			WithHint("a directory goes as an archive")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
		return fullDisk(folder, err)
	default:
		return backendai.Errorf(backendai.CodeVFolderFailed, "%q in the folder %q cannot be used: %w", name, folder, err).
			WithHint("ask the administrator: the server's log tells more")
	}
}

// fullDisk is the error of a storage that takes nothing more.
func fullDisk(folder string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return backendai.Errorf(backendai.CodeVFolderFailed, "the storage of the folder %q is full: %w", folder, err).
			WithHint("remove files that you do not need, or ask the administrator for room")
	case errors.Is(err, syscall.EDQUOT):
		return backendai.Errorf(backendai.CodeQuota, "the storage's own quota for the folder %q is used up: %w", folder, err).
			WithHint("remove files that you do not need, or ask the administrator for more")
	case errors.Is(err, syscall.EROFS):
		return backendai.Errorf(backendai.CodeVFolderFailed, "the storage of the folder %q can only be read: %w", folder, err).
			WithHint("ask the administrator")
	default:
		return backendai.Errorf(backendai.CodeVFolderFailed, "the folder %q cannot be written on its storage: %w", folder, err).
			WithHint("ask the administrator: the server's log tells more")
	}
}
