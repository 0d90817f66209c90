package account_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/store"
)

// world is a service on a real store, with a clock of its own.
type world struct {
	t     *testing.T
	store *spy
	*account.Service
	admin backendai.Caller

	mu  sync.Mutex
	now time.Time
}

// spy is a store that tells of the writes of last uses and can hold calls up.
type spy struct {
	*store.Store
	uses   chan time.Time
	before func() // before every write of a last use
	read   func() // after every read of a user
}

func (s *spy) UseKeypair(ctx context.Context, accessKey string, at time.Time) error {
	if s.before != nil {
		s.before()
	}
	err := s.Store.UseKeypair(ctx, accessKey, at)
	s.uses <- at
	return err
}

func (s *spy) User(ctx context.Context, id string) (*backendai.User, error) {
	u, err := s.Store.User(ctx, id)
	if s.read != nil {
		s.read()
	}
	return u, err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: &spy{Store: db, uses: make(chan time.Time, 1000)}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.Service = account.New(w.store, account.Options{Now: w.clock})
	t.Cleanup(func() {
		w.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	k, made, err := w.Bootstrap(t.Context())
	if err != nil || !made {
		t.Fatal(made, err)
	}
	w.admin = w.lookup(k.AccessKey)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) lookup(accessKey string) backendai.Caller {
	w.t.Helper()
	c, err := w.Lookup(w.t.Context(), accessKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

const password = "correct horse"

// add adds a user and looks its keypair up.
func (w *world) add(name string, role backendai.Role) backendai.Caller {
	w.t.Helper()
	_, k, err := w.AddUser(w.t.Context(), w.admin, backendai.User{Email: name + "@example.org", Username: name, Role: role, Active: true}, password)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.lookup(k.AccessKey)
}

// code checks an error's code and that it is of one line.
func (w *world) code(err error, want backendai.Code, words string) {
	w.t.Helper()
	if backendai.CodeOf(err) != want || err != nil && (!strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n")) {
		w.t.Errorf("%q (%v); want %q with %q", backendai.CodeOf(err), err, want, words)
	}
}

func (w *world) refused(accessKey string) {
	w.t.Helper()
	_, err := w.Lookup(w.t.Context(), accessKey)
	w.code(err, backendai.CodeAuthFailed, "the access key is unknown or not active")
}

func TestBootstrap(t *testing.T) {
	w := newWorld(t)
	u, k := w.admin.User, w.admin.Keypair
	want := backendai.User{
		ID: u.ID, Email: "admin@localhost", Username: "admin", FullName: "Administrator", Role: backendai.RoleSuperadmin,
		Domain: "default", Group: "default", Active: true, CreatedAt: w.now,
	}
	if diff := cmp.Diff(want, u); diff != "" || u.ID == "" {
		t.Error(diff)
	}
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(k.AccessKey) || !regexp.MustCompile(`^[A-Za-z0-9_-]{40}$`).MatchString(k.SecretKey) {
		t.Errorf("%+v", k)
	}
	if !k.Active || !k.Admin || k.RateLimit != 0 || k.ResourcePolicy != "default" || k.SSHPublicKey != "" || k.Email != u.Email {
		t.Errorf("%+v", k)
	}
	if again, made, err := w.Bootstrap(t.Context()); again != nil || made || err != nil {
		t.Errorf("again: %v, %t, %v", again, made, err)
	}
}

func TestBootstrapOnce(t *testing.T) {
	db, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := account.New(db, account.Options{})
	defer s.Close()
	var all sync.WaitGroup
	var mu sync.Mutex
	times := 0
	for range 8 {
		all.Go(func() {
			_, made, err := s.Bootstrap(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if made {
				times++
			}
		})
	}
	all.Wait()
	if times != 1 {
		t.Errorf("made %d administrators", times)
	}
}

func TestLookupSeesChangesAtOnce(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	key := alice.Keypair.AccessKey
	set := func(active bool) {
		t.Helper()
		if _, err := w.SetKeypairActive(t.Context(), w.admin, key, active); err != nil {
			t.Fatal(err)
		}
	}
	set(false)
	w.refused(key)
	set(true)
	w.lookup(key)

	u := alice.User
	u.Active = false
	if _, err := w.UpdateUser(t.Context(), w.admin, u); err != nil {
		t.Fatal(err)
	}
	w.refused(key)
	u.Active, u.Role = true, backendai.RoleSuperadmin
	if _, err := w.UpdateUser(t.Context(), w.admin, u); err != nil {
		t.Fatal(err)
	}
	if now := w.lookup(key); !now.Superadmin() || !now.Keypair.Admin {
		t.Errorf("%+v", now)
	}
	u.Role = backendai.RoleUser
	if _, err := w.UpdateUser(t.Context(), w.admin, u); err != nil {
		t.Fatal(err)
	}
	if now := w.lookup(key); now.Superadmin() || now.Keypair.Admin || now.Keypair.RateLimit != 30_000 {
		t.Errorf("%+v", now)
	}
	if err := w.DeleteKeypair(t.Context(), w.admin, key); err != nil {
		t.Fatal(err)
	}
	w.refused(key)
	for _, key := range []string{"", "AKIANONE", strings.Repeat("A", 100_000), key + " ", strings.ToLower(w.admin.Keypair.AccessKey)} {
		w.refused(key)
	}
}

// TestLookupDuringChange: what was read before a change is not remembered after it.
func TestLookupDuringChange(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	if _, err := w.SetKeypairActive(t.Context(), w.admin, alice.Keypair.AccessKey, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.SetKeypairActive(t.Context(), w.admin, alice.Keypair.AccessKey, true); err != nil {
		t.Fatal(err)
	}
	w.store.read = func() { // both halves are read, and are active
		w.store.read = nil
		if _, err := w.SetKeypairActive(t.Context(), w.admin, alice.Keypair.AccessKey, false); err != nil {
			t.Error(err)
		}
	}
	_, _ = w.Lookup(t.Context(), alice.Keypair.AccessKey) // began before the change: both answers are right
	w.refused(alice.Keypair.AccessKey)
}

// TestHold: what is held by a keypair ends with it, and with nothing else.
func TestHold(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.add("alice", ""), w.add("bob", "")
	hold := func(who backendai.Caller) (context.Context, func()) {
		t.Helper()
		held, release, err := w.Hold(t.Context(), who.Keypair.AccessKey)
		if err != nil {
			t.Fatal(err)
		}
		return held, release
	}
	first, releaseFirst := hold(alice)
	second, releaseSecond := hold(alice)
	other, releaseOther := hold(bob)
	releaseFirst()
	releaseFirst()
	if first.Err() != nil || second.Err() != nil {
		t.Error("the first release ends what is held")
	}
	u := alice.User
	for _, active := range []bool{false, true} {
		u.Active = active
		if _, err := w.UpdateUser(t.Context(), w.admin, u); err != nil {
			t.Fatal(err)
		}
		if code := backendai.CodeOf(context.Cause(second)); code != backendai.CodeAuthFailed {
			t.Errorf("what a user held who is not active: %v", context.Cause(second))
		}
		if _, _, err := w.Hold(t.Context(), alice.Keypair.AccessKey); active != (err == nil) {
			t.Errorf("Hold of a user who is active (%t): %v", active, err)
		}
	}
	again, releaseAgain := hold(alice)
	releaseSecond() // of the hold that has ended
	if again.Err() != nil || other.Err() != nil {
		t.Error("the release of an earlier hold ends others")
	}
	if err := w.DeleteKeypair(t.Context(), w.admin, alice.Keypair.AccessKey); err != nil {
		t.Fatal(err)
	}
	if again.Err() == nil || other.Err() != nil {
		t.Errorf("after the keypair is deleted: %v, another's %v", again.Err(), other.Err())
	}
	releaseAgain()
	releaseOther()
	if other.Err() == nil {
		t.Error("nobody holds it, and it goes on")
	}
}

// TestHoldDuringChange: nothing goes on that began while the keypair was
// deactivated.
func TestHoldDuringChange(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	w.add("bob", "")        // what is known of alice is forgotten
	w.store.read = func() { // both halves are read, and are active
		w.store.read = nil
		if _, err := w.SetKeypairActive(t.Context(), w.admin, alice.Keypair.AccessKey, false); err != nil {
			t.Error(err)
		}
	}
	held, release, err := w.Hold(t.Context(), alice.Keypair.AccessKey)
	if w.store.read != nil {
		t.Fatal("nothing was read")
	}
	if err != nil {
		return // which is as good
	}
	defer release()
	if held.Err() == nil {
		t.Error("what is held goes on")
	}
}

func TestLastUse(t *testing.T) {
	w := newWorld(t)
	key := w.admin.Keypair.AccessKey
	first := w.now
	if at := <-w.store.uses; !at.Equal(first) {
		t.Errorf("first use at %v", at)
	}
	for range 59 {
		w.pass(time.Second)
		if c := w.lookup(key); !c.Keypair.LastUsed.Equal(first) {
			t.Errorf("last use %v", c.Keypair.LastUsed)
		}
	}
	w.pass(time.Second)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := w.Lookup(t.Context(), key); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if at := <-w.store.uses; !at.Equal(first.Add(time.Minute)) {
		t.Errorf("second use at %v", at)
	}
	if c := w.lookup(key); !c.Keypair.LastUsed.Equal(first.Add(time.Minute)) {
		t.Errorf("last use %v", c.Keypair.LastUsed)
	}
	list, err := w.Keypairs(t.Context(), w.admin)
	if err != nil || len(list) != 1 || !list[0].LastUsed.Equal(first.Add(time.Minute)) {
		t.Errorf("%v, %v", list, err)
	}

	// A store that hangs holds nobody up, and a change that forgets what was
	// looked up writes nothing anew.
	hold := make(chan struct{})
	w.store.before = func() { <-hold }
	w.pass(time.Minute)
	w.lookup(key)
	close(hold)
	<-w.store.uses
	w.store.before = nil
	w.add("alice", "")
	<-w.store.uses // of alice
	w.lookup(key)
	w.Close()
	if len(w.store.uses) != 0 {
		t.Errorf("%d more writes", len(w.store.uses))
	}
	w.pass(time.Hour)
	w.lookup(key) // after Close: works, and writes nothing
	if len(w.store.uses) != 0 {
		t.Errorf("%d writes after Close", len(w.store.uses))
	}
}

func TestAct(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.add("alice", ""), w.add("bob", backendai.RoleAdmin)
	second, err := w.AddKeypair(t.Context(), alice, alice.User.Email, backendai.Keypair{Active: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		caller backendai.Caller
		owner  string
		want   string // user name; "" is not found
	}{
		{alice, "", "alice"},
		{alice, alice.Keypair.AccessKey, "alice"},
		{alice, second.AccessKey, "alice"},
		{alice, bob.Keypair.AccessKey, ""},
		{bob, alice.Keypair.AccessKey, ""},
		{alice, w.admin.Keypair.AccessKey, ""},
		{alice, "AKIANONE", ""},
		{w.admin, alice.Keypair.AccessKey, "alice"},
		{w.admin, "AKIANONE", ""},
	} {
		got, err := w.Act(t.Context(), tt.caller, tt.owner)
		if tt.want == "" {
			w.code(err, backendai.CodeNotFound, `no such active keypair: "`+tt.owner+`"`)
		} else if err != nil || got.User.Username != tt.want || tt.owner != "" && got.Keypair.AccessKey != tt.owner {
			t.Errorf("%s by %q: %+v, %v", tt.caller.User.Username, tt.owner, got, err)
		}
	}
	if _, err := w.SetKeypairActive(t.Context(), w.admin, second.AccessKey, false); err != nil {
		t.Fatal(err)
	}
	_, err = w.Act(t.Context(), w.admin, second.AccessKey)
	w.code(err, backendai.CodeNotFound, second.AccessKey)
}

func TestAuthenticate(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	u, err := w.Authenticate(t.Context(), "Alice@Example.org", password)
	if err != nil || u.ID != alice.User.ID {
		t.Errorf("%v, %v", u, err)
	}
	hash, err := w.store.PasswordHash(t.Context(), u.ID)
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(hash, password) {
		t.Error(hash, err)
	}
	for _, pair := range [][2]string{
		{"alice@example.org", "wrong horse"},
		{"alice@example.org", ""},
		{"alice@example.org", strings.Repeat("x", 1<<20)},
		{"nobody@example.org", password},
		{"admin@localhost", ""}, // has no password
		{"admin@localhost", password},
	} {
		_, err := w.Authenticate(t.Context(), pair[0], pair[1])
		w.code(err, backendai.CodeAuthFailed, "the e-mail address or the password is wrong")
	}
	off := alice.User
	off.Active = false
	if _, err := w.UpdateUser(t.Context(), w.admin, off); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), "alice@example.org", password)
	w.code(err, backendai.CodeAuthFailed, "wrong")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Authenticate(gone, "alice@example.org", password); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
