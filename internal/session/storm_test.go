package session_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

// TestStorm does everything at once, with a server that is killed now and then.
// Afterwards every session can be ended, nothing is left and no slot is lost.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for round := range 5 {
			var users sync.WaitGroup
			stop := make(chan struct{})
			for range 8 {
				users.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							act(t, w)
							time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
						}
					}
				})
			}
			time.Sleep(2 * time.Second)
			if round%2 == 0 {
				w.crash()
				close(stop)
				users.Wait() // their calls have failed
				w.serve()
			} else {
				close(stop)
				users.Wait()
			}
		}
		for _, one := range w.names("") {
			t.Errorf("%s has no status", one)
		}
		all, err := w.Match(t.Context(), alice, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			if _, err := w.Destroy(t.Context(), alice, one.ID, true); err != nil && backendai.CodeOf(err) != backendai.CodeNotFound {
				t.Errorf("destroy %s (%s): %v", one.Name, one.Status, err)
			}
		}
		whole := w.enqueue(cpus("whole", "4"))
		synctest.Wait()
		if got := w.record(whole.ID).Status; got != backendai.StatusRunning || w.host.count() != 1 {
			t.Errorf("in the end %s, %d containers", got, w.host.count())
		}
		for id := range w.db.sessions {
			if one := w.record(id); one.ID != whole.ID && !one.Status.Final() {
				t.Errorf("%s stays %s", one.Name, one.Status)
			}
		}
	})
}

// act does one thing at random. That it does not work is no fault.
func act(t *testing.T, w *world) {
	name := fmt.Sprintf("session-%d", rand.IntN(12))
	ctx := t.Context()
	switch rand.IntN(10) {
	case 0, 1, 2, 3:
		r := cpus(name, []string{"0.5", "1", "2"}[rand.IntN(3)])
		r.EnqueueOnly, r.MaxWait = rand.IntN(2) == 0, 50*time.Millisecond
		_, _ = w.Create(ctx, alice, r)
	case 4, 5:
		_, _ = w.Destroy(ctx, alice, name, rand.IntN(2) == 0)
	case 6:
		_ = w.Restart(ctx, alice, name)
	case 7:
		_ = w.Rename(ctx, alice, name, fmt.Sprintf("session-%d", rand.IntN(12)))
	case 8:
		if conn, err := w.Connect(ctx, alice, name, session.ConnectRequest{App: "jupyter"}); err == nil {
			conn.Close()
		}
	case 9:
		if one, err := w.Find(ctx, alice, name, false); err == nil && one.Status == backendai.StatusRunning {
			w.host.mu.Lock()
			if c := w.host.containers[one.ID]; c != nil {
				c.finish(engine.Exit{Code: 1, Reason: backendai.ReasonSelfTerminated})
			}
			w.host.mu.Unlock()
		}
	}
}
