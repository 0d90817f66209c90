// Package store keeps users, keypairs, sessions and what is to be known of
// folders in SQLite. It is what account.Store, session.Store and vfolder.Store
// ask for.
//
// The database is a file in the state directory, beside the key that seals the
// secrets in it. A change that was acknowledged survives the death of the
// process; the last of them may be lost when the machine loses its power, in
// which case the database is whole and as it was a moment earlier.
package store

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver
)

// The files in the state directory.
const (
	DatabaseFile = "backend.ai.db"
	KeyFile      = "secret.key"
)

const (
	readers         = 4
	busyTimeout     = "5000" // milliseconds; only another process on the same database makes us wait
	checkpointAfter = 256    // writes
)

// Store is one open database. It is safe for concurrent use.
type Store struct {
	path     string
	key      []byte // the master key
	aead     cipher.AEAD
	writer   *sql.DB // one connection: writes queue here and never fail for each other
	reader   *sql.DB
	stmts    statements
	writes   atomic.Uint64
	fold     chan struct{} // asks to fold the log into the database
	end      context.CancelFunc
	folders  sync.WaitGroup
	closeErr error
	once     sync.Once
}

// Open opens the database in the state directory dir, which must exist; the
// database, its tables and the key are made when they are missing. The caller
// closes the store.
func Open(ctx context.Context, dir string) (_ *Store, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{path: filepath.Join(dir, DatabaseFile), fold: make(chan struct{}, 1)}
	if s.key, err = masterKey(dir, hasContent(s.path)); err != nil {
		return nil, err
	}
	if s.aead, err = newAEAD(s.key); err != nil {
		return nil, err
	}
	if err := makePrivate(s.path); err != nil {
		return nil, s.unusable(err)
	}
	defer func() {
		if err != nil {
			_ = s.Close() // why it did not open says more
		}
	}()
	if s.writer, err = s.pool(1, "_txlock=immediate"); err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	if s.reader, err = s.pool(readers, "_query_only=1"); err != nil {
		return nil, err
	}
	if err := s.checkSeal(ctx); err != nil {
		return nil, err
	}
	if err := s.stmts.prepare(ctx, s.writer, s.reader); err != nil {
		return nil, s.unusable(err)
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.end = cancel
	s.folders.Go(func() { s.foldLog(background) })
	return s, nil
}

// Close ends the store; nothing may use it any more.
func (s *Store) Close() error {
	s.once.Do(func() {
		if s.end != nil {
			s.end()
		}
		s.folders.Wait()
		// The writer last: it folds the log into the database.
		for _, db := range []*sql.DB{s.reader, s.writer} {
			if db != nil {
				s.closeErr = errors.Join(s.closeErr, db.Close())
			}
		}
	})
	return s.closeErr
}

// pool opens n connections at most; they stay open.
func (s *Store) pool(n int, option string) (*sql.DB, error) {
	path := filepath.ToSlash(s.path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/…
	}
	// The log is folded in the background and not by whoever writes the
	// thousandth page: that would be a slow write to the disk in the middle of
	// the start of a session.
	dsn := url.URL{
		Scheme: "file", Path: path,
		RawQuery: "_busy_timeout=" + busyTimeout + "&_journal_mode=WAL&_synchronous=NORMAL&_foreign_keys=1&_dqs=0&_defensive=1" +
			"&_pragma=wal_autocheckpoint(0)&_pragma=trusted_schema(0)&" + option,
	}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, s.unusable(err)
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// wrote counts a write and asks for the log to be folded now and then.
func (s *Store) wrote() {
	if s.writes.Add(1)%checkpointAfter != 0 {
		return
	}
	select {
	case s.fold <- struct{}{}:
	default:
	}
}

// foldLog moves the write-ahead log into the database when asked, until ctx
// ends. Readers and the writer go on meanwhile. What fails is tried again with
// the next request, and by Close.
func (s *Store) foldLog(ctx context.Context) {
	db, err := s.pool(1, "")
	if err != nil {
		return
	}
	defer func() { _ = db.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fold:
			_, _ = db.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)")
		}
	}
}

// hasContent tells whether there is a database already: an empty file is none.
func hasContent(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// makePrivate makes an empty database file that only its owner can read; the
// database gives its own mode to the files that it makes beside itself.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
