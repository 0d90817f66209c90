package session_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"backendai"
	"backendai/internal/session"
)

func TestKeptLogsAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ *world, o *session.Options) { o.LogRetention = 2 * time.Hour })
		one := w.start("mysession")
		w.destroy("mysession")
		file := filepath.Join(w.logs, one.ID+".log")
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info, err)
		}
		if err := os.Chtimes(file, time.Now(), time.Now()); err != nil { // the clock of this test is not the disk's
			t.Fatal(err)
		}
		for i, kept := range []bool{true, false} {
			time.Sleep(time.Hour + time.Minute)
			synctest.Wait()
			if _, err := os.Stat(file); (err == nil) != kept {
				t.Errorf("after %d hours: %v", i+1, err)
			}
		}
		if _, err := w.Logs(t.Context(), alice, one.ID, false); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("%v", err)
		}
	})
}

func TestNoLogsAreKept(t *testing.T) {
	w := newWorld(t, func(_ *world, o *session.Options) { o.LogRetention = 0 })
	w.start("mysession")
	w.destroy("mysession")
	if left, _ := filepath.Glob(w.logs + "/*"); len(left) != 0 {
		t.Errorf("%v", left)
	}
}
