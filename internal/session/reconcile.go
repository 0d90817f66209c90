package session

import (
	"context"
	"fmt"
	"slices"

	"backendai"
	"backendai/internal/engine"
)

// reconcile brings what the database means and what the engine runs together:
// it gives the live sessions, each with what is left of its container, and the
// containers that belong to none. Nothing is ended or made yet.
func (s *Service) reconcile(ctx context.Context) (found []*live, orphans []string, err error) {
	if err := s.setCapacity(ctx); err != nil {
		return nil, nil, err
	}
	sessions, _, err := s.opts.Store.FindSessions(ctx, Query{Statuses: liveStatuses()})
	if err != nil {
		return nil, nil, fmt.Errorf("list live sessions: %w", err)
	}
	slices.SortStableFunc(sessions, func(a, b *backendai.Session) int { return a.CreatedAt.Compare(b.CreatedAt) })
	containers, err := s.opts.Engine.List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	left := map[string]*engine.Container{}
	for _, c := range containers {
		left[c.ID] = &c
	}
	for _, one := range sessions {
		l := s.newLive(one)
		l.adopted, l.found = true, left[one.ID]
		close(l.stored)
		s.mu.Lock()
		s.live[one.ID] = l
		s.names[nameKey{one.AccessKey, one.Name}] = l
		s.mu.Unlock()
		delete(left, one.ID)
		found = append(found, l)
		// Its container was not begun, or not told of; it queues again.
		if one.Status == backendai.StatusScheduled {
			err := s.update(ctx, l, false, func(one *backendai.Session) error { return one.MoveTo(backendai.StatusPending, "", s.now()) })
			if err != nil {
				return nil, nil, err
			}
		}
	}
	for id := range left {
		orphans = append(orphans, id)
	}
	// Those that have slots keep them; what is left goes to those that wait.
	for _, l := range found {
		if l.now().Status.Occupies() {
			l.ticket = s.admission.hold(l.now())
		}
	}
	for _, l := range found {
		if one := l.now(); one.Status == backendai.StatusPending && queues(one, s.now()) && one.Requested.Exceeds(s.capacity) == "" {
			l.ticket = s.admission.join(one)
		}
	}
	return found, orphans, nil
}

// gone tells the end of a session that ran when the last server ended and whose
// container does not run any more.
func (s *Service) gone(l *live) *ending {
	if !l.adopted || l.found != nil && l.found.Running {
		return nil
	}
	exit := engine.Exit{ID: l.id, Code: -1, Reason: backendai.ReasonLost, Detail: "its container is gone"}
	if l.found != nil && l.found.Exit != nil {
		exit = *l.found.Exit
	}
	why := s.exitEnding(l, exit)
	return &why
}

// removeOrphans removes the containers of no session.
func (s *Service) removeOrphans(ctx context.Context, ids []string) {
	for _, id := range ids {
		s.log.Info("container of no session is removed", "container", id)
		if err := s.opts.Engine.Remove(ctx, id, 0); err != nil && ctx.Err() == nil {
			s.log.Error("remove container of no session", "container", id, "err", err)
		}
	}
}
