package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"backendai"
	"backendai/internal/store"
)

func newUser(name string) *backendai.User {
	return &backendai.User{
		ID: uuid.NewString(), Email: name + "@example.org", Username: name, FullName: "Full " + name, Role: backendai.RoleUser,
		Domain: "default", Group: "default", Active: true, CreatedAt: start,
	}
}

func newKeypair(u *backendai.User, accessKey string) *backendai.Keypair {
	return &backendai.Keypair{
		AccessKey: accessKey, SecretKey: "secret of " + accessKey, UserID: u.ID, Email: u.Email, Active: true, ResourcePolicy: "default", RateLimit: 100, CreatedAt: start,
	}
}

// addUser adds a user with the keypair AKIA and its name in capitals.
func addUser(t *testing.T, s *store.Store, name string) *backendai.User {
	t.Helper()
	u := newUser(name)
	if err := s.InsertUser(t.Context(), u, "hash of "+name, newKeypair(u, "AKIA"+strings.ToUpper(name))); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestUsers(t *testing.T) {
	s := openStore(t, t.TempDir())
	alice := addUser(t, s, "alice")
	bob := newUser("bob")
	n := 0
	fill(reflect.ValueOf(bob).Elem(), &n)
	if err := s.InsertUser(t.Context(), bob, "hash of bob", newKeypair(bob, "AKIABOB")); err != nil {
		t.Fatal(err)
	}
	byID, err := s.User(t.Context(), bob.ID)
	if diff := cmp.Diff(bob, byID); diff != "" || err != nil {
		t.Error(err, diff)
	}
	byEmail, err := s.UserByEmail(t.Context(), "ALICE@example.org")
	if diff := cmp.Diff(alice, byEmail); diff != "" || err != nil {
		t.Error(err, diff)
	}
	all, err := s.Users(t.Context())
	if diff := cmp.Diff([]*backendai.User{alice, bob}, all); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if hash, err := s.PasswordHash(t.Context(), alice.ID); err != nil || hash != "hash of alice" {
		t.Error(hash, err)
	}
	alice.FullName, alice.Role, alice.Active = "Alice", backendai.RoleAdmin, false
	if err := s.UpdateUser(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	byID, err = s.User(t.Context(), alice.ID)
	if diff := cmp.Diff(alice, byID); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if hash, err := s.PasswordHash(t.Context(), alice.ID); err != nil || hash != "hash of alice" {
		t.Error("the password changed with the rest:", hash, err)
	}
}

func TestNamesOfUsersAreUnique(t *testing.T) {
	s := openStore(t, t.TempDir())
	addUser(t, s, "alice")
	bob := addUser(t, s, "bob")
	for field, change := range map[string]func(*backendai.User){
		"email":    func(u *backendai.User) { u.Email = "ALICE@example.org" },
		"username": func(u *backendai.User) { u.Username = "Alice" },
	} {
		u := newUser("carol")
		change(u)
		err := s.InsertUser(t.Context(), u, "", newKeypair(u, "AKIACAROL"))
		want := map[string]string{field: "is taken"}
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !reflect.DeepEqual(dataOf(err), any(want)) {
			t.Errorf("insert with the %s of another: %v", field, err)
		}
		changed := *bob
		change(&changed)
		err = s.UpdateUser(t.Context(), &changed)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !reflect.DeepEqual(dataOf(err), any(want)) {
			t.Errorf("update to the %s of another: %v", field, err)
		}
	}
}

// TestUserComesWithItsKeypair or not at all.
func TestUserComesWithItsKeypair(t *testing.T) {
	s := openStore(t, t.TempDir())
	alice := addUser(t, s, "alice")
	bob := newUser("bob")
	if err := s.InsertUser(t.Context(), bob, "", newKeypair(bob, "AKIAALICE")); err == nil {
		t.Fatal("an access key was given twice")
	}
	all, err := s.Users(t.Context())
	if diff := cmp.Diff([]*backendai.User{alice}, all); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestKeypairs(t *testing.T) {
	s := openStore(t, t.TempDir())
	alice, bob := addUser(t, s, "alice"), addUser(t, s, "bob")
	second := newKeypair(alice, "AKIASECOND")
	second.Admin, second.CreatedAt, second.LastUsed = true, start.Add(time.Hour), start.Add(2*time.Hour)
	if err := s.InsertKeypair(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	got, err := s.Keypair(t.Context(), "AKIASECOND")
	if diff := cmp.Diff(second, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	first := newKeypair(alice, "AKIAALICE")
	for userID, want := range map[string][]*backendai.Keypair{
		"":       {first, newKeypair(bob, "AKIABOB"), second},
		alice.ID: {first, second},
		"nobody": nil,
	} {
		got, err := s.Keypairs(t.Context(), userID)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("of %q: %v %s", userID, err, diff)
		}
	}

	if err := s.UseKeypair(t.Context(), "AKIASECOND", start.Add(3*time.Hour)); err != nil {
		t.Error(err)
	}
	if err := s.UseKeypair(t.Context(), "AKIASECOND", start); err != nil { // a write that was overtaken
		t.Error(err)
	}
	changed := *second
	changed.Active, changed.Admin, changed.ResourcePolicy, changed.RateLimit = false, false, "small", 7
	want := changed
	want.LastUsed = start.Add(3 * time.Hour)
	changed.SecretKey, changed.CreatedAt, changed.LastUsed = "another", time.Time{}, time.Time{} // none of these changes
	if err := s.UpdateKeypair(t.Context(), &changed); err != nil {
		t.Error(err)
	}
	got, err = s.Keypair(t.Context(), "AKIASECOND")
	if diff := cmp.Diff(&want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}

	if err := s.DeleteKeypair(t.Context(), "AKIASECOND"); err != nil {
		t.Error(err)
	}
	if _, err := s.Keypair(t.Context(), "AKIASECOND"); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Error(err)
	}
}

func TestSSHKeypair(t *testing.T) {
	s := openStore(t, t.TempDir())
	addUser(t, s, "alice")
	if public, private, err := s.SSHKeypair(t.Context(), "AKIAALICE"); err != nil || public != "" || private != "" {
		t.Errorf("a new keypair has the SSH key %q, %v", public, err)
	}
	if err := s.SetSSHKeypair(t.Context(), "AKIAALICE", "ssh-ed25519 AAAA", "the private half"); err != nil {
		t.Fatal(err)
	}
	public, private, err := s.SSHKeypair(t.Context(), "AKIAALICE")
	if err != nil || public != "ssh-ed25519 AAAA" || private != "the private half" {
		t.Errorf("%q, %q, %v", public, private, err)
	}
	if k, err := s.Keypair(t.Context(), "AKIAALICE"); err != nil || k.SSHPublicKey != "ssh-ed25519 AAAA" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestMissingAccounts(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"User":          func() error { _, err := s.User(ctx, "none"); return err },
		"UserByEmail":   func() error { _, err := s.UserByEmail(ctx, "none"); return err },
		"UpdateUser":    func() error { return s.UpdateUser(ctx, newUser("none")) },
		"PasswordHash":  func() error { _, err := s.PasswordHash(ctx, "none"); return err },
		"Keypair":       func() error { _, err := s.Keypair(ctx, "none"); return err },
		"UpdateKeypair": func() error { return s.UpdateKeypair(ctx, &backendai.Keypair{AccessKey: "none"}) },
		"UseKeypair":    func() error { return s.UseKeypair(ctx, "none", start) },
		"DeleteKeypair": func() error { return s.DeleteKeypair(ctx, "none") },
		"SSHKeypair":    func() error { _, _, err := s.SSHKeypair(ctx, "none"); return err },
		"SetSSHKeypair": func() error { return s.SetSSHKeypair(ctx, "none", "a", "b") },
	} {
		if err := call(); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSecretsAreSealed looks for them in every file of the state directory.
func TestSecretsAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	addUser(t, s, "alice")
	if err := s.SetSSHKeypair(t.Context(), "AKIAALICE", "ssh-ed25519 AAAA", "the private half"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 4 { // database, log, index of the log, key
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"secret of AKIAALICE", "the private half"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %q in the clear", f, secret)
			}
		}
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

// TestSealedSecretsStayInTheirPlace: whoever can write the database cannot give
// a keypair the secret of another one.
func TestSealedSecretsStayInTheirPlace(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	addUser(t, s, "alice")
	addUser(t, s, "bob")
	db := rawDatabase(t, dir)
	_, err := db.ExecContext(context.Background(), "UPDATE keypairs SET secret_key = (SELECT secret_key FROM keypairs WHERE access_key = 'AKIABOB')")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keypair(t.Context(), "AKIABOB"); err != nil {
		t.Error(err)
	}
	if k, err := s.Keypair(t.Context(), "AKIAALICE"); backendai.CodeOf(err) != backendai.CodeInternal {
		t.Errorf("%v, %v", k, err)
	}
}

// rawDatabase opens the database of a state directory beside the store.
func rawDatabase(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, store.DatabaseFile)+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
