package store_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"backendai"
	"backendai/internal/session"
	"backendai/internal/store"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)

// openStore opens a store in dir that ends with the test.
func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSession(name string) *backendai.Session {
	return &backendai.Session{
		ID: uuid.NewString(), Name: name, AccessKey: "AKIAALICE", UserID: "11111111-0000-4000-8000-000000000001", Domain: "default", Group: "default",
		Type: backendai.Interactive, Image: "localhost/python:3.11", Architecture: "x86_64", Requested: backendai.Slots{"cpu": 1000, "mem": 1 << 30},
		Environ: map[string]string{"A": "ä\nb"}, Status: backendai.StatusPending, StatusChanged: start, CreatedAt: start,
		History: []backendai.StatusChange{{Status: backendai.StatusPending, At: start}},
	}
}

// dataOf is the structured detail of an error.
func dataOf(err error) any {
	if e, ok := errors.AsType[*backendai.Error](err); ok {
		return e.Data
	}
	return nil
}

func insert(t *testing.T, s *store.Store, one *backendai.Session) *backendai.Session {
	t.Helper()
	if err := s.InsertSession(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	return one
}

// fill gives every field of v, however deep, a value that is not its zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(elem, n)
		v.SetMapIndex(key, elem)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(start.Add(time.Duration(*n) * time.Hour)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("fill: " + v.Kind().String())
	}
}

// TestSessionIsKeptWhole holds for every field that a session has or will have.
func TestSessionIsKeptWhole(t *testing.T) {
	s := openStore(t, t.TempDir())
	want, n := &backendai.Session{}, 0
	fill(reflect.ValueOf(want).Elem(), &n)
	insert(t, s, want)
	got, err := s.Session(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	id := want.ID
	fill(reflect.ValueOf(want).Elem(), &n)
	want.ID = id
	if err := s.UpdateSession(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, err = s.Session(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	bare := insert(t, s, &backendai.Session{ID: "bare"})
	if got, err = s.Session(t.Context(), "bare"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bare, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestLiveNamesAreUnique(t *testing.T) {
	s := openStore(t, t.TempDir())
	first := insert(t, s, newSession("mysession"))
	second := newSession("mysession")
	taken := func(err error) {
		t.Helper()
		if backendai.CodeOf(err) != backendai.CodeSessionExists {
			t.Fatalf("err = %v", err)
		}
		want := map[string]string{"existingSessionId": first.ID}
		if diff := cmp.Diff(any(want), dataOf(err)); diff != "" {
			t.Error(diff)
		}
	}
	taken(s.InsertSession(t.Context(), second))

	other := newSession("mysession")
	other.AccessKey = "AKIABOB"
	insert(t, s, other)

	third := insert(t, s, newSession("another"))
	third.Name = "mysession"
	taken(s.UpdateSession(t.Context(), third))

	// An error does not end a session, removal does.
	for status, free := range map[backendai.Status]bool{
		backendai.StatusError: false, backendai.StatusTerminating: false, backendai.StatusTerminated: true, backendai.StatusCancelled: true,
	} {
		first.Status = status
		if err := s.UpdateSession(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		err := s.InsertSession(t.Context(), second)
		if !free {
			taken(err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", status, err)
		}
		second.Status = backendai.StatusTerminated
		if err := s.UpdateSession(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		second = newSession("mysession")
	}

	again := *first
	if err := s.InsertSession(t.Context(), &again); err == nil || backendai.CodeOf(err) == backendai.CodeSessionExists {
		t.Errorf("the same id again: %v", err)
	}
}

func TestMissingSession(t *testing.T) {
	s := openStore(t, t.TempDir())
	if _, err := s.Session(t.Context(), "none"); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("Session: %v", err)
	}
	if err := s.UpdateSession(t.Context(), newSession("mysession")); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("UpdateSession: %v", err)
	}
}

func names(sessions []*backendai.Session) []string {
	list := []string{}
	for _, s := range sessions {
		list = append(list, s.Name)
	}
	return list
}

// people are ten sessions of two users, one every hour; the odd ones are over.
func people(t *testing.T, s *store.Store) {
	t.Helper()
	for i := range 10 {
		one := newSession(fmt.Sprintf("train-%d", i))
		one.CreatedAt = start.Add(time.Duration(i) * time.Hour)
		one.Priority = i
		if i%2 == 1 {
			one.Status, one.TerminatedAt, one.Result = backendai.StatusTerminated, start.Add(100*time.Hour), backendai.ResultSuccess
		}
		if i >= 7 {
			one.AccessKey, one.UserID, one.Tag, one.Type = "AKIABOB", "22222222-0000-4000-8000-000000000002", "50%_*?[a", backendai.Batch
		}
		insert(t, s, one)
	}
}

func TestFindSessions(t *testing.T) {
	s := openStore(t, t.TempDir())
	people(t, s)
	for _, tt := range []struct {
		name  string
		q     session.Query
		want  string // digits of the names
		total int
	}{
		{"all, the newest first", session.Query{}, "9876543210", 10},
		{"of an access key", session.Query{AccessKey: "AKIABOB"}, "987", 3},
		{"of a user", session.Query{UserID: "22222222-0000-4000-8000-000000000002"}, "987", 3},
		{"live ones", session.Query{Statuses: []backendai.Status{backendai.StatusPending, backendai.StatusRunning}}, "86420", 5},
		{"live and over", session.Query{Statuses: []backendai.Status{backendai.StatusPending, backendai.StatusTerminated}}, "9876543210", 10},
		{"of nobody", session.Query{UserID: "nobody"}, "", 0},
		{"first page", session.Query{Limit: 3}, "987", 10},
		{"second page", session.Query{Limit: 3, Offset: 3}, "654", 10},
		{"last page", session.Query{Limit: 3, Offset: 9}, "0", 10},
		{"after the last page", session.Query{Limit: 3, Offset: 12}, "", 10},
		{"all but the first", session.Query{Offset: 8}, "10", 10},
		{"oldest first", session.Query{Order: "+created_at", Limit: 2}, "01", 10},
		{"two keys", session.Query{Order: "-type,priority"}, "0123456789", 10},
		{"two keys down", session.Query{Order: "type,-priority"}, "9876543210", 10},
		{"absent times come first", session.Query{Order: "terminated_at,priority", Limit: 6}, "024681", 10},
		{"equal", session.Query{Filter: `name == "train-3"`}, "3", 1},
		{"unequal", session.Query{Filter: `name != 'train-3' & priority < 5`}, "4210", 4},
		{"and before or", session.Query{Filter: `priority == 1 | priority >= 8 & tag contains "50"`}, "981", 3},
		{"parentheses", session.Query{Filter: `(priority == 1 | priority >= 8) & tag contains "50"`}, "98", 2},
		{"not", session.Query{Filter: `!(priority > 1) & !status == "TERMINATED"`}, "0", 1},
		{"in", session.Query{Filter: `priority in [1, 3, 99]`}, "31", 2},
		{"in nothing", session.Query{Filter: `priority in []`}, "", 0},
		{"capitals of the protocol", session.Query{Filter: `type == "BATCH" & status in (PENDING)`}, "8", 1},
		{"like minds the case", session.Query{Filter: `name like "TRAIN%"`}, "", 0},
		{"like", session.Query{Filter: `name like "t%n__"`}, "9876543210", 10},
		{"ilike", session.Query{Filter: `name ilike "TRAIN_2"`}, "2", 1},
		{"wildcards of SQL and of the shell are plain in a text", session.Query{Filter: `tag like "50\%\_*?[a"`}, "987", 3},
		{"and without regard to case", session.Query{Filter: `tag ilike "50\%\_*?[A"`}, "987", 3},
		{"a pattern that ends in a backslash", session.Query{Filter: `tag ilike "50\\"`}, "", 0},
		{"times", session.Query{Filter: `created_at >= "2026-01-02T10:00:00Z" & created_at < 2026-01-02T12:00:00Z`}, "87", 2},
		{"no time", session.Query{Filter: `terminated_at == null`}, "86420", 5},
		{"not before a time includes none", session.Query{Filter: `!(terminated_at > 2026-01-01)`}, "86420", 5},
		{"a result that is not there yet", session.Query{Filter: `result == "UNDEFINED"`, Statuses: []backendai.Status{backendai.StatusTerminated}}, "", 0},
		{"with everything", session.Query{AccessKey: "AKIABOB", Filter: `priority > 0`, Order: "+name", Offset: 1, Limit: 1}, "8", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found, total, err := s.FindSessions(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{}
			for _, digit := range tt.want {
				want = append(want, "train-"+string(digit))
			}
			if diff := cmp.Diff(want, names(found)); diff != "" || total != tt.total {
				t.Errorf("total %d, want %d; %s", total, tt.total, diff)
			}
		})
	}
}

func TestBadFilterOfSessions(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, q := range []session.Query{
		{Filter: `secret == "x"`},
		{Filter: `name == "x" OR 1=1`},
		{Filter: `name`},
		{Order: "name; DROP TABLE sessions"},
		{Order: "detail"},
	} {
		_, _, err := s.FindSessions(t.Context(), q)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), "at character") {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestCancelledCallsEnd(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	one := newSession("mysession")
	if err := s.InsertSession(ctx, one); err == nil {
		t.Error("InsertSession went on")
	}
	if _, _, err := s.FindSessions(ctx, session.Query{}); err == nil {
		t.Error("FindSessions went on")
	}
	found, _, err := s.FindSessions(t.Context(), session.Query{})
	if err != nil || len(found) != 0 {
		t.Errorf("%v, %v", names(found), err)
	}
	insert(t, s, one)
	if found, _, err = s.FindSessions(t.Context(), session.Query{}); err != nil || !slices.Equal(names(found), []string{"mysession"}) {
		t.Errorf("%v, %v", names(found), err)
	}
}

// TestCallsThatAreCutOff ends calls at every moment: what was acknowledged is
// there, nothing is there in part, and the store goes on.
func TestCallsThatAreCutOff(t *testing.T) {
	s := openStore(t, t.TempDir())
	acknowledged := 0
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		one := newSession(fmt.Sprintf("mysession-%d", i))
		err := s.InsertSession(ctx, one)
		cancel()
		got, missing := s.Session(t.Context(), one.ID)
		switch {
		case err == nil && missing != nil:
			t.Errorf("%d was acknowledged: %v", i, missing)
		case err == nil:
			acknowledged++
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("%d: %v", i, err)
		}
		if missing == nil && got.Name != one.Name {
			t.Errorf("%d is %+v", i, got)
		}
	}
	insert(t, s, newSession("mysession"))
	if acknowledged == 300 {
		t.Error("no call was cut off")
	}
}

func BenchmarkSessionWrites(b *testing.B) {
	s := openStore(b, b.TempDir())
	for i := range 2000 {
		one := newSession(fmt.Sprintf("old-%d", i))
		one.Status = backendai.StatusTerminated
		if err := s.InsertSession(b.Context(), one); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Insert", func(b *testing.B) {
		for b.Loop() {
			if err := s.InsertSession(b.Context(), newSession(uuid.NewString())); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Update", func(b *testing.B) {
		one := newSession("mysession")
		if err := s.InsertSession(b.Context(), one); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			one.StatusMessage += "x"
			if len(one.StatusMessage) > 100 {
				one.StatusMessage = ""
			}
			if err := s.UpdateSession(b.Context(), one); err != nil {
				b.Fatal(err)
			}
		}
	})
}
