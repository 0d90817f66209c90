package account

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"backendai"
)

const (
	// useEvery is how often the last use of a keypair is written at most.
	useEvery = time.Minute
	// useTime bounds that write.
	useTime = 10 * time.Second
	// maxAccessKey bounds what is looked for, in bytes.
	maxAccessKey = 64
	// maxHeavy bounds the calls that take much processor time or memory: making
	// keys, hashing passwords.
	maxHeavy = 2
)

// Options are what a Service may be told.
type Options struct {
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // nil is time.Now
}

// Service holds the rules of accounts. It is safe for concurrent use. It is the
// only one that changes accounts in its store: it remembers what it looked up.
type Service struct {
	store  Store
	log    *slog.Logger
	now    func() time.Time
	heavy  chan struct{} // one element for each call that takes much
	change sync.Mutex    // held by every change, from its checks on

	mu         sync.RWMutex // guards what follows
	known      map[string]*entry
	generation uint64 // rises with every change
	holds      map[string]*hold
	closed     bool
	uses       sync.WaitGroup // writes of last uses
}

// entry is an active keypair of an active user.
type entry struct {
	caller backendai.Caller
	used   atomic.Int64 // when the last use was written, in nanoseconds since 1970
}

var _ API = (*Service)(nil)

// New makes a service on a store, which the caller closes after the service.
func New(store Store, opts Options) *Service {
	s := &Service{store: store, log: opts.Logger, now: opts.Now, heavy: make(chan struct{}, maxHeavy), known: map[string]*entry{}, holds: map[string]*hold{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// Close waits for the last writes to the store; later ones are left out.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.uses.Wait()
}

// Lookup implements API.
func (s *Service) Lookup(ctx context.Context, accessKey string) (backendai.Caller, error) {
	s.mu.RLock()
	e, generation := s.known[accessKey], s.generation
	s.mu.RUnlock()
	if e == nil {
		caller, err := s.read(ctx, accessKey)
		if err != nil {
			return backendai.Caller{}, err
		}
		e = &entry{caller: caller}
		if last := caller.Keypair.LastUsed; !last.IsZero() {
			e.used.Store(last.UnixNano())
		}
		s.mu.Lock()
		if s.generation == generation { // else what was read may be old by now
			s.known[accessKey] = e
		}
		s.mu.Unlock()
	}
	caller := e.caller
	caller.Keypair.LastUsed = s.use(ctx, e)
	return caller, nil
}

// read finds an active keypair and its active user in the store.
func (s *Service) read(ctx context.Context, accessKey string) (backendai.Caller, error) {
	refused := backendai.Errorf(backendai.CodeAuthFailed, "the access key is unknown or not active").
		WithHint("check BACKEND_ACCESS_KEY and BACKEND_SECRET_KEY, or the profile")
	if accessKey == "" || len(accessKey) > maxAccessKey {
		return backendai.Caller{}, refused
	}
	k, err := s.store.Keypair(ctx, accessKey)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		return backendai.Caller{}, refused
	}
	if err != nil {
		return backendai.Caller{}, fmt.Errorf("look up keypair: %w", err)
	}
	u, err := s.store.User(ctx, k.UserID)
	if err != nil {
		return backendai.Caller{}, fmt.Errorf("look up user of keypair: %w", err)
	}
	if !k.Active || !u.Active {
		return backendai.Caller{}, refused
	}
	return backendai.Caller{User: *u, Keypair: *k}, nil
}

// use notes that a keypair is used now, without waiting for the store, and
// tells the last time that is noted.
func (s *Service) use(ctx context.Context, e *entry) time.Time {
	now, last := s.now(), e.used.Load()
	if noted := time.Unix(0, last); now.Sub(noted) < useEvery {
		return noted.UTC()
	}
	if !e.used.CompareAndSwap(last, now.UnixNano()) {
		return now.UTC() // somebody else just did
	}
	accessKey := e.caller.Keypair.AccessKey
	ctx = context.WithoutCancel(ctx)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return now.UTC()
	}
	s.uses.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, useTime)
		defer cancel()
		if err := s.store.UseKeypair(ctx, accessKey, now); err != nil && backendai.CodeOf(err) != backendai.CodeNotFound {
			s.log.Warn("note last use of keypair", "access_key", accessKey, "err", err)
		}
	})
	return now.UTC()
}

// changed forgets what was looked up, and ends what is held by keypairs that are
// not found any more. Every change calls it, after the store has it and before it
// is acknowledged.
func (s *Service) changed(ctx context.Context) {
	s.mu.Lock()
	s.generation++
	clear(s.known)
	held := slices.Collect(maps.Keys(s.holds))
	s.mu.Unlock()
	for _, accessKey := range held {
		_, err := s.read(context.WithoutCancel(ctx), accessKey)
		if err == nil {
			continue
		}
		s.mu.Lock()
		if h := s.holds[accessKey]; h != nil {
			h.end(err)
		}
		s.mu.Unlock()
	}
}

// Act implements API.
func (s *Service) Act(ctx context.Context, caller backendai.Caller, ownerAccessKey string) (backendai.Caller, error) {
	if ownerAccessKey == "" || ownerAccessKey == caller.Keypair.AccessKey {
		return caller, nil
	}
	owner, err := s.read(ctx, ownerAccessKey)
	if code := backendai.CodeOf(err); err != nil && code != backendai.CodeAuthFailed {
		return backendai.Caller{}, err
	}
	if err != nil || !caller.Superadmin() && owner.User.ID != caller.User.ID {
		return backendai.Caller{}, backendai.NotFound("active keypair", ownerAccessKey).
			WithHint("owner_access_key is one of your own keypairs, or as a superadmin anybody's")
	}
	return owner, nil
}

// lock takes the right to make a change; the caller gives it back.
func (s *Service) lock() (unlock func()) {
	s.change.Lock()
	return s.change.Unlock
}

// takeHeavy waits until a call that takes much may go on.
func (s *Service) takeHeavy(ctx context.Context) (done func(), err error) {
	select {
	case s.heavy <- struct{}{}:
		return func() { <-s.heavy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// superadminsOnly is the error for what only a superadmin may do.
func superadminsOnly(what string) error {
	return backendai.Errorf(backendai.CodeForbidden, "only a superadmin may %s", what)
}
