package session

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"backendai"
)

// admission gives slots to sessions: those of higher priority first, then those
// that were asked for first. The first that does not fit lets none past it, or
// a large session would wait for ever behind small ones.
type admission struct {
	capacity backendai.Slots

	mu    sync.Mutex // guards what follows
	used  backendai.Slots
	queue []*ticket // in order
}

// ticket is a session's place in the queue, and later its slots.
type ticket struct {
	slots    backendai.Slots
	priority int
	asked    time.Time
	granted  chan struct{} // closed when it has its slots
}

func newAdmission(capacity backendai.Slots) *admission {
	return &admission{capacity: capacity, used: backendai.Slots{}}
}

// join queues a session. If its slots are free and nobody is before it, it has
// them when join returns.
func (a *admission) join(one *backendai.Session) *ticket {
	t := &ticket{slots: one.Requested, priority: one.Priority, asked: one.CreatedAt, granted: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, _ := slices.BinarySearchFunc(a.queue, t, func(in, new *ticket) int {
		if in.priority > new.priority || in.priority == new.priority && !in.asked.After(new.asked) {
			return -1
		}
		return 1
	})
	a.queue = slices.Insert(a.queue, at, t)
	a.grant()
	return t
}

// hold gives a session its slots at once: it has them already.
func (a *admission) hold(one *backendai.Session) *ticket {
	t := &ticket{slots: one.Requested, granted: make(chan struct{})}
	close(t.granted)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used = a.used.Add(t.slots)
	return t
}

// leave gives up the place or the slots; nil is none.
func (a *admission) leave(t *ticket) {
	if t == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-t.granted:
		a.used = a.used.Sub(t.slots)
	default:
		a.queue = slices.DeleteFunc(a.queue, func(in *ticket) bool { return in == t })
	}
	a.grant()
}

// lack tells people what a session in the queue waits for; "" when it has its slots.
func (a *admission) lack(t *ticket) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-t.granted:
		return ""
	default:
	}
	free := a.capacity.Sub(a.used)
	if slot := t.slots.Exceeds(free); slot != "" {
		return fmt.Sprintf("waits for %s: %s asked for, %s of %s free", slot, amount(slot, t.slots[slot]), amount(slot, max(0, free[slot])), amount(slot, a.capacity[slot]))
	}
	return "waits behind sessions that were asked for before"
}

// grant gives slots as far as they go; mu is held.
func (a *admission) grant() {
	for len(a.queue) > 0 && a.used.Add(a.queue[0].slots).Exceeds(a.capacity) == "" {
		a.used = a.used.Add(a.queue[0].slots)
		close(a.queue[0].granted)
		a.queue = slices.Delete(a.queue, 0, 1)
	}
}
