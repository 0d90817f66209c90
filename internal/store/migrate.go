package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"backendai"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID stands in the file and tells that a database is ours.
const applicationID = 0x6261692e // "bai."

// migrate brings the tables to what this program knows. The usual case, that
// nothing is to be done, costs two small queries.
func (s *Store) migrate(ctx context.Context) error {
	newest, err := newestMigration()
	if err != nil {
		return err
	}
	var id int64
	var tables int
	row := s.writer.QueryRowContext(ctx, "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id")
	if err := row.Scan(&id, &tables); err != nil {
		return s.unusable(err)
	}
	switch {
	case id == applicationID:
	case id == 0 && tables == 0:
		if _, err := s.writer.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID)); err != nil {
			return s.unusable(err)
		}
	default:
		return backendai.Errorf(backendai.CodeUnavailable, "the database %s belongs to another program", s.path).
			WithHint("choose another state directory with --state-dir")
	}
	var version int64
	if tables > 0 {
		// A table is missing when a first start ended in its middle; then all is still to be done.
		_ = s.writer.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&version)
	}
	switch {
	case version == newest:
		return nil
	case version > newest:
		return backendai.Errorf(backendai.CodeUnavailable, "the database %s is of a newer version of this program (%d, known are %d)", s.path, version, newest).
			WithHint("start the newer program, or bring back the database of before the update from a backup")
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.writer, files,
		goose.WithSlog(slog.New(slog.DiscardHandler)), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return s.unusable(fmt.Errorf("migrate database: %w", err))
	}
	return nil
}

// newestMigration is the highest number among the files.
func newestMigration() (int64, error) {
	entries, err := migrations.ReadDir("migrations")
	if err != nil || len(entries) == 0 {
		return 0, errors.Join(errors.New("read migrations: there are none"), err)
	}
	number, _, _ := strings.Cut(entries[len(entries)-1].Name(), "_") // they are in order
	newest, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	return newest, nil
}
