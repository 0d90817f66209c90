package session

import (
	"context"
	"fmt"

	"backendai"
)

// notRunning is the error for what only a running session can do.
func notRunning(one *backendai.Session) error {
	e := backendai.Errorf(backendai.CodeUnavailable, "the session %q does not run: it is %s", one.Name, one.Status)
	if one.Status == backendai.StatusTerminating {
		return e
	}
	return e.WithHint("'backend.ai ps' shows when it is RUNNING")
}

// Restart implements API.
func (s *Service) Restart(ctx context.Context, caller backendai.Caller, ref string) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	l, err := s.running(caller, ref)
	if err != nil {
		return err
	}
	reply := make(chan error, 1)
	select {
	case l.restarts <- reply:
	case <-l.end:
		return notRunning(l.now())
	case <-l.done:
		return notRunning(l.now())
	case <-s.stopped:
		return errStopped()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done(): // it goes on
		return context.Cause(ctx)
	}
}

// running finds a session that runs.
func (s *Service) running(caller backendai.Caller, ref string) (*live, error) {
	l, err := s.resolve(caller, ref)
	if err != nil {
		return nil, err
	}
	if one := l.now(); one.Status != backendai.StatusRunning {
		return nil, notRunning(one)
	}
	return l, nil
}

// Rename implements API.
func (s *Service) Rename(ctx context.Context, caller backendai.Caller, ref, name string) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	l, err := s.running(caller, ref)
	if err != nil {
		return err
	}
	if err := backendai.ValidateSessionName(name); err != nil {
		return err
	}
	key := nameKey{l.now().AccessKey, name}
	s.mu.Lock()
	other := s.names[key]
	if other == nil {
		s.names[key] = l
	}
	s.mu.Unlock()
	if other == l {
		return nil
	}
	if other != nil {
		return backendai.Errorf(backendai.CodeSessionExists, "there is a session %q already", name).
			WithHint("choose another name").
			WithData(map[string]string{"existingSessionId": other.id})
	}
	var old string
	err = s.update(ctx, l, false, func(one *backendai.Session) error {
		if one.Status != backendai.StatusRunning {
			return notRunning(one)
		}
		old, one.Name = one.Name, name
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.dropName(key, l)
		return fmt.Errorf("rename session %q: %w", ref, err)
	}
	s.dropName(nameKey{key.accessKey, old}, l)
	return nil
}

// dropName frees a name that a session has; mu is held.
func (s *Service) dropName(key nameKey, l *live) {
	if s.names[key] == l {
		delete(s.names, key)
	}
}
