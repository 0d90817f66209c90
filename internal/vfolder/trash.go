package vfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"backendai"
)

// Trash moves a folder to the trash: it has no name any more and nobody can use
// it, but Restore brings it back. Sessions that have it mounted keep it.
func (s *Service) Trash(ctx context.Context, caller backendai.Caller, ref string) error {
	v, err := s.managed(ctx, caller, ref)
	if err != nil {
		return err
	}
	err = s.change(ctx, v.ID, func(f *backendai.VFolder) error {
		switch f.Status {
		case backendai.FolderReady, backendai.FolderError:
		case backendai.FolderCloning:
			return v.allow(backendai.ReadOnly)
		default:
			return backendai.NotFound("folder", ref)
		}
		f.Status, f.TrashedAt = backendai.FolderTrashed, s.now().UTC()
		return nil
	})
	if err == nil {
		s.log.Info("folder is in the trash", "vfolder", v.ID, "name", v.Name, "user", caller.User.Email)
	}
	return err
}

// Restore brings a folder back from the trash.
func (s *Service) Restore(ctx context.Context, caller backendai.Caller, ref string) error {
	v, err := s.managed(ctx, caller, ref, backendai.FolderTrashed)
	if err != nil {
		return trashHint(err)
	}
	return s.change(ctx, v.ID, func(f *backendai.VFolder) error {
		if f.Status != backendai.FolderTrashed {
			return trashHint(backendai.NotFound("folder", ref))
		}
		if err := s.nameIsFree(ctx, caller, f.Name, f.ID); err != nil {
			return backendai.Errorf(backendai.CodeVFolderExists, "there is another folder %q now", f.Name).
				WithHint("rename that one first")
		}
		f.Status, f.TrashedAt = backendai.FolderReady, time.Time{}
		return nil
	})
}

func trashHint(err error) error {
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code == backendai.CodeNotFound {
		return e.WithHint("it is not in the trash; 'backend.ai vfolder list --trash' shows what is")
	}
	return err
}

// Erase deletes the files of a folder in the trash for good and keeps its
// record. It is refused while a live session has the folder mounted.
func (s *Service) Erase(ctx context.Context, caller backendai.Caller, ref string) error {
	v, err := s.managed(ctx, caller, ref, backendai.FolderTrashed)
	if err != nil {
		return trashHint(err)
	}
	return s.erase(ctx, v.VFolder, func(f *backendai.VFolder) error {
		f.Status, f.UsedBytes, f.UsedFiles = backendai.FolderDeleted, 0, 0
		return s.store.UpdateFolder(ctx, f)
	})
}

// Purge deletes a folder in the trash for good, files and record.
func (s *Service) Purge(ctx context.Context, caller backendai.Caller, ref string) error {
	v, err := s.managed(ctx, caller, ref, backendai.FolderTrashed, backendai.FolderDeleted)
	if err != nil {
		return trashHint(err)
	}
	err = s.erase(ctx, v.VFolder, func(f *backendai.VFolder) error { return s.store.DeleteFolder(ctx, f.ID) })
	if err == nil {
		s.log.Info("folder is purged", "vfolder", v.ID, "name", v.Name, "user", caller.User.Email)
	}
	return err
}

// erase takes a folder's directory away and lets record change what is known of
// it. The directory goes aside by one rename, so that neither a million files
// nor a crash leave half a folder; sweep deletes what is aside.
func (s *Service) erase(ctx context.Context, f *backendai.VFolder, record func(*backendai.VFolder) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	f, err := s.store.Folder(ctx, f.ID)
	if err != nil {
		return err
	}
	if f.Status != backendai.FolderTrashed && f.Status != backendai.FolderDeleted {
		return trashHint(backendai.NotFound("folder", f.Name))
	}
	sessions, err := s.store.FolderSessions(ctx, f.ID)
	if err != nil {
		return err
	}
	if len(sessions) > 0 {
		return inUse(f, sessions)
	}
	host, err := s.hostDir(ctx, f.Host)
	if err != nil {
		return err
	}
	dir, err := s.folderDir(ctx, f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(host, removedDir), 0o700); err != nil {
		return fullDisk(f.Name, err)
	}
	aside := filepath.Join(host, removedDir, f.Hex())
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set folder %s aside: %w", f.ID, err)
	}
	if err := record(f); err != nil {
		return err
	}
	s.usage.forget(f.ID)
	s.wake()
	return nil
}

func inUse(f *backendai.VFolder, sessions []string) error {
	return backendai.Errorf(backendai.CodeVFolderFailed, "the folder %q is in use by %s", f.Name, named(sessions)).
		WithHint("end the sessions first: backend.ai rm SESSION").WithData(map[string]any{"sessions": sessions})
}

func named(sessions []string) string {
	if len(sessions) == 1 {
		return "the session " + sessions[0]
	}
	return fmt.Sprintf("%d sessions, such as %s", len(sessions), sessions[0])
}
