package session_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

func exitOf(code int, reason string) engine.Exit { return engine.Exit{Code: code, Reason: reason} }

func TestEndsByItself(t *testing.T) {
	tests := []struct {
		name    string
		exit    engine.Exit
		reason  string
		message string
		code    *int
	}{
		{"exit", exitOf(7, backendai.ReasonSelfTerminated), backendai.ReasonSelfTerminated, "exit code 7", new(7)},
		{"memory", engine.Exit{Code: 137, Reason: backendai.ReasonOutOfMemory, OOM: true}, backendai.ReasonOutOfMemory, "the session used more than its 80MiB of memory", new(137)},
		{"lost", exitOf(-1, backendai.ReasonLost), backendai.ReasonLost, "nobody saw its end", nil},
		{"claims a task", engine.Exit{Code: 0, Reason: backendai.ReasonTaskFinished, Detail: "done"}, backendai.ReasonSelfTerminated, "done", new(0)},
	}
	for _, unseen := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					one := w.start("mysession")
					if unseen {
						w.crash()
					}
					w.host.die(one.ID, tt.exit)
					if unseen {
						w.serve()
					}
					synctest.Wait()
					got := w.record(one.ID)
					if got.Status != backendai.StatusTerminated || got.StatusInfo != tt.reason || got.StatusMessage != tt.message || !cmp.Equal(got.ExitCode, tt.code) {
						t.Errorf("%s, %s: %q, %v", got.Status, got.StatusInfo, got.StatusMessage, got.ExitCode)
					}
					if w.host.count() != 0 {
						t.Error("the container is left")
					}
					log, err := w.Logs(t.Context(), alice, one.ID, true)
					if err != nil {
						t.Fatal(err)
					}
					defer log.Close()
					if text, err := io.ReadAll(log); err != nil || string(text) != "hello from "+one.ID+"\n" {
						t.Errorf("log %q, %v", text, err)
					}
				})
			})
		}
	}
}

func TestDestroyWhileStarting(t *testing.T) {
	for _, image := range []string{"python", "later"} {
		t.Run(image, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
				w := newWorld(t, func(w *world, _ *session.Options) {
					w.engine.onCreate = func(ctx context.Context, _ engine.Spec) error { return hang(ctx) }
					w.images.onPull = func(ctx context.Context, _ func(backendai.PullProgress)) error { return hang(ctx) }
				})
				waiting := make(chan session.CreateResult)
				go func() {
					r := ask("mysession")
					r.Image = image
					made, err := w.Create(t.Context(), alice, r)
					if err != nil {
						t.Error(err)
					}
					waiting <- made
				}()
				synctest.Wait()
				gone := w.destroy("mysession")
				if gone.Status != backendai.StatusTerminated || gone.StatusInfo != backendai.ReasonUserRequested || gone.StatusMessage != "" {
					t.Errorf("%s, %s: %s", gone.Status, gone.StatusInfo, gone.StatusMessage)
				}
				if made := <-waiting; made.Session.Status != backendai.StatusTerminated || !made.Created {
					t.Errorf("the waiting caller: %+v", made)
				}
				if w.host.count() != 0 {
					t.Error("the container is left")
				}
			})
		})
	}
}

// TestForce ends at once what a gentle end is still waiting for.
func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var graces []time.Duration
		w := newWorld(t, func(w *world, _ *session.Options) {
			w.engine.onStop = func(ctx context.Context, _ string, grace time.Duration) error {
				graces = append(graces, grace)
				if grace == 0 {
					return nil
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(grace):
					return nil
				}
			}
		})
		one := w.start("mysession")
		var both sync.WaitGroup
		at := time.Now()
		both.Go(func() {
			if gone := w.destroy("mysession"); gone.StatusInfo != backendai.ReasonUserRequested {
				t.Errorf("%s", gone.StatusInfo)
			}
		})
		time.Sleep(time.Second)
		if got := w.record(one.ID).Status; got != backendai.StatusTerminating {
			t.Errorf("it is %s", got)
		}
		both.Go(func() {
			if _, err := w.Destroy(t.Context(), alice, "mysession", true); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if time.Since(at) != time.Second || !cmp.Equal(graces, []time.Duration{15 * time.Second, 0}) {
			t.Errorf("it took %s, with graces %v", time.Since(at), graces)
		}
		w.start("another")
		if gone, err := w.Destroy(t.Context(), alice, "another", true); err != nil || gone.StatusInfo != backendai.ReasonForced || len(graces) != 3 {
			t.Errorf("%+v, %v, %v", gone, err, graces)
		}
	})
}

func TestRemovalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := backendai.Errorf(backendai.CodeUnavailable, "the device is busy")
		var mended atomic.Bool
		w := newWorld(t, func(w *world, _ *session.Options) {
			w.engine.onRemove = func(string) error {
				if !mended.Load() {
					return broken
				}
				return nil
			}
		})
		w.start("mysession")
		for range 2 {
			_, err := w.Destroy(t.Context(), alice, "mysession", false)
			if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Title != `the session "mysession" cannot be removed: the device is busy` {
				t.Errorf("destroy: %v", err)
			}
		}
		if one, err := w.Find(t.Context(), alice, "mysession", false); err != nil || one.Status != backendai.StatusTerminating {
			t.Errorf("%+v, %v", one, err)
		}
		mended.Store(true)
		time.Sleep(time.Minute) // tried again by itself
		synctest.Wait()
		if one, err := w.Find(t.Context(), alice, "mysession", true); err != nil || one.Status != backendai.StatusTerminated {
			t.Errorf("%+v, %v", one, err)
		}
	})
}

func TestCreateWaitsForTheEndOfItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pause atomic.Int64
		pause.Store(int64(5 * time.Second))
		w := newWorld(t, func(w *world, _ *session.Options) {
			w.engine.onStop = func(context.Context, string, time.Duration) error {
				time.Sleep(time.Duration(pause.Load()))
				return nil
			}
		})
		first := w.start("mysession")
		go w.destroy("mysession")
		synctest.Wait()
		if second := w.start("mysession"); second.ID == first.ID {
			t.Error("the ending one is used again")
		}
		pause.Store(int64(time.Minute))
		go w.destroy("mysession")
		synctest.Wait()
		_, err := w.Create(t.Context(), alice, ask("mysession"))
		if backendai.CodeOf(err) != backendai.CodeSessionExists || !strings.Contains(err.Error(), "still being removed") {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one := w.start("mysession")
		before := w.host.get(one.ID)
		sub := w.listen(session.EventFilter{Scope: "session"})
		if err := w.Restart(t.Context(), alice, "mysession"); err != nil {
			t.Fatal(err)
		}
		after := w.host.get(one.ID)
		if after == before || after.exit != nil || !cmp.Equal(before.spec, after.spec) {
			t.Errorf("the containers differ: %s", cmp.Diff(before.spec, after.spec))
		}
		w.until(sub, "session_restarting")
		w.until(sub, "session_started")
		synctest.Wait() // the end of the first container is no end of the session
		if got := w.record(one.ID); got.Status != backendai.StatusRunning || len(got.Apps) != 3 {
			t.Errorf("%s", got.Status)
		}
		w.host.die(one.ID, exitOf(0, backendai.ReasonSelfTerminated))
		w.until(sub, "session_terminated")
		if err := w.Restart(t.Context(), alice, "mysession"); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("of an ended one: %v", err)
		}

		w.start("another")
		w.engine.onCreate = func(context.Context, engine.Spec) error { return errors.New("no") }
		if err := w.Restart(t.Context(), alice, "another"); backendai.CodeOf(err) != backendai.CodeCreationFailed {
			t.Errorf("a failing one: %v", err)
		}
		w.until(sub, "session_terminated")
		w.engine.onCreate = nil
		w.enqueue(cpus("running", "4"))
		synctest.Wait()
		w.enqueue(cpus("pending", "1"))
		if err := w.Restart(t.Context(), alice, "pending"); backendai.CodeOf(err) != backendai.CodeUnavailable {
			t.Errorf("of a pending one: %v", err)
		}
	})
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	one := w.start("mysession")
	other := w.start("another")
	if err := w.Rename(t.Context(), alice, "mysession", "renamed"); err != nil {
		t.Fatal(err)
	}
	if got := w.record(one.ID).Name; got != "renamed" {
		t.Errorf("stored as %q", got)
	}
	if found, err := w.Find(t.Context(), alice, "renamed", false); err != nil || found.ID != one.ID {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := w.Find(t.Context(), alice, "mysession", false); err == nil {
		t.Error("the old name leads somewhere")
	}
	err := w.Rename(t.Context(), alice, "renamed", "another")
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Code != backendai.CodeSessionExists || !cmp.Equal(e.Data, any(map[string]string{"existingSessionId": other.ID})) {
		t.Errorf("to a taken name: %v", err)
	}
	if err := w.Rename(t.Context(), alice, "renamed", "a b"); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("to a bad name: %v", err)
	}
	if err := w.Rename(t.Context(), alice, "renamed", "renamed"); err != nil {
		t.Errorf("to its own name: %v", err)
	}
	w.store.fail(errors.New("disk full"))
	if err := w.Rename(t.Context(), alice, "renamed", "mysession"); err == nil {
		t.Error("renamed without being stored")
	}
	w.store.fail(nil)
	if third := w.start("mysession"); third.ID == one.ID {
		t.Error("a name is held that nobody has")
	}
	w.destroy("renamed")
	w.start("renamed")
}
