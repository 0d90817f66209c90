package session

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
)

// live is a session that has not ended. The goroutine of drive owns it.
type live struct {
	id      string
	control *control.Client
	found   *engine.Container // what an earlier server left of it; only for its owner
	adopted bool              // it was live before this server; only for its owner
	ticket  *ticket           // its place in the queue or its slots; only for its owner

	end      chan struct{}     // closed when its end is asked for
	force    chan struct{}     // closed when it is to end at once
	again    chan struct{}     // holds a token when a failed removal is to be tried again
	exits    chan engine.Exit  // the last end of its container that was not looked at
	restarts chan chan<- error // taken while it runs
	stored   chan struct{}     // closed when it is in the database, or could not be put there
	done     chan struct{}     // closed when it has ended

	// writing is held by who changes the session, so that the database, memory
	// and events have the changes in one order. It is taken before mu.
	writing sync.Mutex

	mu        sync.Mutex         // guards what follows; never held while anything blocks
	session   *backendai.Session // never changed, only replaced
	failed    *backendai.Session // as it was when its start had failed
	changed   chan struct{}      // closed and replaced at each change
	reason    string             // why its end was asked for; "" when it was not
	forced    bool
	failures  int            // of its removal
	failure   error          // the last of them
	listening map[string]int // the ports of services that are known to listen, by app and asked port
}

func (s *Service) newLive(one *backendai.Session) *live {
	return &live{
		id: one.ID, session: one,
		control: control.NewClient(func(ctx context.Context) (net.Conn, error) { return s.opts.Engine.Dial(ctx, one.ID) },
			s.opts.Derive(purposeControl, one.ID)),
		end: make(chan struct{}), force: make(chan struct{}), again: make(chan struct{}, 1), exits: make(chan engine.Exit, 1),
		restarts: make(chan chan<- error), stored: make(chan struct{}), done: make(chan struct{}),
		changed: make(chan struct{}), listening: map[string]int{},
	}
}

// now is the session as it is. It must not be changed.
func (l *live) now() *backendai.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

// look is now, with a channel that is closed at the next change.
func (l *live) look() (*backendai.Session, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session, l.changed
}

// copyOf is a session that the caller may change.
func copyOf(one *backendai.Session) *backendai.Session {
	c := *one
	c.History = slices.Clip(c.History) // so that an append makes a new one
	return &c
}

// set replaces the session and wakes who waits for a change.
func (l *live) set(one *backendai.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = one
	l.wake()
}

func (l *live) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// ended takes note of the end of the container.
func (l *live) ended(exit engine.Exit) {
	select {
	case <-l.exits: // an older one
	default:
	}
	l.exits <- exit // only one goroutine sends
}

// askEnd asks for the end of the session, or for a sooner one.
func (l *live) askEnd(reason string, force bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if force && !l.forced {
		l.forced = true
		close(l.force)
	}
	if l.reason == "" {
		l.reason = reason
		close(l.end)
	}
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// asked tells why the end of the session was asked for; "" when it was not.
func (l *live) asked() (reason string, forced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason, l.forced
}

// fail keeps what the session was when its start had failed.
func (l *live) fail(one *backendai.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = one
}

// removalFailed lets those know who wait for the end.
func (l *live) removalFailed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures, l.failure = l.failures+1, err
	l.wake()
}

func (l *live) removal() (failures int, last error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures, l.failure
}

// outcome is what a caller who waits for the start is told: the failure, if it
// was one, else the session as it is.
func (l *live) outcome() *backendai.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	return l.session
}

// until gives a context that ends with ctx, or when the channel is closed. The
// function that it gives ends it and must be called.
func until(ctx context.Context, closed <-chan struct{}) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-closed:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		waiting.Wait()
	}
}

// update changes a session in the database, in memory and, where the status
// changes, for those who listen. A change that cannot be stored is not made,
// unless it is insisted upon: an end happens whether or not it can be written.
func (s *Service) update(ctx context.Context, l *live, insist bool, change func(*backendai.Session) error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	before := l.now()
	next := copyOf(before)
	if err := change(next); err != nil {
		return err
	}
	// A write takes less than its undoing.
	if err := s.opts.Store.UpdateSession(context.WithoutCancel(ctx), next); err != nil {
		if !insist {
			return fmt.Errorf("store session %s: %w", l.id, err)
		}
		s.log.Error("store session", "session", l.id, "status", next.Status, "err", err)
	}
	l.set(next)
	for _, step := range next.History[len(before.History):] {
		s.tellStep(next, step)
	}
	return nil
}

// advance takes a session the steps to a status on its way to running; those
// that it has behind it are left out.
func (s *Service) advance(ctx context.Context, l *live, to backendai.Status) error {
	way := []backendai.Status{
		backendai.StatusPending, backendai.StatusScheduled, backendai.StatusPreparing, backendai.StatusPulling, backendai.StatusCreating,
	}
	target := slices.Index(way, to)
	if slices.Index(way, l.now().Status) >= target || !slices.Contains(way, l.now().Status) {
		return nil
	}
	return s.update(ctx, l, false, func(one *backendai.Session) error {
		at := s.now()
		for i := slices.Index(way, one.Status) + 1; i <= target; i++ {
			if way[i] == backendai.StatusPulling && to != backendai.StatusPulling {
				continue
			}
			if err := one.MoveTo(way[i], "", at); err != nil {
				return err
			}
		}
		one.StatusMessage = ""
		return nil
	})
}
