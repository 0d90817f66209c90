package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/filter"
	"backendai/internal/session"
	"backendai/internal/store"
)

// zoo are sessions with awkward values in those fields that a filter reads as they are stored.
func zoo(t testing.TB, s *store.Store) []*backendai.Session {
	t.Helper()
	texts := []string{"", "a", "A", "abc", "a%c", "a_c", `a\c`, "a*c", "a?c", "[a]", "a[^b]c", "Ää", "it's", `say "x"`, "50%", "null", "\U0001F600"}
	var all []*backendai.Session
	for i, text := range texts {
		one := newSession(fmt.Sprintf("train-%d", i))
		one.Tag, one.Image, one.Priority = text, texts[(i*7)%len(texts)], i-8
		one.CreatedAt = start.Add(time.Duration(i) * time.Hour)
		if i%3 == 0 {
			one.TerminatedAt = start.Add(time.Duration(i) * time.Minute)
		}
		if err := s.InsertSession(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

var zooFields = filter.Fields{
	"name": filter.Text, "tag": filter.Text, "image": filter.Text, "priority": filter.Number, "created_at": filter.Time, "terminated_at": filter.Time,
}

func zooValue(s *backendai.Session) func(string) any {
	return func(field string) any {
		switch field {
		case "name":
			return s.Name
		case "tag":
			return s.Tag
		case "image":
			return s.Image
		case "priority":
			return float64(s.Priority)
		case "created_at":
			return s.CreatedAt
		default:
			return s.TerminatedAt
		}
	}
}

// FuzzFilterInSQL holds filters in SQL to what they mean in memory.
func FuzzFilterInSQL(f *testing.F) {
	for _, seed := range []string{
		`tag == "a"`, `tag != 'a'`, `tag contains ""`, `tag contains "_"`, `tag like "a_c"`, `tag like "a\%c" | tag like "a*c" | tag like "[a]"`,
		`tag like "a[^b]c"`, `tag like "%\\%"`, `tag ilike "A%C"`, `tag ilike "ÄÄ"`, `tag like "_"`, `tag like "a\\"`, `tag ilike "a\\"`,
		`tag in ["a", "A", null]`, `tag in []`, `!(tag == a) & !(priority > 1.5)`, `priority >= -2 & priority < 3.0`, `priority in (1, -1, 1e300)`,
		`terminated_at == null`, `terminated_at != null`, `!(terminated_at < "2026-01-02T03:10:00Z")`, `terminated_at in [null, "2026-01-02"]`,
		`terminated_at != "2026-01-02T03:04:05.678901234Z"`, `created_at > 2026-01-02T08:00:00Z | tag > "a" & image <= "a"`, `tag < "ä"`, `priority == inf`,
	} {
		f.Add(seed)
	}
	s := openStore(f, f.TempDir())
	all := zoo(f, s)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := filter.Parse(text, zooFields)
		if err != nil {
			return
		}
		want := []string{}
		for _, one := range all {
			if e.Match(zooValue(one)) {
				want = append(want, one.Name)
			}
		}
		found, _, err := s.FindSessions(t.Context(), session.Query{Filter: text, Order: "created_at"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(found)); diff != "" {
			t.Errorf("%q: in memory (-), in SQL (+):\n%s", text, diff)
		}
	})
}

func TestOrderInSQLIsThatInMemory(t *testing.T) {
	s := openStore(t, t.TempDir())
	all := zoo(t, s)
	for _, text := range []string{"tag", "-tag", "priority,tag", "image,-priority", "terminated_at,name", "-terminated_at,-name", "created_at"} {
		keys, err := filter.ParseOrder(text, zooFields)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(all, func(a, b *backendai.Session) int { return filter.Compare(keys, zooValue(a), zooValue(b)) })
		found, _, err := s.FindSessions(t.Context(), session.Query{Order: text})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(names(all), names(found)); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestFilterByOwner(t *testing.T) {
	s := openStore(t, t.TempDir())
	u := addUser(t, s, "alice")
	one := newSession("mysession")
	one.UserID = u.ID
	insert(t, s, one)
	insert(t, s, newSession("another"))
	for text, want := range map[string]string{
		`user_email == "Alice@example.org"`:       "mysession",
		`full_name like "Full%"`:                  "mysession",
		`user_email == ""`:                        "another",
		`user_id == "` + u.ID + `"`:               "mysession",
		`id == "` + strings.ToUpper(one.ID) + `"`: "mysession",
	} {
		found, _, err := s.FindSessions(t.Context(), session.Query{Filter: text})
		if err != nil || !slices.Equal(names(found), []string{want}) {
			t.Errorf("%s: %v, %v", text, names(found), err)
		}
	}
}
