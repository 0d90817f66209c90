package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backendai"
	"backendai/internal/session"
	"backendai/internal/store"
)

// made is a state directory with a session and a user, closed.
func made(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	addUser(t, s, "alice")
	for i := range 300 {
		insert(t, s, newSession(fmt.Sprintf("mysession-%d", i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReopen(t *testing.T) {
	dir := made(t)
	for range 2 {
		s, err := store.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, total, err := s.FindSessions(t.Context(), session.Query{}); err != nil || total != 300 {
			t.Errorf("%d, %v", total, err)
		}
		if k, err := s.Keypair(t.Context(), "AKIAALICE"); err != nil || k.SecretKey != "secret of AKIAALICE" {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{store.DatabaseFile, store.KeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space", "50%41", "a?mode=memory", "a#b", "ünï&_pragma=x"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		openStore(t, dir)
		if _, err := os.Stat(filepath.Join(dir, store.DatabaseFile)); err != nil {
			t.Error(err)
		}
	}
	t.Chdir(t.TempDir())
	openStore(t, ".")
}

func TestDerive(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	key := s.Derive("ab", "c")
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Errorf("%x", key)
	}
	for _, other := range [][2]string{{"a", "bc"}, {"ab", "d"}, {"abc", ""}, {"", "abc"}, {"ab c", ""}, {"ab", ""}} {
		if bytes.Equal(key, s.Derive(other[0], other[1])) {
			t.Errorf("%q is the same", other)
		}
	}
	if again := openStore(t, dir); !bytes.Equal(key, again.Derive("ab", "c")) {
		t.Error("it changed")
	}
	if stranger := openStore(t, t.TempDir()); bytes.Equal(key, stranger.Derive("ab", "c")) {
		t.Error("another server has the same")
	}
}

// refused opens what must not open: with one line that has the words in it,
// and a hint.
func refused(t *testing.T, dir string, words ...string) {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok || e.Code != backendai.CodeUnavailable || e.Hint == "" || strings.Contains(e.Title, "\n") {
		t.Errorf("%#v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not tell of %q", err, word)
		}
	}
}

func TestKeyFile(t *testing.T) {
	write := func(mode os.FileMode, text string) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for name, tt := range map[string]struct {
		change func(path string) error
		words  string
	}{
		"missing":              {os.Remove, "is missing"},
		"readable by a group":  {func(path string) error { return os.Chmod(path, 0o640) }, "mode 0640"},
		"readable by everyone": {func(path string) error { return os.Chmod(path, 0o604) }, "mode 0604"},
		"empty":                {write(0o600, ""), "does not hold a key"},
		"short":                {write(0o600, strings.Repeat("ab", 31)), "does not hold a key"},
		"long":                 {write(0o600, strings.Repeat("ab", 33)), "does not hold a key"},
		"not hexadecimal":      {write(0o600, strings.Repeat("xy", 32)), "does not hold a key"},
		"of another server":    {write(0o600, strings.Repeat("ab", 32)+"\n"), "is not the one of the database"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			path := filepath.Join(dir, store.KeyFile)
			kept, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(path); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, path, tt.words)
			if err := write(0o600, string(kept))(path); err != nil {
				t.Fatal(err)
			}
			if s := openStore(t, dir); s == nil {
				t.Error("the right key does not open it any more")
			}
		})
	}
}

// dropTables leaves nothing but the table of migrations, and runs a statement on that.
func dropTables(t *testing.T, dir, last string) {
	t.Helper()
	db := rawDatabase(t, dir)
	rows, err := db.Query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'goose_db_version'")
	if err != nil {
		t.Fatal(err)
	}
	var drops []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		drops = append(drops, "DROP TABLE "+name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, query := range append(drops, last) {
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
}

// TestFirstStartThatEnded goes on from every state that a killed first start leaves.
func TestFirstStartThatEnded(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"a key alone": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, store.DatabaseFile)); err != nil {
				t.Fatal(err)
			}
		},
		"an empty database": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, store.DatabaseFile), 0); err != nil {
				t.Fatal(err)
			}
		},
		"an empty database without a key": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, store.DatabaseFile), 0); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, store.KeyFile)); err != nil {
				t.Fatal(err)
			}
		},
		"no tables yet": func(t *testing.T, dir string) {
			dropTables(t, dir, "DELETE FROM goose_db_version WHERE version_id > 0")
		},
		"nothing but the mark": func(t *testing.T, dir string) { dropTables(t, dir, "DROP TABLE goose_db_version") },
		"no seal yet": func(t *testing.T, dir string) {
			db := rawDatabase(t, dir)
			if _, err := db.Exec("DELETE FROM seal"); err != nil {
				t.Fatal(err)
			}
			db.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := store.Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			prepare(t, dir)
			addUser(t, openStore(t, dir), "alice")
		})
	}
}

func TestForeignDatabases(t *testing.T) {
	t.Run("not a database", func(t *testing.T) {
		dir := made(t)
		path := filepath.Join(dir, store.DatabaseFile)
		if err := os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, path, "damaged")
	})
	t.Run("of another program", func(t *testing.T) {
		dir := made(t)
		path := filepath.Join(dir, store.DatabaseFile)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		db := rawDatabase(t, dir)
		if _, err := db.Exec("CREATE TABLE bookmarks (url TEXT)"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, dir, path, "belongs to another program")
		db = rawDatabase(t, dir)
		var tables int
		if err := db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil || tables != 1 {
			t.Errorf("%d tables of %d bytes, %v", tables, len(before), err)
		}
	})
	t.Run("of a newer version", func(t *testing.T) {
		dir := made(t)
		db := rawDatabase(t, dir)
		if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		refused(t, dir, "newer version of this program")
	})
	t.Run("half of it", func(t *testing.T) {
		dir := made(t)
		path := filepath.Join(dir, store.DatabaseFile)
		if err := os.Truncate(path, 10_000); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, path, "damaged")
	})
	t.Run("no directory", func(t *testing.T) {
		refused(t, filepath.Join(t.TempDir(), "none"), "none", "cannot be made")
	})
	t.Run("a file as directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, path)
	})
}

// TestDamageIsTold breaks pages of the tables while the rest is whole.
func TestDamageIsTold(t *testing.T) {
	dir := made(t)
	path := filepath.Join(dir, store.DatabaseFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for page := 4096; page < len(data); page += 4096 {
		if bytes.Contains(data[page:page+4096], []byte("mysession-")) {
			copy(data[page:], bytes.Repeat([]byte{0xff}, 4096))
			found++
		}
	}
	if found == 0 {
		t.Fatal("no page of sessions")
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	_, _, err = s.FindSessions(t.Context(), session.Query{Filter: `tag == ""`})
	if backendai.CodeOf(err) != backendai.CodeUnavailable || err.Error() != "the server's database is damaged" {
		t.Errorf("%v", err)
	}
	if _, err := s.Keypair(t.Context(), "AKIAALICE"); err != nil {
		t.Errorf("what is whole cannot be read: %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := store.Open(b.Context(), dir)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
