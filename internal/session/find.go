package session

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"backendai"
)

// maxDead bounds how many ended sessions are looked at for one reference.
const maxDead = 100

// refRE is what may be a reference; nothing else has ever been a name or an id.
var refRE = regexp.MustCompile(`^[\w.-]{1,64}$`)

func (s *Service) byID(id string) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.live[id]
}

func (s *Service) byName(key nameKey) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[key]
}

// owns tells whether a session exists for the caller.
func owns(caller backendai.Caller, one *backendai.Session) bool {
	return caller.Superadmin() || one.UserID == caller.User.ID
}

// visible lists the live sessions of the caller, the oldest first.
func (s *Service) visible(caller backendai.Caller) []*live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*live
	for _, l := range s.live {
		if owns(caller, l.now()) {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *live) int {
		if c := a.now().CreatedAt.Compare(b.now().CreatedAt); c != 0 {
			return c
		}
		return cmp.Compare(a.id, b.id)
	})
	return list
}

// resolve finds the live session that a reference means: a full id, an id
// prefix, an exact name, or a name prefix, the first that fits. What belongs to
// the caller's own key comes before what else it may see, so that a superadmin
// can have a session of a name that others use too; and the whole name of an own
// session always means that one, though it may begin some id by chance.
func (s *Service) resolve(caller backendai.Caller, ref string) (*live, error) {
	if l := s.byID(ref); l != nil && owns(caller, l.now()) {
		return l, nil
	}
	if l := s.byName(nameKey{caller.Keypair.AccessKey, ref}); l != nil && s.byID(l.id) == l {
		return l, nil
	}
	if !refRE.MatchString(ref) {
		return nil, noSession(ref)
	}
	all := s.visible(caller)
	scopes := []func(*backendai.Session) bool{
		func(one *backendai.Session) bool { return one.AccessKey == caller.Keypair.AccessKey },
		func(one *backendai.Session) bool { return one.UserID == caller.User.ID },
		func(*backendai.Session) bool { return true },
	}
	steps := []func(*backendai.Session) bool{
		func(one *backendai.Session) bool { return strings.HasPrefix(one.ID, strings.ToLower(ref)) },
		func(one *backendai.Session) bool { return one.Name == ref },
		func(one *backendai.Session) bool { return strings.HasPrefix(one.Name, ref) },
	}
	for _, scope := range scopes {
		for _, fits := range steps {
			var hits []*live
			for _, l := range all {
				if one := l.now(); scope(one) && fits(one) {
					hits = append(hits, l)
				}
			}
			switch len(hits) {
			case 0:
			case 1:
				return hits[0], nil
			default:
				found := make([]*backendai.Session, len(hits))
				for i, l := range hits {
					found[i] = l.now()
				}
				return nil, tooMany(ref, found)
			}
		}
	}
	return nil, noSession(ref)
}

func noSession(ref string) error {
	return backendai.NotFound("session", ref).WithHint("'backend.ai ps' lists yours")
}

func tooMany(ref string, found []*backendai.Session) error {
	matches := make([]map[string]any, len(found))
	for i, one := range found {
		matches[i] = map[string]any{
			"id": one.ID, "name": one.Name, "status": one.Status, "created_at": one.CreatedAt.UTC().Format(time.RFC3339Nano),
		}
	}
	return backendai.Errorf(backendai.CodeTooManySessions, "%q fits %d sessions", ref, len(found)).
		WithHint("write more of the name, or the whole id").
		WithData(map[string]any{"matches": matches})
}

// Find implements API.
func (s *Service) Find(ctx context.Context, caller backendai.Caller, ref string, withDead bool) (*backendai.Session, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	l, err := s.resolve(caller, ref)
	if err == nil {
		return copyOf(l.now()), nil
	}
	if !withDead || backendai.CodeOf(err) != backendai.CodeNotFound {
		return nil, err
	}
	return s.findDead(ctx, caller, ref)
}

// findDead finds a session that has ended. Many can have had the same name: the
// last of them is meant.
func (s *Service) findDead(ctx context.Context, caller backendai.Caller, ref string) (*backendai.Session, error) {
	if !refRE.MatchString(ref) {
		return nil, noSession(ref)
	}
	if one, err := s.opts.Store.Session(ctx, strings.ToLower(ref)); err == nil && owns(caller, one) {
		return one, nil
	} else if err != nil && backendai.CodeOf(err) != backendai.CodeNotFound {
		return nil, fmt.Errorf("find session %q: %w", ref, err)
	}
	owners := []string{caller.User.ID}
	if caller.Superadmin() {
		owners = append(owners, "")
	}
	pattern := strings.ReplaceAll(ref, "_", `\\_`) // in the filter's language; no other sign of a reference means anything there
	filters := []string{
		fmt.Sprintf(`id like "%s%%"`, strings.ToLower(pattern)), fmt.Sprintf(`name == "%s"`, ref), fmt.Sprintf(`name like "%s%%"`, pattern),
	}
	for _, owner := range owners {
		for i, f := range filters {
			q := Query{UserID: owner, Statuses: finalStatuses(), Filter: f, Order: "-created_at", Limit: maxDead}
			found, _, err := s.opts.Store.FindSessions(ctx, q)
			if err != nil {
				return nil, fmt.Errorf("find session %q: %w", ref, err)
			}
			if len(found) == 0 {
				continue
			}
			other := slices.ContainsFunc(found, func(one *backendai.Session) bool { return one.Name != found[0].Name })
			if len(found) > 1 && (i == 0 || other) {
				return nil, tooMany(ref, found)
			}
			return found[0], nil
		}
	}
	return nil, noSession(ref)
}

func finalStatuses() []backendai.Status {
	return slices.DeleteFunc(backendai.Statuses(), func(st backendai.Status) bool { return !st.Final() })
}

func liveStatuses() []backendai.Status {
	return slices.DeleteFunc(backendai.Statuses(), backendai.Status.Final)
}

// Match implements API.
func (s *Service) Match(ctx context.Context, caller backendai.Caller, prefix string) ([]*backendai.Session, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	var found []*backendai.Session
	for _, l := range s.visible(caller) {
		if one := l.now(); strings.HasPrefix(one.ID, strings.ToLower(prefix)) || strings.HasPrefix(one.Name, prefix) {
			found = append(found, copyOf(one))
		}
	}
	return found, nil
}

// List implements API.
func (s *Service) List(ctx context.Context, caller backendai.Caller, q Query) ([]*backendai.Session, int, error) {
	if err := s.wait(ctx); err != nil {
		return nil, 0, err
	}
	if !caller.Superadmin() {
		q.UserID = caller.User.ID
	}
	found, total, err := s.opts.Store.FindSessions(ctx, q)
	if err != nil {
		return nil, 0, fmt.Errorf("list sessions: %w", err)
	}
	for _, one := range found {
		// What a session waits for is in memory alone.
		if l := s.byID(one.ID); l != nil && l.now().Status == one.Status {
			one.StatusMessage = l.now().StatusMessage
		}
	}
	return found, total, nil
}
