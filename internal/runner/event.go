package runner

import (
	"sync"

	"backendai/internal/control"
)

// backlog is how many events a reader may be behind before it is let go.
const backlog = 64

// events tells what happens inside to all who listen.
type events struct {
	mu        sync.Mutex
	listeners map[chan control.Event]bool
	batch     *control.Event // the end of the batch, for those who come later
	closed    bool
}

// publish never blocks: a reader that is too slow loses its subscription.
func (e *events) publish(event control.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if event.Type == control.EventBatchFinished {
		e.batch = &event
	}
	for l := range e.listeners {
		select {
		case l <- event:
		default:
			delete(e.listeners, l)
			close(l)
		}
	}
}

// listen subscribes. The channel is closed when the reader is too slow or the
// session ends; leave ends the subscription.
func (e *events) listen() (events <-chan control.Event, leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := make(chan control.Event, backlog)
	if e.batch != nil {
		l <- *e.batch
	}
	if e.closed {
		close(l)
		return l, func() {}
	}
	if e.listeners == nil {
		e.listeners = map[chan control.Event]bool{}
	}
	e.listeners[l] = true
	return l, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.listeners, l)
	}
}

// close ends every subscription.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for l := range e.listeners {
		delete(e.listeners, l)
		close(l)
	}
}
