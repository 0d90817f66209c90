package vfolder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"backendai"
)

// CloneRequest is what a copy of a folder is asked to be.
type CloneRequest struct {
	Name       string
	Host       string // empty is that of the original
	UsageMode  backendai.UsageMode
	Permission backendai.Permission
	Cloneable  bool
}

// Clone copies a folder into a new one of the caller's own. It returns when the
// new folder is made; the files come by the task. Whoever may use a folder may
// copy it if its owner allows it.
func (s *Service) Clone(ctx context.Context, caller backendai.Caller, ref string, req CloneRequest) (v View, taskID string, err error) {
	from, err := s.usable(ctx, caller, ref, backendai.ReadOnly)
	if err != nil {
		return View{}, "", err
	}
	if !from.Cloneable {
		hint := "its owner can allow it: backend.ai vfolder update-options --set-cloneable true"
		return View{}, "", backendai.Errorf(backendai.CodeForbidden, "the folder %q may not be cloned", from.Name).WithHint("%s", hint)
	}
	f, err := s.draft(caller, CreateRequest{
		Name: req.Name, Host: cmp.Or(req.Host, from.Host), UsageMode: cmp.Or(req.UsageMode, from.UsageMode),
		Permission: req.Permission, Cloneable: req.Cloneable,
	})
	if err != nil {
		return View{}, "", err
	}
	f.Status = backendai.FolderCloning
	bytes, _, err := s.measure(ctx, from.VFolder)
	if err != nil {
		return View{}, "", err
	}
	s.usage.empty(f.ID, s.now()) // it has no directory yet that could be measured
	release, err := s.reserve(ctx, f, bytes)
	if err != nil {
		s.usage.forget(f.ID)
		return View{}, "", err
	}
	if err := s.insert(ctx, caller, f); err != nil {
		release()
		s.usage.forget(f.ID)
		return View{}, "", err
	}
	taskID, err = s.begins(caller.User.ID, func(ctx context.Context, t *task) error {
		defer release()
		t.set(func(state *TaskState) { state.Total = bytes })
		return s.cloned(context.WithoutCancel(ctx), f.ID, s.copyFolder(ctx, from, f, t))
	})
	if err != nil {
		release()
		return View{}, "", errors.Join(err, s.cloned(ctx, f.ID, err))
	}
	v, _, err = s.view(ctx, caller, f)
	return v, taskID, err
}

// cloned tells what became of a copy.
func (s *Service) cloned(ctx context.Context, id string, cause error) error {
	s.usage.spoil(id) // not all that was counted may have come
	err := s.change(ctx, id, func(f *backendai.VFolder) error {
		f.Status = backendai.FolderReady
		if cause != nil {
			f.Status, f.StatusInfo = backendai.FolderError, "the copy is not complete: "+cause.Error()
		}
		return nil
	})
	if cause != nil {
		s.log.Error("folder is not cloned", "vfolder", id, "err", cause)
	}
	return errors.Join(cause, err)
}

// brokenClones tells of copies that ended with an earlier process.
func (s *Service) brokenClones(ctx context.Context) error {
	folders, err := s.store.Folders(ctx, Query{Statuses: []backendai.FolderStatus{backendai.FolderCloning}})
	if err != nil {
		return err
	}
	for _, f := range folders {
		if err := s.cloned(ctx, f.ID, errors.New("the server was stopped")); err != nil {
			s.log.Debug("copy was broken off", "vfolder", f.ID, "err", err)
		}
	}
	return nil
}

// copyFolder copies what the caller sees of a folder: files with their modes and
// times, holes as holes, links as links. Special files are left out.
func (s *Service) copyFolder(ctx context.Context, from View, f *backendai.VFolder, t *task) error {
	source, err := s.content(ctx, from)
	if err != nil {
		return err
	}
	defer source.Close()
	dir, err := source.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	folder, err := s.folderDir(ctx, f)
	if err != nil {
		return err
	}
	target, err := os.OpenRoot(filepath.Join(folder, contentDir))
	if err != nil {
		return err
	}
	defer target.Close()
	parents := directories{}
	defer parents.close()
	var folders []node
	err = walk(ctx, dir, func(n node) error {
		parent, err := parents.open(target, path.Dir(n.path))
		if err != nil {
			return err
		}
		if n.mode.IsDir() {
			folders = append(folders, n)
			return makeOne(target, n.path)
		}
		bytes, err := copyNode(ctx, n, parent)
		s.usage.add(f.ID, bytes, 1)
		t.set(func(state *TaskState) {
			state.Current += bytes
			state.Message = "copied " + n.path
		})
		return err
	})
	if err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		n := folders[i]
		if err := errors.Join(target.Chmod(n.path, n.mode.Perm()), target.Chtimes(n.path, n.modified, n.modified)); err != nil {
			return err
		}
	}
	root, err := target.Open(".")
	if err != nil {
		return err
	}
	defer root.Close()
	return syncAll(root)
}

// copyNode copies a file or link into an open directory.
func copyNode(ctx context.Context, n node, parent *os.File) (int64, error) {
	if n.mode&fs.ModeSymlink != 0 {
		link, err := readLinkAt(n.parent, n.name)
		if err != nil {
			return 0, nil // it has gone
		}
		return 0, symlinkAt(link, parent, n.name, n.modified)
	}
	if !n.mode.IsRegular() {
		return 0, nil
	}
	in, err := openAt(n.parent, n.name, 0)
	if err != nil {
		return 0, nil // it has gone
	}
	defer in.Close()
	out, err := createAt(parent, n.name)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	size, readErr, err := copySparse(out, contextReader{ctx, in})
	if err := errors.Join(readErr, err); err != nil {
		return size, fmt.Errorf("copy %q: %w", n.path, err)
	}
	return size, dress(parent, n.name, out, n.mode.Perm(), n.modified)
}
