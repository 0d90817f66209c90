package session_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/session"
)

func cpus(name, cpu string) session.CreateRequest {
	r := ask(name)
	r.Image, r.EnqueueOnly = "plain", true
	r.Resources = map[string]string{"cpu": cpu, "mem": "64m"}
	return r
}

func (w *world) enqueue(r session.CreateRequest) *backendai.Session {
	w.t.Helper()
	made, err := w.Create(w.t.Context(), alice, r)
	if err != nil {
		w.t.Fatalf("create %s: %v", r.Name, err)
	}
	return made.Session
}

// names lists the sessions of alice in a status, in the order of their creation.
func (w *world) names(status backendai.Status) []string {
	w.t.Helper()
	all, err := w.Match(w.t.Context(), alice, "")
	if err != nil {
		w.t.Fatal(err)
	}
	list := []string{}
	for _, one := range all {
		if one.Status == status {
			list = append(list, one.Name)
		}
	}
	return list
}

func (w *world) destroy(name string) *backendai.Session {
	w.t.Helper()
	one, err := w.Destroy(w.t.Context(), alice, name, false)
	if err != nil {
		w.t.Errorf("destroy %s: %v", name, err)
		return &backendai.Session{}
	}
	return one
}

func TestQueueTellsWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t) // four processors
		w.enqueue(cpus("first", "3"))
		w.enqueue(cpus("second", "2"))
		synctest.Wait()
		one, err := w.Find(t.Context(), alice, "second", false)
		if err != nil || one.StatusMessage != "waits for cpu: 2 asked for, 1 of 4 free" {
			t.Errorf("%+v, %v", one, err)
		}
		w.destroy("first")
		synctest.Wait()
		if one, err = w.Find(t.Context(), alice, "second", false); err != nil || one.StatusMessage != "" {
			t.Errorf("%+v, %v", one, err)
		}
	})
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t) // four processors
		want := func(running, pending []string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(running, w.names("RUNNING")) + cmp.Diff(pending, w.names("PENDING")); diff != "" {
				t.Error(diff)
			}
		}
		for i, cpu := range []string{"2", "1", "3", "1"} {
			time.Sleep(time.Second)
			w.enqueue(cpus(fmt.Sprintf("session-%d", i), cpu))
		}
		// The last one would fit, but must not keep the large one waiting.
		want([]string{"session-0", "session-1"}, []string{"session-2", "session-3"})
		time.Sleep(time.Second)
		r := cpus("urgent", "4")
		r.Priority = 11
		w.enqueue(r)
		w.destroy("session-0")
		want([]string{"session-1"}, []string{"session-2", "session-3", "urgent"})
		if gone := w.destroy("urgent"); gone.Status != backendai.StatusCancelled || gone.StatusInfo != backendai.ReasonUserRequested {
			t.Errorf("a pending session: %s, %s", gone.Status, gone.StatusInfo)
		}
		want([]string{"session-1", "session-2"}, []string{"session-3"})
		w.destroy("session-2")
		want([]string{"session-1", "session-3"}, []string{})
		w.destroy("session-1")
		w.destroy("session-3")
		w.enqueue(cpus("whole", "4")) // nothing got lost
		want([]string{"whole"}, []string{})
	})
}

func TestQueueOverRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.enqueue(cpus("running", "4"))
		for i := range 3 {
			time.Sleep(time.Second)
			w.enqueue(cpus(fmt.Sprintf("waiting-%d", i), "3"))
		}
		synctest.Wait()
		w.crash()
		w.serve(func(_ *world, o *session.Options) { o.Capacity = backendai.Slots{"cpu": 4000, "mem": 1 << 40} })
		synctest.Wait()
		if got := w.names("RUNNING"); !cmp.Equal(got, []string{"running"}) {
			t.Errorf("running: %v", got)
		}
		w.destroy("running")
		synctest.Wait()
		if got := w.names("RUNNING"); !cmp.Equal(got, []string{"waiting-0"}) {
			t.Errorf("running: %v", got)
		}
		// A smaller machine cannot ever run them.
		w.crash()
		w.serve(func(_ *world, o *session.Options) { o.Capacity = backendai.Slots{"cpu": 2000, "mem": 1 << 40} })
		synctest.Wait()
		if got := w.names("PENDING"); len(got) != 0 {
			t.Errorf("pending: %v", got)
		}
		one, err := w.Find(t.Context(), alice, "waiting-2", true)
		if err != nil || one.Status != backendai.StatusCancelled || one.StatusMessage != "it needs cpu=3, but this machine has 2" {
			t.Errorf("%+v, %v", one, err)
		}
	})
}

func batch(name string) session.CreateRequest {
	r := ask(name)
	r.Type, r.Startup, r.EnqueueOnly = backendai.Batch, "python train.py", true
	return r
}

func TestStartsAt(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				r := batch("mysession")
				r.StartsAt = time.Now().Add(time.Hour)
				one := w.enqueue(r)
				time.Sleep(30 * time.Minute)
				if restart {
					w.crash()
					w.serve()
				}
				time.Sleep(30*time.Minute - time.Second)
				synctest.Wait()
				if got := w.record(one.ID).Status; got != backendai.StatusPending {
					t.Errorf("before its time: %s", got)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := w.record(one.ID); got.Status != backendai.StatusRunning {
					t.Errorf("at its time: %s", got.Status)
				}
			})
		})
	}
}

func TestBatch(t *testing.T) {
	tests := []struct {
		name   string
		end    func(w *world, id string)
		reason string
		result backendai.Result
		code   *int
		event  string
	}{
		{"success", func(w *world, id string) { w.host.finishBatch(id, 0) }, backendai.ReasonTaskFinished, backendai.ResultSuccess, new(0), "session_success"},
		{"failure", func(w *world, id string) { w.host.finishBatch(id, 3) }, backendai.ReasonTaskFailed, backendai.ResultFailure, new(3), "session_failure"},
		{"unseen success", func(w *world, id string) {
			w.crash()
			w.host.die(id, exitOf(0, backendai.ReasonTaskFinished))
			w.serve()
		}, backendai.ReasonTaskFinished, backendai.ResultSuccess, new(0), "session_success"},
		{"unseen timeout", func(w *world, id string) {
			w.crash()
			w.host.die(id, exitOf(143, backendai.ReasonTaskTimeout))
			w.serve()
		}, backendai.ReasonTaskTimeout, backendai.ResultFailure, new(143), "session_failure"},
		{"finished while no server was there", func(w *world, id string) {
			w.crash()
			w.host.finishBatch(id, 0)
			w.serve()
		}, backendai.ReasonTaskFinished, backendai.ResultSuccess, new(0), "session_success"},
		{"lost", func(w *world, id string) { w.host.die(id, exitOf(-1, backendai.ReasonLost)) }, backendai.ReasonLost, backendai.ResultFailure, nil, "session_failure"},
		{"removed", func(w *world, id string) { go w.destroy("mysession") }, backendai.ReasonUserRequested, backendai.ResultUndefined, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				one := w.enqueue(batch("mysession"))
				synctest.Wait()
				if b := w.host.get(one.ID).spec.Runner.Batch; b == nil || b.Command != "python train.py" {
					t.Fatalf("the runner was told %+v", b)
				}
				tt.end(w, one.ID)
				synctest.Wait()
				got := w.record(one.ID)
				if got.Status != backendai.StatusTerminated || got.StatusInfo != tt.reason || got.Result != tt.result || !cmp.Equal(got.ExitCode, tt.code) {
					t.Errorf("%s, %s, %s, %v", got.Status, got.StatusInfo, got.Result, got.ExitCode)
				}
				if w.host.count() != 0 {
					t.Error("the container is left")
				}
			})
		})
	}
}

func TestBatchEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		sub := w.listen(session.EventFilter{Session: "mysession", Scope: "session"})
		one := w.enqueue(batch("mysession"))
		synctest.Wait()
		w.host.finishBatch(one.ID, 4)
		if e := w.until(sub, "session_failure"); e.ExitCode == nil || *e.ExitCode != 4 || e.Reason != backendai.ReasonTaskFailed {
			t.Errorf("%+v", e)
		}
		if e := w.until(sub, "session_terminated"); e.ExitCode == nil || *e.ExitCode != 4 || e.Reason != backendai.ReasonTaskFailed {
			t.Errorf("%+v", e)
		}
	})
}

func TestDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		depends := func(name string, on ...string) *backendai.Session {
			r := batch(name)
			r.Dependencies = on
			return w.enqueue(r)
		}
		first, second := w.enqueue(batch("first")), w.enqueue(batch("second"))
		both, chain := depends("both", "first", second.ID[:13]), depends("chain", "both")
		if !cmp.Equal(both.Dependencies, []string{first.ID, second.ID}) {
			t.Errorf("dependencies %v", both.Dependencies)
		}
		synctest.Wait()
		w.host.finishBatch(first.ID, 0)
		synctest.Wait()
		if got := w.record(both.ID).Status; got != backendai.StatusPending {
			t.Errorf("after one: %s", got)
		}
		w.crash()
		w.serve()
		synctest.Wait()
		w.host.finishBatch(second.ID, 0)
		synctest.Wait()
		if got := w.record(both.ID).Status; got != backendai.StatusRunning {
			t.Errorf("after both: %s", got)
		}
		depends("late", "first") // has succeeded already
		w.host.finishBatch(both.ID, 1)
		synctest.Wait()
		if got := w.record(chain.ID); got.Status != backendai.StatusCancelled || got.StatusMessage != `the session "both" that it depends on has not succeeded` {
			t.Errorf("after a failure: %s: %s", got.Status, got.StatusMessage)
		}
		if got := w.names("RUNNING"); !cmp.Equal(got, []string{"late"}) {
			t.Errorf("running %v", got)
		}
		w.start("interactive")
		for _, on := range []string{"both", "interactive", "nobody"} {
			r := batch("refused")
			r.Dependencies = []string{on}
			if _, err := w.Create(t.Context(), alice, r); err == nil {
				t.Errorf("a dependency on %s is taken", on)
			}
			if _, err := w.Create(t.Context(), stranger, func() session.CreateRequest { r := r; r.Dependencies = []string{"first"}; return r }()); backendai.CodeOf(err) != backendai.CodeNotFound {
				t.Errorf("a stranger's dependency: %v", err)
			}
		}
	})
}
