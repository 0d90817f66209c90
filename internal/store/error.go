package store

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"backendai"
)

// result is SQLite's code of an error, 0 when it has none.
func result(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// unique tells whether an error is that of a value which must be there once only.
func unique(err error) bool {
	code := result(err)
	return code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// failed is the error of a query while the server runs. What has a cause
// outside of the program is told to people, without a path: it travels.
func failed(doing string, err error) error {
	told := func(title, hint string) error {
		return &backendai.Error{Code: backendai.CodeUnavailable, Title: title, Hint: hint, Err: fmt.Errorf("%s: %w", doing, err)}
	}
	switch result(err) & 0xff {
	case sqlite3.SQLITE_FULL:
		return told("the disk of the server's database is full", "make room in the server's state directory")
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return told("the server's database is damaged", "stop the server and bring the database back from a backup")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return told("the server's database cannot be read or written", "look after the disk of the server's state directory")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return told("the server's database is held by another program", "try again when that program has ended")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unusable is the error of a database that does not open.
func (s *Store) unusable(err error) error {
	switch result(err) & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return backendai.Errorf(backendai.CodeUnavailable, "the database %s is damaged or no database of this program: %w", s.path, err).
			WithHint("bring it back from a backup, or move it away to start from nothing")
	case sqlite3.SQLITE_FULL:
		return backendai.Errorf(backendai.CodeUnavailable, "the disk under the database %s is full: %w", s.path, err).
			WithHint("make room in the state directory")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return backendai.Errorf(backendai.CodeUnavailable, "the database %s is held by another program: %w", s.path, err).
			WithHint("end that program and start again")
	}
	return backendai.Errorf(backendai.CodeUnavailable, "the database %s cannot be opened: %w", s.path, err).
		WithHint("the state directory must exist, be writable and have room")
}
