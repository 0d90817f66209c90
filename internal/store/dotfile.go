package store

import (
	"context"
	"database/sql"
	"errors"

	"backendai"
	"backendai/internal/dotfile"
)

var _ dotfile.Store = (*Store)(nil)

// InsertDotfile implements dotfile.Store.
func (s *Store) InsertDotfile(ctx context.Context, accessKey string, f dotfile.File) error {
	defer s.wrote()
	_, err := s.writer.ExecContext(ctx, "INSERT INTO dotfiles (access_key, path, permission, data) VALUES (?, ?, ?, ?)", accessKey, f.Path, f.Permission, f.Data)
	if unique(err) {
		return backendai.Errorf(backendai.CodeInvalidParams, "there is a dotfile %q already", f.Path)
	}
	if err != nil {
		return failed("write dotfile", err)
	}
	return nil
}

// UpdateDotfile implements dotfile.Store.
func (s *Store) UpdateDotfile(ctx context.Context, accessKey string, f dotfile.File) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "UPDATE dotfiles SET permission = ?, data = ? WHERE access_key = ? AND path = ?", f.Permission, f.Data, accessKey, f.Path)
	return one(done, err, "dotfile", f.Path)
}

// DeleteDotfile implements dotfile.Store.
func (s *Store) DeleteDotfile(ctx context.Context, accessKey, path string) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "DELETE FROM dotfiles WHERE access_key = ? AND path = ?", accessKey, path)
	return one(done, err, "dotfile", path)
}

// Dotfiles implements dotfile.Store.
func (s *Store) Dotfiles(ctx context.Context, accessKey string) ([]dotfile.File, error) {
	found, err := all(ctx, s.reader, "dotfiles", scanDotfile, "SELECT path, permission, data FROM dotfiles WHERE access_key = ? ORDER BY path", accessKey)
	files := make([]dotfile.File, len(found))
	for i, f := range found {
		files[i] = *f
	}
	return files, err
}

func scanDotfile(row scanner) (*dotfile.File, error) {
	f := &dotfile.File{}
	return f, row.Scan(&f.Path, &f.Permission, &f.Data)
}

// SetBootstrap implements dotfile.Store.
func (s *Store) SetBootstrap(ctx context.Context, accessKey, script string) error {
	defer s.wrote()
	_, err := s.writer.ExecContext(ctx, `INSERT INTO bootstrap_scripts (access_key, script) VALUES (?, ?)
		ON CONFLICT (access_key) DO UPDATE SET script = excluded.script`, accessKey, script)
	if err != nil {
		return failed("write bootstrap script", err)
	}
	return nil
}

// Bootstrap implements dotfile.Store.
func (s *Store) Bootstrap(ctx context.Context, accessKey string) (script string, err error) {
	err = s.reader.QueryRowContext(ctx, "SELECT script FROM bootstrap_scripts WHERE access_key = ?", accessKey).Scan(&script)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", failed("read bootstrap script", err)
	}
	return script, nil
}
