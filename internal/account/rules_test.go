package account_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
)

func TestAddUser(t *testing.T) {
	w := newWorld(t)
	u, k, err := w.AddUser(t.Context(), w.admin, backendai.User{Email: "Alice@Example.org", FullName: "Ālice Ñ", Active: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	want := &backendai.User{
		ID: u.ID, Email: "alice@example.org", Username: "Alice@Example.org", FullName: "Ālice Ñ", Role: backendai.RoleUser,
		Domain: "default", Group: "default", Active: true, CreatedAt: w.now,
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
	if got := w.lookup(k.AccessKey); got.User != *u || got.Keypair.SecretKey != k.SecretKey || got.Keypair.Admin || got.Keypair.RateLimit != 30_000 {
		t.Errorf("%+v", got)
	}
	for name, tt := range map[string]struct {
		user     backendai.User
		password string
		code     backendai.Code
		words    string
	}{
		"taken":                {backendai.User{Email: "ALICE@example.org", Username: "x"}, password, backendai.CodeInvalidParams, `e-mail address "alice@example.org" already`},
		"taken name":           {backendai.User{Email: "b@example.org", Username: "ADMIN"}, password, backendai.CodeInvalidParams, `user name "ADMIN" already`},
		"no address":           {backendai.User{Username: "x"}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"address with a name":  {backendai.User{Email: "B <b@example.org>"}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"quoted address":       {backendai.User{Email: `"b b"@example.org`}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"address with a break": {backendai.User{Email: "b@example.org\r\nx"}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"look-alike address":   {backendai.User{Email: "аlice@example.org"}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"long address":         {backendai.User{Email: strings.Repeat("b", 250) + "@example.org"}, password, backendai.CodeInvalidParams, "not an e-mail address"},
		"odd user name":        {backendai.User{Email: "b@example.org", Username: "b\x1b[2J"}, password, backendai.CodeInvalidParams, "not a user name"},
		"escape in full name":  {backendai.User{Email: "b@example.org", FullName: "b\x1b[2J"}, password, backendai.CodeInvalidParams, "full name"},
		"long description":     {backendai.User{Email: "b@example.org", Description: strings.Repeat("ä", 1025)}, password, backendai.CodeInvalidParams, "description"},
		"unknown role":         {backendai.User{Email: "b@example.org", Role: "root"}, password, backendai.CodeInvalidParams, `"root" is not a role`},
		"unknown domain":       {backendai.User{Email: "b@example.org", Domain: "other"}, password, backendai.CodeNotFound, `no such domain: "other"`},
		"unknown group":        {backendai.User{Email: "b@example.org", Group: "other"}, password, backendai.CodeNotFound, `no such group: "other"`},
		"no password":          {backendai.User{Email: "b@example.org"}, "", backendai.CodeInvalidParams, "8 to 128"},
		"short password":       {backendai.User{Email: "b@example.org"}, "äöüäöüä", backendai.CodeInvalidParams, "8 to 128"},
		"long password":        {backendai.User{Email: "b@example.org"}, strings.Repeat("x", 129), backendai.CodeInvalidParams, "8 to 128"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.AddUser(t.Context(), w.admin, tt.user, tt.password)
			w.code(err, tt.code, tt.words)
		})
	}
	if all, err := w.Users(t.Context(), w.admin); err != nil || len(all) != 2 {
		t.Errorf("%d users, %v", len(all), err)
	}
}

func emails[T backendai.User | backendai.Keypair](list []*T) []string {
	var names []string
	for _, v := range list {
		switch v := any(v).(type) {
		case *backendai.User:
			names = append(names, v.Email)
		case *backendai.Keypair:
			names = append(names, v.Email)
		}
	}
	return names
}

// TestOwn is what everybody but superadmins may do: see and change their own.
func TestOwn(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.add("bob", "")
	for _, alice := range []backendai.Caller{w.add("alice", ""), w.add("domain-admin", backendai.RoleAdmin)} {
		own := []string{alice.User.Email}
		users, err := w.Users(ctx, alice)
		if !slices.Equal(emails(users), own) || err != nil {
			t.Error(emails(users), err)
		}
		keypairs, err := w.Keypairs(ctx, alice)
		if !slices.Equal(emails(keypairs), own) || err != nil {
			t.Error(emails(keypairs), err)
		}
		if u, err := w.User(ctx, alice, strings.ToUpper(alice.User.Email)); err != nil || u.ID != alice.User.ID {
			t.Error(u, err)
		}

		changed := alice.User
		changed.FullName, changed.Description, changed.Username = "Full", "some text", "new-"+changed.Username
		if u, err := w.UpdateUser(ctx, alice, changed); err != nil || *u != changed {
			t.Error(u, err)
		}
		for name, change := range map[string]func(*backendai.User){
			"role":   func(u *backendai.User) { u.Role = backendai.RoleSuperadmin },
			"active": func(u *backendai.User) { u.Active = false },
			"email":  func(u *backendai.User) { u.Email = "other@example.org" },
		} {
			u := changed
			change(&u)
			_, err := w.UpdateUser(ctx, alice, u)
			if backendai.CodeOf(err) != backendai.CodeForbidden {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, _, err = w.AddUser(ctx, alice, backendai.User{Email: "x@example.org"}, password)
		w.code(err, backendai.CodeForbidden, "only a superadmin may add users")

		second, err := w.AddKeypair(ctx, alice, alice.User.Email, backendai.Keypair{Active: true})
		if err != nil {
			t.Fatal(err)
		}
		if second.RateLimit != alice.Keypair.RateLimit || second.UserID != alice.User.ID {
			t.Errorf("%+v", second)
		}
		_, err = w.AddKeypair(ctx, alice, alice.User.Email, backendai.Keypair{RateLimit: 1 << 30})
		w.code(err, backendai.CodeForbidden, "only a superadmin may give a rate limit")
		if k, err := w.SetKeypairActive(ctx, alice, second.AccessKey, false); err != nil || k.Active {
			t.Error(k, err)
		}
		if err := w.DeleteKeypair(ctx, alice, second.AccessKey); err != nil {
			t.Error(err)
		}
	}
}

// TestStranger: what belongs to others answers as what does not exist.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	alice, stranger := w.add("alice", ""), w.add("stranger", backendai.RoleAdmin)
	theirs, key := alice.User, alice.Keypair.AccessKey
	nobody := theirs
	nobody.ID, nobody.Email = "nobody", "nobody@example.org"
	for name, call := range map[string]func(u backendai.User, key string) error{
		"User":       func(u backendai.User, _ string) error { _, err := w.User(ctx, stranger, u.Email); return err },
		"UpdateUser": func(u backendai.User, _ string) error { _, err := w.UpdateUser(ctx, stranger, u); return err },
		"AddKeypair": func(u backendai.User, _ string) error {
			_, err := w.AddKeypair(ctx, stranger, u.Email, backendai.Keypair{})
			return err
		},
		"SetKeypairActive": func(_ backendai.User, key string) error {
			_, err := w.SetKeypairActive(ctx, stranger, key, false)
			return err
		},
		"DeleteKeypair": func(_ backendai.User, key string) error { return w.DeleteKeypair(ctx, stranger, key) },
		"Act":           func(_ backendai.User, key string) error { _, err := w.Act(ctx, stranger, key); return err },
	} {
		theirs, nothing := call(theirs, key), call(nobody, "AKIANONE")
		if backendai.CodeOf(theirs) != backendai.CodeNotFound || backendai.CodeOf(nothing) != backendai.CodeNotFound {
			t.Errorf("%s: %v, %v", name, theirs, nothing)
			continue
		}
		told := strings.NewReplacer(alice.User.Email, nobody.Email, key, "AKIANONE").Replace(theirs.Error())
		if told != nothing.Error() {
			t.Errorf("%s tells a stranger more than that it does not exist: %q, %q", name, theirs, nothing)
		}
	}
	if now := w.lookup(key); now.User != alice.User {
		t.Errorf("%+v", now.User)
	}
}

func TestSuperadminsKeepAWayIn(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	key := w.admin.Keypair.AccessKey
	stay := func() {
		t.Helper()
		_, err := w.SetKeypairActive(ctx, w.admin, key, false)
		w.code(err, backendai.CodeInvalidParams, "this would lock you out: it is your last active keypair")
		w.code(w.DeleteKeypair(ctx, w.admin, key), backendai.CodeInvalidParams, "this would lock you out")
	}
	stay()
	if _, err := w.AddKeypair(ctx, w.admin, w.admin.User.Email, backendai.Keypair{Active: false}); err != nil {
		t.Fatal(err)
	}
	other := w.add("root", backendai.RoleSuperadmin)
	stay() // neither a keypair that is not active nor another superadmin helps
	for name, change := range map[string]func(*backendai.User){
		"off":     func(u *backendai.User) { u.Active = false },
		"demoted": func(u *backendai.User) { u.Role = backendai.RoleUser },
	} {
		u := w.admin.User
		change(&u)
		if _, err := w.UpdateUser(ctx, w.admin, u); backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), "lock you out") {
			t.Errorf("%s: %v", name, err)
		}
	}
	second, err := w.AddKeypair(ctx, w.admin, w.admin.User.Email, backendai.Keypair{Active: true})
	if err != nil {
		t.Fatal(err)
	}
	if !second.Admin || second.RateLimit != 0 {
		t.Errorf("%+v", second)
	}
	if err := w.DeleteKeypair(ctx, w.admin, key); err != nil {
		t.Error(err)
	}
	// Others may take it all.
	if _, err := w.SetKeypairActive(ctx, other, second.AccessKey, false); err != nil {
		t.Error(err)
	}
	u := w.admin.User
	u.Active = false
	if _, err := w.UpdateUser(ctx, other, u); err != nil {
		t.Error(err)
	}
}

func TestAddKeypair(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	alice := w.add("alice", "")
	k, err := w.AddKeypair(ctx, w.admin, "ALICE@example.org", backendai.Keypair{
		AccessKey: "AKIAMINE", SecretKey: "mine", UserID: "other", RateLimit: 5, Active: true, SSHPublicKey: "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	if k.AccessKey == "AKIAMINE" || k.SecretKey == "mine" || k.UserID != alice.User.ID || k.RateLimit != 5 || k.Admin || k.SSHPublicKey != "" {
		t.Errorf("%+v", k)
	}
	for words, k := range map[string]backendai.Keypair{
		"no such resource policy":      {ResourcePolicy: "large"},
		"is no administrator":          {Admin: true},
		"a rate limit is not negative": {RateLimit: -1},
	} {
		_, err := w.AddKeypair(ctx, w.admin, "alice@example.org", k)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %s", err, words)
		}
	}
	_, err = w.AddKeypair(ctx, w.admin, "nobody@example.org", backendai.Keypair{})
	w.code(err, backendai.CodeNotFound, `no such user: "nobody@example.org"`)
	for n := 2; n < 16; n++ {
		if _, err := w.AddKeypair(ctx, alice, "alice@example.org", backendai.Keypair{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.AddKeypair(ctx, alice, "alice@example.org", backendai.Keypair{})
	w.code(err, backendai.CodeInvalidParams, "you have 16 keypairs")
}

func TestUpdateUser(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	u := alice.User
	u.Email, u.Username, u.CreatedAt = "Eve@Example.org", "eve", u.CreatedAt.AddDate(1, 0, 0)
	got, err := w.UpdateUser(t.Context(), w.admin, u)
	if err != nil || got.Email != "eve@example.org" || got.Username != "eve" || !got.CreatedAt.Equal(alice.User.CreatedAt) {
		t.Errorf("%+v, %v", got, err)
	}
	if now := w.lookup(alice.Keypair.AccessKey); now.Keypair.Email != "eve@example.org" || now.User.Email != "eve@example.org" {
		t.Errorf("%+v", now)
	}
	u.Email = "admin@localhost"
	_, err = w.UpdateUser(t.Context(), w.admin, u)
	w.code(err, backendai.CodeInvalidParams, "already")
	u.Email, u.Role = "not an address", backendai.RoleUser
	_, err = w.UpdateUser(t.Context(), w.admin, u)
	w.code(err, backendai.CodeInvalidParams, "not an e-mail address")
	_, err = w.UpdateUser(t.Context(), w.admin, backendai.User{ID: "none", Email: "x@example.org"})
	w.code(err, backendai.CodeNotFound, "no such user")
}
