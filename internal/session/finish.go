package session

import (
	"context"
	"time"

	"backendai"
	"backendai/internal/control"
)

const (
	// stopGrace is how long a container may take to end by itself: the runner's
	// own grace for its processes and some time to tell.
	stopGrace = control.ShutdownGrace + 5*time.Second
	// retryFirst and retryMost bound the pause before a failed removal is tried again.
	retryFirst = time.Second
	retryMost  = time.Minute
)

// finish ends a session: nothing of it is left but its record and its log. It
// returns early only when ctx ends.
func (s *Service) finish(ctx context.Context, l *live, why ending) {
	if l.now().Status == backendai.StatusPending && !why.failed {
		if l.found == nil || s.removed(ctx, l) {
			s.conclude(ctx, l, backendai.StatusCancelled, why)
		}
		return
	}
	s.settle(ctx, l, why)
	err := s.update(ctx, l, true, func(one *backendai.Session) error {
		at := s.now()
		one.StatusMessage = why.message
		if why.failed && one.Status != backendai.StatusError {
			if err := one.MoveTo(backendai.StatusError, why.reason, at); err != nil {
				return err
			}
			l.fail(copyOf(one))
		}
		if one.Status == backendai.StatusTerminating {
			return nil
		}
		return one.MoveTo(backendai.StatusTerminating, why.reason, at)
	})
	if err != nil { // against the state table, so a fault of this package
		s.log.Error("end session", "session", l.id, "err", err)
	}
	if s.removed(ctx, l) {
		s.conclude(ctx, l, backendai.StatusTerminated, why)
	}
}

// settle records the result of a batch session and how the session's own task
// or container ended.
func (s *Service) settle(ctx context.Context, l *live, why ending) {
	one := l.now()
	fresh := why.result != "" && why.result != one.Result
	if !fresh && (why.exit == nil || one.ExitCode != nil) {
		return
	}
	err := s.update(ctx, l, true, func(one *backendai.Session) error {
		if fresh {
			one.Result = why.result
		}
		one.ExitCode = why.exit
		return nil
	})
	if err != nil || !fresh {
		return
	}
	name := "session_failure"
	if why.result == backendai.ResultSuccess {
		name = "session_success"
	}
	s.tell(l.now(), name, why.reason, s.now(), nil)
}

// removed removes the container, however often that takes, and tells whether it
// is gone. It is not when ctx has ended.
func (s *Service) removed(ctx context.Context, l *live) bool {
	pause := retryFirst
	for {
		err := s.remove(ctx, l)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.log.Error("remove container", "session", l.id, "err", err)
		l.removalFailed(backendai.Errorf(backendai.CodeUnavailable, "the session %q cannot be removed: %s", l.now().Name, sentence(err)).
			WithHint("the server goes on trying; removing it by force may help"))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.again:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
		pause = min(2*pause, retryMost)
	}
}

// remove ends the container, keeps its log and leaves nothing else of it.
func (s *Service) remove(ctx context.Context, l *live) error {
	select {
	case <-l.again: // what was asked for until now is being done
	default:
	}
	var err error
	_, forced := l.asked()
	if !forced {
		work, done := until(ctx, l.force)
		err = s.opts.Engine.Stop(work, l.id, stopGrace)
		done()
		_, forced = l.asked()
	}
	if forced {
		err = s.opts.Engine.Stop(ctx, l.id, 0)
	}
	if err != nil {
		return err
	}
	s.keepLog(ctx, l.id)
	return s.opts.Engine.Remove(ctx, l.id, 0)
}

// conclude writes the last step of a session and lets its name and slots go.
func (s *Service) conclude(ctx context.Context, l *live, last backendai.Status, why ending) {
	l.writing.Lock()
	defer l.writing.Unlock()
	one := copyOf(l.now())
	one.StatusMessage = why.message
	if err := one.MoveTo(last, why.reason, s.now()); err != nil {
		s.log.Error("end session", "session", l.id, "err", err)
	}
	if err := s.opts.Store.UpdateSession(context.WithoutCancel(ctx), one); err != nil {
		s.log.Error("store session", "session", l.id, "status", one.Status, "err", err)
	}
	s.mu.Lock()
	delete(s.live, l.id)
	for key, named := range s.names {
		if named == l {
			delete(s.names, key)
		}
	}
	s.mu.Unlock()
	s.admission.leave(l.ticket)
	l.set(one)
	s.tellStep(one, one.History[len(one.History)-1])
	close(l.done)
}

// Destroy implements API.
func (s *Service) Destroy(ctx context.Context, caller backendai.Caller, ref string, forced bool) (*backendai.Session, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	l, err := s.resolve(caller, ref)
	if err != nil {
		return nil, err
	}
	before, _ := l.removal()
	reason := backendai.ReasonUserRequested
	if forced {
		reason = backendai.ReasonForced
	}
	l.askEnd(reason, forced)
	for {
		one, changed := l.look()
		if one.Status.Final() {
			return copyOf(one), nil
		}
		if failures, err := l.removal(); failures > before {
			return nil, err
		}
		select {
		case <-changed:
		case <-s.stopped:
			return nil, errStopped()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
