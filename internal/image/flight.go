package image

import (
	"context"
	"sync"

	"backendai"
)

// flight is one download that any number of callers wait for. It ends when the
// last of them has left.
type flight struct {
	cancel  context.CancelFunc
	done    chan struct{} // closed when image and err are set
	waiting int           // guarded by Store.mu; 0 once given up

	mu       sync.Mutex
	progress backendai.PullProgress
	changed  chan struct{} // closed at the next change of progress

	image backendai.Image
	err   error
}

// report tells all who wait how far the work has come.
func (f *flight) report(p backendai.PullProgress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress = p
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flight) latest() (backendai.PullProgress, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress, f.changed
}

// together joins the flight of a key, or starts it. The progress is called from
// the caller's own goroutine; a slow one misses steps and delays nobody.
func (s *Store) together(ctx context.Context, key string, progress func(backendai.PullProgress),
	work func(ctx context.Context, report func(backendai.PullProgress)) (backendai.Image, error),
) (backendai.Image, error) {
	f, err := s.join(ctx, key, work)
	if err != nil {
		return backendai.Image{}, err
	}
	defer s.leave(f)
	for {
		step, changed := f.latest()
		if progress != nil && step.Stage != "" {
			progress(step)
		}
		select {
		case <-changed:
		case <-f.done:
			if f.err == nil && progress != nil {
				last, _ := f.latest()
				last.Stage = "done"
				progress(last)
			}
			return f.image, f.err
		case <-ctx.Done():
			return backendai.Image{}, context.Cause(ctx)
		}
	}
}

func (s *Store) join(ctx context.Context, key string,
	work func(ctx context.Context, report func(backendai.PullProgress)) (backendai.Image, error),
) (*flight, error) {
	for {
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.mu.Unlock()
			return nil, backendai.Errorf(backendai.CodeUnavailable, "the image store is closed")
		}
		f, ok := s.flights[key]
		if !ok {
			f = s.start(key, work)
			s.mu.Unlock()
			return f, nil
		}
		if f.waiting > 0 {
			f.waiting++
			s.mu.Unlock()
			return f, nil
		}
		s.mu.Unlock() // everybody left it: wait until it is over, then start anew
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// start begins a flight with one waiting. The caller holds mu.
func (s *Store) start(key string,
	work func(ctx context.Context, report func(backendai.PullProgress)) (backendai.Image, error),
) *flight {
	ctx, cancel := context.WithCancel(s.ctx)
	f := &flight{cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}), waiting: 1}
	s.flights[key] = f
	s.running.Go(func() {
		defer cancel()
		f.image, f.err = work(ctx, f.report)
		s.mu.Lock()
		delete(s.flights, key)
		s.mu.Unlock()
		close(f.done)
	})
	return f
}

func (s *Store) leave(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
	}
}
