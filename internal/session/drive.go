package session

import (
	"context"
	"fmt"
	"time"

	"backendai"
)

// ending says why the life of a session is over.
type ending struct {
	reason  string
	message string // one line for people; "" when the reason says it
	failed  bool   // it should have run but could not
	exit    *int   // of its own task or its PID 1
	result  backendai.Result
}

// drive takes a session from where it is to its end. When ctx ends, the session
// is left as it is for the next Run.
func (s *Service) drive(ctx context.Context, l *live) {
	defer l.control.Close()
	why := s.lead(ctx, l)
	if ctx.Err() == nil {
		s.finish(ctx, l, why)
	}
}

// lead takes a session through its life and tells why that is over. What it
// tells does not matter when ctx has ended.
func (s *Service) lead(ctx context.Context, l *live) ending {
	one := l.now()
	if one.Status == backendai.StatusTerminating || one.Status == backendai.StatusError {
		return ending{reason: one.StatusInfo, message: one.StatusMessage, exit: one.ExitCode, result: one.Result}
	}
	if why := s.pend(ctx, l); why != nil {
		return *why
	}
	if l.now().Status != backendai.StatusRunning {
		if why := s.start(ctx, l); why != nil {
			return *why
		}
	} else if why := s.gone(l); why != nil {
		return *why
	}
	return s.attend(ctx, l)
}

// wanted is the ending that somebody asked for.
func wanted(l *live) *ending {
	reason, _ := l.asked()
	return &ending{reason: reason}
}

// pend waits until a session may start: for those that it depends on, for its
// time and for its slots. It gives an ending for one that is not to start.
func (s *Service) pend(ctx context.Context, l *live) *ending {
	one := l.now()
	if one.Status != backendai.StatusPending {
		return nil
	}
	for _, id := range one.Dependencies {
		if why := s.succeeded(ctx, l, id); why != nil {
			return why
		}
	}
	if wait := one.StartsAt.Sub(s.now()); wait > 0 {
		s.explain(l, "waits for "+one.StartsAt.UTC().Format(time.RFC3339))
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.end:
			return wanted(l)
		case <-ctx.Done():
			return &ending{}
		}
	}
	if slot := one.Requested.Exceeds(s.capacity); slot != "" { // the machine had more when it was asked for
		return &ending{
			reason: backendai.ReasonFailedToStart,
			message: fmt.Sprintf("it needs %s=%s, but this machine has %s", slot,
				amount(slot, one.Requested[slot]), amount(slot, s.capacity[slot])),
		}
	}
	if l.ticket == nil {
		l.ticket = s.admission.join(one)
	}
	select {
	case <-l.end: // first, should both be
		return wanted(l)
	default:
	}
	if lack := s.admission.lack(l.ticket); lack != "" {
		s.explain(l, lack)
	}
	select {
	case <-l.ticket.granted:
		return nil
	case <-l.end:
		return wanted(l)
	case <-ctx.Done():
		return &ending{}
	}
}

// explain says to who looks at a session what it waits for. It is not stored:
// it would be old before it is read.
func (s *Service) explain(l *live, message string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	one := copyOf(l.now())
	one.StatusMessage = message
	l.set(one)
}

// succeeded waits for the success of a session that l depends on.
func (s *Service) succeeded(ctx context.Context, l *live, id string) *ending {
	if needed := s.byID(id); needed != nil {
		s.explain(l, fmt.Sprintf("waits for the success of the session %q", needed.now().Name))
		select {
		case <-needed.done:
		case <-l.end:
			return wanted(l)
		case <-ctx.Done():
			return &ending{}
		}
	}
	needed, err := s.opts.Store.Session(ctx, id)
	if err != nil {
		s.log.Error("read session that another depends on", "session", l.id, "err", err)
		return &ending{reason: backendai.ReasonFailedToStart, message: fmt.Sprintf("the session %s that it depends on cannot be read", id)}
	}
	if needed.Result != backendai.ResultSuccess {
		return &ending{reason: backendai.ReasonFailedToStart, message: fmt.Sprintf("the session %q that it depends on has not succeeded", needed.Name)}
	}
	return nil
}

// attend watches over a session that runs, until its end.
func (s *Service) attend(ctx context.Context, l *live) ending {
	for {
		restarted, why := s.watch(ctx, l)
		if restarted == nil {
			return why
		}
		again := s.restart(ctx, l)
		switch {
		case again == nil:
			restarted <- nil
		case ctx.Err() != nil:
			restarted <- errStopped()
		default:
			restarted <- backendai.Errorf(backendai.CodeCreationFailed, "the session %q did not start again: %s", l.now().Name, again.words())
		}
		if again != nil {
			return *again
		}
	}
}

// words is what people read of an ending.
func (e ending) words() string {
	if e.message != "" {
		return e.message
	}
	return e.reason
}

// watch waits for the end of a session that runs, or for a request to restart
// it, which it gives.
func (s *Service) watch(ctx context.Context, l *live) (restart chan<- error, why ending) {
	batch, leave := s.watchBatch(ctx, l)
	defer leave()
	for {
		select {
		case <-l.end:
			return nil, *wanted(l)
		case e := <-batch:
			return nil, batchEnding(e)
		case exit := <-l.exits:
			c, err := s.container(ctx, l.id)
			switch {
			case err != nil:
				s.log.Error("look for container", "session", l.id, "err", err)
			case c != nil && c.Running:
				continue // it was the end of one before a restart
			case c != nil && c.Exit != nil:
				exit = *c.Exit
			}
			return nil, s.exitEnding(l, exit)
		case reply := <-l.restarts:
			return reply, ending{}
		case <-ctx.Done():
			return nil, ending{}
		}
	}
}
