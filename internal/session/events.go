package session

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"backendai"
)

// backlog is how many events a reader may be behind before it is let go.
const backlog = 256

// hub tells events to all who listen.
type hub struct {
	mu        sync.Mutex
	seq       uint64
	listeners map[chan backendai.Event]func(*backendai.Event) bool // what each may see and wants
}

// publish numbers the event and never blocks: a reader that is too slow loses
// its subscription.
func (h *hub) publish(e backendai.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	for l, wants := range h.listeners {
		if !wants(&e) {
			continue
		}
		select {
		case l <- e:
		default:
			delete(h.listeners, l)
			close(l)
		}
	}
}

// listen subscribes until ctx ends.
func (h *hub) listen(ctx context.Context, wants func(*backendai.Event) bool) <-chan backendai.Event {
	l := make(chan backendai.Event, backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners == nil {
		h.listeners = map[chan backendai.Event]func(*backendai.Event) bool{}
	}
	h.listeners[l] = wants
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.listeners[l] != nil {
			delete(h.listeners, l)
			close(l)
		}
	})
	return l
}

// The scopes of an EventFilter.
const (
	scopeSession = "session"
	scopeKernel  = "kernel"
)

// Events implements API.
func (s *Service) Events(ctx context.Context, caller backendai.Caller, f EventFilter) (<-chan backendai.Event, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	scopes := map[string]bool{}
	for scope := range strings.SplitSeq(f.Scope, ",") {
		switch scope = strings.TrimSpace(scope); scope {
		case "", "*":
			scopes[scopeSession], scopes[scopeKernel] = true, true
		case scopeSession, scopeKernel:
			scopes[scope] = true
		default:
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "there is no scope %q of events", scope).
				WithHint("the scopes are session and kernel, and * for both").
				WithData(map[string]string{"scope": "unknown scope"})
		}
	}
	id := "" // of the session, should it exist already
	if f.Session != "" {
		if l, err := s.resolve(caller, f.Session); err == nil {
			id = l.id
		}
	}
	return s.events.listen(ctx, func(e *backendai.Event) bool {
		scope, _, _ := strings.Cut(e.Name, "_")
		return (caller.Superadmin() || e.UserID == caller.User.ID) && scopes[scope] && (f.Group == "" || e.Group == f.Group) &&
			(f.Session == "" || e.SessionID == f.Session || e.Session == f.Session || e.SessionID == id)
	}), nil
}

// tellStep publishes the events of a change of status: that of the session and,
// where the protocol has one, that of its container.
func (s *Service) tellStep(one *backendai.Session, step backendai.StatusChange) {
	name := backendai.EventFor(step.Status)
	reason := one.StatusInfo
	both := false
	switch step.Status {
	case backendai.StatusPulling:
		reason = one.Image
	case backendai.StatusPreparing, backendai.StatusRunning, backendai.StatusTerminating, backendai.StatusTerminated, backendai.StatusCancelled:
		both = true
	}
	if both {
		s.tell(one, "kernel_"+strings.TrimPrefix(name, "session_"), reason, step.At, nil)
	}
	s.tell(one, name, reason, step.At, nil)
}

// tell publishes an event of a session.
func (s *Service) tell(one *backendai.Session, name, reason string, at time.Time, progress *backendai.PullProgress) {
	e := backendai.Event{
		Name: name, SessionID: one.ID, Session: one.Name, UserID: one.UserID, AccessKey: one.AccessKey, Domain: one.Domain, Group: one.Group,
		Reason: reason, Progress: progress, At: at,
	}
	if slices.Contains([]string{"session_success", "session_failure", "session_terminated", "kernel_terminated"}, name) {
		e.ExitCode = one.ExitCode
	}
	s.events.publish(e)
	if one.CallbackURL != "" && strings.HasPrefix(name, scopeSession+"_") {
		s.callbacks.post(one.CallbackURL, e)
	}
}
