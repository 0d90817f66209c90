package fake

import (
	"context"
	"sync"

	"backendai/internal/engine"
)

// watcher queues exits for one reader, so that a slow one loses nothing and
// delays nobody.
type watcher struct {
	mu    sync.Mutex
	queue []engine.Exit
	more  chan struct{} // holds one token when the queue has grown
}

func (w *watcher) send(exit engine.Exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, exit)
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *watcher) take() []engine.Exit {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := w.queue
	w.queue = nil
	return queue
}

// Watch implements engine.Engine.
func (e *Engine) Watch(ctx context.Context) (<-chan engine.Exit, error) {
	w := &watcher{more: make(chan struct{}, 1)}
	e.mu.Lock()
	e.watchers[w] = true
	e.mu.Unlock()
	exits := make(chan engine.Exit)
	go func() { // ends with ctx; the reader sees it by the closed channel
		defer close(exits)
		defer func() {
			e.mu.Lock()
			delete(e.watchers, w)
			e.mu.Unlock()
		}()
		for {
			select {
			case <-w.more:
			case <-ctx.Done():
				return
			}
			for _, exit := range w.take() {
				select {
				case exits <- exit:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return exits, nil
}
