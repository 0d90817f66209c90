package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"backendai"
	"backendai/internal/engine"
)

// Options are what a Service stands on. Store, Engine, Images and Derive are required.
type Options struct {
	Store  Store
	Engine engine.Engine
	Images Images
	// Folders is where mounts come from; nil means that there are none to mount.
	Folders Folders
	// Dotfiles are what users want in every home; nil means that there are none.
	Dotfiles Dotfiles
	// Derive gives 32 secret bytes for a purpose of a session, always the same ones.
	Derive func(purpose, sessionID string) []byte
	// Capacity is what sessions may have together; nil asks the engine.
	Capacity backendai.Slots
	// LogDir keeps the logs of sessions that have ended, for LogRetention. ""
	// or 0 keeps none.
	LogDir       string
	LogRetention time.Duration
	Logger       *slog.Logger     // nil discards
	Now          func() time.Time // nil is time.Now
}

// Service drives sessions. One goroutine of Run owns each live session and
// takes it through the state table; other calls only ask it to do something.
// What is live is held in memory, so that no way into a session costs a query.
type Service struct {
	opts      Options
	log       *slog.Logger
	now       func() time.Time
	events    hub
	callbacks *callbacks
	creating  *semaphore.Weighted // starts of containers at once, first come first served

	begin   chan *live    // new sessions for Run to drive
	ready   chan struct{} // closed when the live sessions are known
	stopped chan struct{} // closed when Run has ended

	capacity  backendai.Slots // set before ready is closed
	admission *admission      // likewise

	mu    sync.RWMutex // guards what follows; never held while anything blocks
	live  map[string]*live
	names map[nameKey]*live // also of sessions that are being stored
}

var _ API = (*Service)(nil)

// nameKey is under what a session's name is unique.
type nameKey struct{ accessKey, name string }

// New makes a service. Its calls wait until Run has found the live sessions.
func New(opts Options) (*Service, error) {
	if opts.Store == nil || opts.Engine == nil || opts.Images == nil || opts.Derive == nil {
		return nil, errors.New("make session service: store, engine, images and derive are required")
	}
	s := &Service{
		opts: opts, log: opts.Logger, now: opts.Now,
		creating: semaphore.NewWeighted(int64(2 * runtime.NumCPU())),
		begin:    make(chan *live), ready: make(chan struct{}), stopped: make(chan struct{}),
		live: map[string]*live{}, names: map[nameKey]*live{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.callbacks = newCallbacks(s.log)
	return s, nil
}

// Run makes the database and the engine agree, then drives sessions until ctx
// ends; they go on then, and the next Run takes them over. It returns when all
// its goroutines have ended. Call it once.
func (s *Service) Run(ctx context.Context) error {
	defer close(s.stopped)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	// Before the engine is asked what runs, so that no end falls in between.
	exits, err := s.opts.Engine.Watch(work)
	if err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	found, orphans, err := s.reconcile(work)
	if err != nil {
		return fmt.Errorf("reconcile sessions: %w", err)
	}
	tasks.Go(func() { s.callbacks.run(work) })
	tasks.Go(func() { s.sweepLogs(work) })
	tasks.Go(func() { s.removeOrphans(work, orphans) })
	for _, l := range found {
		tasks.Go(func() { s.drive(work, l) })
	}
	close(s.ready)
	for {
		select {
		case l := <-s.begin:
			tasks.Go(func() { s.drive(work, l) })
		case exit, open := <-exits:
			if !open && ctx.Err() == nil {
				return errors.New("the engine watches its containers no more")
			}
			if !open {
				return nil
			}
			if l := s.byID(exit.ID); l != nil {
				l.ended(exit)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// wait waits until the live sessions are known.
func (s *Service) wait(ctx context.Context) error {
	select {
	case <-s.ready:
	default:
		select {
		case <-s.ready:
		case <-s.stopped:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case <-s.stopped:
		return errStopped()
	default:
		return nil
	}
}

func errStopped() error {
	return backendai.Errorf(backendai.CodeUnavailable, "the server is stopping").
		WithHint("try again in a moment; sessions go on meanwhile")
}

// setCapacity finds out what there is to give.
func (s *Service) setCapacity(ctx context.Context) error {
	s.capacity = maps.Clone(s.opts.Capacity)
	if s.capacity == nil {
		capacity, err := s.opts.Engine.Capacity(ctx)
		if err != nil {
			return fmt.Errorf("find capacity: %w", err)
		}
		s.capacity = capacity
	}
	s.admission = newAdmission(s.capacity)
	return nil
}
