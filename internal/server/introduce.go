package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"backendai"
)

// AdminFile is the file in the state directory that tells a shell how to act as
// the administrator; only the server's user can read it.
const AdminFile = "admin.env"

// introduce makes the administrator if there is none and writes how to reach
// the server as the administrator. The file is written at every start: the
// address may have changed, or an earlier start may have ended before it.
func (s *Server) introduce(ctx context.Context) error {
	made, first, err := s.parts.accounts.Bootstrap(ctx)
	if err != nil {
		return fmt.Errorf("make administrator: %w", err)
	}
	s.first = first
	if first {
		s.admin = *made
	} else if s.admin, err = s.findAdmin(ctx); err != nil {
		return err
	}
	if s.admin.AccessKey == "" {
		return nil // every key of every administrator was taken away, which is theirs to do
	}
	text := fmt.Sprintf("export BACKEND_ENDPOINT=%s\nexport BACKEND_ACCESS_KEY=%s\nexport BACKEND_SECRET_KEY=%s\n",
		s.Endpoint(), s.admin.AccessKey, s.admin.SecretKey)
	return writePrivate(s.cfg.StateDir, AdminFile, []byte(text))
}

// findAdmin is the oldest active keypair of a superadmin; empty when there is none.
func (s *Server) findAdmin(ctx context.Context) (backendai.Keypair, error) {
	self := backendai.Caller{User: backendai.User{Role: backendai.RoleSuperadmin, Active: true}}
	users, err := s.parts.accounts.Users(ctx, self)
	if err != nil {
		return backendai.Keypair{}, fmt.Errorf("find administrator: %w", err)
	}
	keypairs, err := s.parts.accounts.Keypairs(ctx, self)
	if err != nil {
		return backendai.Keypair{}, fmt.Errorf("find administrator: %w", err)
	}
	slices.SortStableFunc(keypairs, func(a, b *backendai.Keypair) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for _, k := range keypairs {
		if k.Active && slices.ContainsFunc(users, func(u *backendai.User) bool {
			return u.ID == k.UserID && u.Active && u.Role == backendai.RoleSuperadmin
		}) {
			return *k, nil
		}
	}
	return backendai.Keypair{}, nil
}

// writePrivate replaces a file of mode 0600 as a whole.
func writePrivate(dir, name string, data []byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer root.Close()
	if old, err := root.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	next := name + ".new"
	if err := root.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := root.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := root.Rename(next, name); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
	}
	return nil
}
