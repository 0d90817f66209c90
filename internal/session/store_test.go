package session_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"backendai"
	"backendai/internal/filter"
	"backendai/internal/session"
)

var errDead = errors.New("this server is dead")

// database is what outlives a server.
type database struct {
	mu       sync.Mutex
	sessions map[string]*backendai.Session
	writes   int
}

func newDatabase() *database { return &database{sessions: map[string]*backendai.Session{}} }

// store is one server's access to the database.
type store struct {
	*database
	mu      sync.Mutex
	dead    bool
	failing error
	// before is called with every change before it is made, and after then; an
	// error of before is that of the change.
	before func(*backendai.Session) error
	after  func(*backendai.Session)
}

func (s *store) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
}

func (s *store) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	return s.failing
}

func clone(one *backendai.Session) *backendai.Session {
	c := *one
	c.Requested, c.Environ = maps.Clone(one.Requested), maps.Clone(one.Environ)
	c.History, c.Apps, c.Mounts = slices.Clone(one.History), slices.Clone(one.Apps), slices.Clone(one.Mounts)
	c.Dependencies, c.PreopenPorts = slices.Clone(one.Dependencies), slices.Clone(one.PreopenPorts)
	return &c
}

func (s *store) put(one *backendai.Session, fresh bool) error {
	if s.before != nil {
		if err := s.before(one); err != nil {
			return err
		}
	}
	if err := s.alive(); err != nil {
		return err
	}
	s.database.mu.Lock()
	if !fresh && s.sessions[one.ID] == nil {
		s.database.mu.Unlock()
		return backendai.NotFound("session", one.ID)
	}
	for _, other := range s.sessions {
		if other.ID != one.ID && !other.Status.Final() && !one.Status.Final() && other.Name == one.Name && other.AccessKey == one.AccessKey {
			s.database.mu.Unlock()
			return backendai.Errorf(backendai.CodeSessionExists, "taken").WithData(map[string]string{"existingSessionId": other.ID})
		}
	}
	s.sessions[one.ID] = clone(one)
	s.writes++
	s.database.mu.Unlock()
	if s.after != nil {
		s.after(one)
	}
	return nil
}

func (s *store) InsertSession(_ context.Context, one *backendai.Session) error {
	return s.put(one, true)
}

func (s *store) UpdateSession(_ context.Context, one *backendai.Session) error {
	return s.put(one, false)
}

func (s *store) Session(_ context.Context, id string) (*backendai.Session, error) {
	s.database.mu.Lock()
	defer s.database.mu.Unlock()
	if one := s.sessions[id]; one != nil {
		return clone(one), nil
	}
	return nil, backendai.NotFound("session", id)
}

func (s *store) FindSessions(_ context.Context, q session.Query) ([]*backendai.Session, int, error) {
	fields := filter.Fields{"id": filter.Text, "name": filter.Text, "status": filter.Text, "created_at": filter.Time}
	expr, err := filter.Parse(q.Filter, fields)
	if err != nil {
		return nil, 0, err
	}
	keys, err := filter.ParseOrder(q.Order, fields)
	if err != nil {
		return nil, 0, err
	}
	value := func(one *backendai.Session) func(string) any {
		return func(field string) any {
			return map[string]any{"id": one.ID, "name": one.Name, "status": string(one.Status), "created_at": one.CreatedAt}[field]
		}
	}
	s.database.mu.Lock()
	defer s.database.mu.Unlock()
	var found []*backendai.Session
	for _, one := range s.sessions {
		if (q.AccessKey == "" || one.AccessKey == q.AccessKey) && (q.UserID == "" || one.UserID == q.UserID) &&
			(q.Statuses == nil || slices.Contains(q.Statuses, one.Status)) && expr.Match(value(one)) {
			found = append(found, clone(one))
		}
	}
	slices.SortFunc(found, func(a, b *backendai.Session) int {
		if c := filter.Compare(keys, value(a), value(b)); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	total := len(found)
	found = found[min(q.Offset, total):]
	if q.Limit > 0 {
		found = found[:min(q.Limit, len(found))]
	}
	return found, total, nil
}

// images is a catalogue: "python" is here, "later" can be pulled, "arm" is for
// another machine.
type images struct {
	mu     sync.Mutex
	all    map[string]backendai.Image
	onPull func(ctx context.Context, progress func(backendai.PullProgress)) error
}

const testArch = "x86_64"

func newImages() *images {
	labels := map[string]string{
		"ai.backend.resource.min.cpu": "0.5", "ai.backend.resource.min.mem": "64m", "ai.backend.resource.preferred.shmem": "16m",
		"ai.backend.resource.max.cpu": "4", "ai.backend.service-ports": "jupyter:http:8080", "ai.backend.envs.corecount": "OMP_NUM_THREADS, NPROC",
	}
	return &images{all: map[string]backendai.Image{
		"python": {Ref: "localhost/python:3", Digest: "sha256:1", Architecture: testArch, Labels: labels, Env: []string{"PATH=/opt/bin:/bin", "A=image", "B=image"}},
		"plain":  {Ref: "localhost/plain:1", Digest: "sha256:2", Architecture: testArch},
		"later":  {Ref: "example.org/later:1", Architecture: testArch},
		"arm":    {Ref: "localhost/arm:1", Digest: "sha256:3", Architecture: "aarch64"},
	}}
}

func (i *images) Resolve(_ context.Context, name, architecture string) (backendai.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for short, image := range i.all {
		if name == short || name == image.Ref {
			if architecture != "" && architecture != image.Architecture {
				return image, backendai.Errorf(backendai.CodeInvalidParams, "image %q is for %s, not for %s", image.Ref, image.Architecture, architecture)
			}
			return image, nil
		}
	}
	return backendai.Image{}, backendai.NotFound("image", name)
}

func (i *images) Pull(ctx context.Context, ref string, progress func(backendai.PullProgress)) (backendai.Image, error) {
	i.mu.Lock()
	onPull := i.onPull
	i.mu.Unlock()
	if onPull != nil {
		if err := onPull(ctx, progress); err != nil {
			return backendai.Image{}, err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for short, image := range i.all {
		if ref == image.Ref {
			image.Digest = "sha256:9"
			i.all[short] = image
			return image, nil
		}
	}
	return backendai.Image{}, backendai.NotFound("image", ref)
}
