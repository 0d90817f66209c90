package session_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

// TestStartFails wants of every failed start: ERROR with reason and one line for
// its caller, TERMINATED in the end, the name and slots free, nothing left.
func TestStartFails(t *testing.T) {
	full := backendai.Errorf(backendai.CodeUnavailable, "the disk is full").WithHint("make room")
	tests := []struct {
		name    string
		image   string
		prepare func(*world)
		reason  string
		message string
	}{
		{"engine", "python", func(w *world) {
			w.engine.onCreate = func(context.Context, engine.Spec) error { return full }
		}, backendai.ReasonFailedToCreate, "the disk is full (make room)"},
		{"engine's unknown error", "python", func(w *world) {
			w.engine.onCreate = func(context.Context, engine.Spec) error { return errors.New("open /secret/path") }
		}, backendai.ReasonFailedToCreate, "the server could not do it; its log tells why"},
		{"dies at once", "python", func(w *world) {
			w.engine.onReady = func(c *container) {
				w.host.die(c.spec.ID, engine.Exit{Code: 3, Reason: backendai.ReasonSelfTerminated})
			}
		}, backendai.ReasonFailedToStart, "its container ended before it was ready: exit code 3"},
		{"dies of memory", "python", func(w *world) {
			w.engine.onReady = func(c *container) {
				w.host.die(c.spec.ID, engine.Exit{Code: 137, OOM: true, Reason: backendai.ReasonOutOfMemory, Detail: "killed"})
			}
		}, backendai.ReasonOutOfMemory, "its container ended before it was ready: killed"},
		{"never ready", "python", func(w *world) {
			w.engine.onReady = func(*container) {}
		}, backendai.ReasonFailedToStart, "its container did not become ready: the session does not answer: context deadline exceeded"},
		{"pull", "later", func(w *world) {
			w.images.onPull = func(context.Context, func(backendai.PullProgress)) error {
				return backendai.Errorf(backendai.CodeUnavailable, "the registry does not answer")
			}
		}, backendai.ReasonFailedToCreate, "the registry does not answer"},
		{"pulled for more", "later", func(w *world) {
			w.images.onPull = func(context.Context, func(backendai.PullProgress)) error {
				w.images.mu.Lock()
				defer w.images.mu.Unlock()
				image := w.images.all["later"]
				image.Labels = map[string]string{"ai.backend.resource.min.mem": "2g"}
				w.images.all["later"] = image
				return nil
			}
		}, backendai.ReasonFailedToCreate, `image "example.org/later:1" does not go with mem=1GiB; its limit is 2.1GiB (start it again: now that the image is here, its limits are known)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(w *world, _ *session.Options) { tt.prepare(w) })
				sub := w.listen(session.EventFilter{Scope: "session"})
				r := ask("mysession")
				r.Image = tt.image
				made, err := w.Create(t.Context(), alice, r)
				if err != nil {
					t.Fatal(err)
				}
				if s := made.Session; s.Status != backendai.StatusError || s.StatusInfo != tt.reason || s.StatusMessage != tt.message {
					t.Errorf("%s, %s: %s", s.Status, s.StatusInfo, s.StatusMessage)
				}
				w.until(sub, "session_error")
				if e := w.until(sub, "session_terminated"); e.Reason != tt.reason {
					t.Errorf("event %+v", e)
				}
				one := w.record(made.Session.ID)
				if one.Status != backendai.StatusTerminated || one.StatusInfo != tt.reason || one.StatusMessage != tt.message {
					t.Errorf("record %s, %s: %s", one.Status, one.StatusInfo, one.StatusMessage)
				}
				if w.host.count() != 0 {
					t.Error("a container is left")
				}
				w.engine.onCreate, w.engine.onReady = nil, nil
				r = ask("mysession")
				r.Resources = map[string]string{"cpu": "4", "mem": "4g"} // all there is
				if made, err = w.Create(t.Context(), alice, r); err != nil || made.Session.Status != backendai.StatusRunning {
					t.Errorf("afterwards: %+v, %v", made, err)
				}
			})
		})
	}
}

func TestLogOfOneThatDiedAtOnce(t *testing.T) {
	w := newWorld(t, func(w *world, _ *session.Options) {
		w.engine.onReady = func(c *container) { w.host.die(c.spec.ID, engine.Exit{Code: 1}) }
	})
	made, err := w.Create(t.Context(), alice, ask("mysession"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := w.Logs(t.Context(), alice, "mysession", false)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if text, err := io.ReadAll(log); err != nil || string(text) != "hello from "+made.Session.ID+"\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestPullIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.images.onPull = func(_ context.Context, progress func(backendai.PullProgress)) error {
			for i := range 100 {
				progress(backendai.PullProgress{Ref: "example.org/later:1", Stage: "downloading", Done: int64(i) << 20, Total: 100 << 20})
				time.Sleep(10 * time.Millisecond)
			}
			progress(backendai.PullProgress{Ref: "example.org/later:1", Stage: "unpacking"})
			return nil
		}
		sub := w.listen(session.EventFilter{Scope: "kernel"})
		r := ask("mysession")
		r.Image, r.EnqueueOnly = "later", true
		made, err := w.Create(t.Context(), alice, r)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for {
			e := <-sub
			if e.Name == "kernel_creating" {
				break
			}
			if e.Name != "kernel_pulling" {
				continue
			}
			if told++; told == 3 {
				one, err := w.Find(t.Context(), alice, "mysession", false)
				if err != nil || one.Status != backendai.StatusPulling || !strings.HasPrefix(one.StatusMessage, "downloading example.org/later:1: ") {
					t.Errorf("%s %q, %v", one.Status, one.StatusMessage, err)
				}
				if list, _, err := w.List(t.Context(), alice, session.Query{}); err != nil || list[0].StatusMessage != one.StatusMessage {
					t.Errorf("list: %v, %v", list, err)
				}
			}
			if e.Reason != "example.org/later:1" {
				t.Errorf("reason %q", e.Reason)
			}
		}
		if told < 5 || told > 9 { // one for the step, five or six within a second, one for unpacking
			t.Errorf("it was told %d times", told)
		}
		w.until(sub, "kernel_started")
		want := []backendai.Status{"PENDING", "SCHEDULED", "PREPARING", "PULLING", "CREATING", "RUNNING"}
		if one := w.record(made.Session.ID); !cmp.Equal(statuses(one), want) || one.StatusMessage != "" {
			t.Errorf("%v, %q", statuses(one), one.StatusMessage)
		}
	})
}

func TestStoreFails(t *testing.T) {
	full := backendai.Errorf(backendai.CodeUnavailable, "the disk of the database is full")
	w := newWorld(t)
	w.store.fail(full)
	if _, err := w.Create(t.Context(), alice, ask("mysession")); !errors.Is(err, full) {
		t.Errorf("create: %v", err)
	}
	w.store.fail(nil)
	one := w.start("mysession") // its name is free
	w.store.fail(full)
	// An end happens all the same, or a full disk could not be emptied.
	if gone, err := w.Destroy(t.Context(), alice, "mysession", false); err != nil || gone.Status != backendai.StatusTerminated {
		t.Errorf("destroy: %+v, %v", gone, err)
	}
	if w.host.count() != 0 {
		t.Error("the container is left")
	}
	w.store.fail(nil)
	// The next server sees that it is gone.
	w.crash()
	w.serve()
	sub := w.listen(session.EventFilter{})
	if found, err := w.Find(t.Context(), alice, "mysession", false); err == nil {
		_ = found
		w.until(sub, "session_terminated")
	}
	if got := w.record(one.ID); got.Status != backendai.StatusTerminated || got.StatusInfo != backendai.ReasonLost {
		t.Errorf("%s, %s", got.Status, got.StatusInfo)
	}
}
