package session_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"backendai"
	"backendai/internal/session"
)

// TestCrashAnywhere kills the server at every point of a session's life, before
// and after each change of the database and of the engine. Whatever the point:
// the next server leads the session to RUNNING or to its end, no container is
// left of none, and no slots are lost.
func TestCrashAnywhere(t *testing.T) {
	for n := 1; ; n++ {
		point := ""
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { point = crashAt(t, n) })
		})
		if point == "" {
			if n < 25 {
				t.Errorf("there were only %d points", n)
			}
			return
		}
	}
}

// crashAt lives a life and crashes at its nth point, whose name it gives; "" when
// the life has fewer.
func crashAt(t *testing.T, n int) (point string) {
	steps := 0
	crashed := make(chan struct{})
	w := newWorld(t, func(w *world, _ *session.Options) {
		step := func(name string) {
			if steps++; steps == n { // the life is one thread of events, each waiting for the one before
				point = name
				w.store.die()
				w.engine.die()
				close(crashed)
			}
		}
		w.engine.step = step
		w.store.before = func(one *backendai.Session) error { step("before " + string(one.Status) + " is stored"); return nil }
		w.store.after = func(one *backendai.Session) { step("after " + string(one.Status) + " is stored") }
	})
	asked := false // for the end
	go func() {
		r := ask("mysession")
		r.Image = "later"
		if _, err := w.Service.Create(t.Context(), alice, r); err != nil {
			return
		}
		if err := w.Service.Restart(t.Context(), alice, "mysession"); err != nil {
			return
		}
		asked = true
		_, _ = w.Service.Destroy(t.Context(), alice, "mysession", false)
	}()
	synctest.Wait()
	time.Sleep(time.Minute) // a dead server may try what it likes
	select {
	case <-crashed:
	default:
		if w.host.count() != 0 {
			t.Error("the whole life leaves a container")
		}
		return ""
	}
	w.crash()
	w.serve()
	synctest.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()

	t.Log(point)
	running := 0
	for id := range w.db.sessions {
		switch one := w.record(id); {
		case one.Status == backendai.StatusRunning:
			running++
			conn, err := w.Connect(t.Context(), alice, id, session.ConnectRequest{App: "sshd"})
			if err != nil {
				t.Errorf("%s: the session cannot be reached: %v", point, err)
				break
			}
			conn.Close()
			r := ask("mysession")
			r.Image = "later"
			if again, err := w.Create(t.Context(), alice, r); err != nil || again.Created || again.Session.ID != id {
				t.Errorf("%s: the same start again: %+v, %v", point, again, err)
			}
		case !one.Status.Final():
			t.Errorf("%s: it stays %s (%v)", point, one.Status, statuses(one))
		case !asked:
			t.Errorf("%s: it ended: %s, %s: %s", point, one.Status, one.StatusInfo, one.StatusMessage)
		}
	}
	if w.host.count() != running {
		t.Errorf("%s: %d containers of %d sessions", point, w.host.count(), running)
	}
	if running > 0 {
		w.destroy("mysession")
	}
	whole := w.enqueue(cpus("whole", "4"))
	synctest.Wait()
	if got := w.record(whole.ID).Status; got != backendai.StatusRunning {
		t.Errorf("%s: slots are lost: %s", point, got)
	}
	return point
}

func TestOrphansAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("mysession")
		w.crash()
		clear(w.db.sessions) // as if a backup was brought back
		w.serve()
		synctest.Wait()
		if w.host.count() != 0 {
			t.Error("a container of no session is left")
		}
	})
}

// TestServerStopsAndSessionsGoOn is about an orderly end of the server.
func TestServerStopsAndSessionsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one := w.start("mysession")
		w.enqueue(cpus("large", "4"))
		time.Sleep(time.Second)
		waiting := make(chan error)
		go func() {
			_, err := w.Create(t.Context(), alice, ask("another")) // waits behind the large one
			waiting <- err
		}()
		synctest.Wait()
		w.stop()
		if err := <-waiting; backendai.CodeOf(err) != backendai.CodeUnavailable {
			t.Errorf("the waiting caller: %v", err)
		}
		if _, err := w.Find(t.Context(), alice, "mysession", false); backendai.CodeOf(err) != backendai.CodeUnavailable {
			t.Errorf("a call afterwards: %v", err)
		}
		if c := w.host.get(one.ID); c == nil || c.exit != nil {
			t.Fatal("the session did not go on")
		}
		before := w.host.get(one.ID)
		w.serve()
		synctest.Wait()
		if found, err := w.Find(t.Context(), alice, "mysession", false); err != nil || found.Status != backendai.StatusRunning || w.host.get(one.ID) != before {
			t.Errorf("adopted: %+v, %v", found, err)
		}
		if got := w.names("PENDING"); len(got) != 2 {
			t.Errorf("pending %v", got)
		}
	})
}

// TestStopWhileStarting leaves a session that is being started to the next server.
func TestStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, _ *session.Options) { w.engine.onReady = func(*container) {} })
		r := ask("mysession")
		r.EnqueueOnly = true
		one := w.enqueue(r)
		synctest.Wait()
		first := w.host.get(one.ID)
		w.stop()
		if got := w.record(one.ID).Status; got != backendai.StatusCreating {
			t.Errorf("it is %s", got)
		}
		w.serve() // the runner that never gets ready is replaced
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.record(one.ID); got.Status != backendai.StatusRunning || w.host.get(one.ID) == first || w.host.count() != 1 {
			t.Errorf("%s: %s", got.Status, got.StatusMessage)
		}
	})
}
