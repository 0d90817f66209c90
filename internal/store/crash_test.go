package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"backendai"
	"backendai/internal/session"
	"backendai/internal/store"
)

// The environment that makes this test program a writer: it stores sessions in
// writerDir, named writerName and a number, and prints each name when it is
// acknowledged; as many as writerCount, or until it is killed.
const (
	writerDir   = "STORE_TEST_DIR"
	writerName  = "STORE_TEST_NAME"
	writerCount = "STORE_TEST_COUNT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := write(dir, os.Getenv(writerName), os.Getenv(writerCount)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func write(dir, name, count string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	var n int
	_, _ = fmt.Sscan(count, &n)
	for i := 0; n == 0 || i < n; i++ {
		one := newSession(fmt.Sprintf("%s-%d", name, i))
		if err := s.InsertSession(ctx, one); err != nil {
			return err
		}
		one.StatusMessage = "acknowledged"
		if err := one.MoveTo(backendai.StatusScheduled, "", start); err != nil {
			return err
		}
		if err := s.UpdateSession(ctx, one); err != nil {
			return err
		}
		fmt.Println(one.Name)
	}
	return s.Close()
}

func writer(t *testing.T, dir, name string, count int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), writerDir+"="+dir, writerName+"="+name, fmt.Sprintf("%s=%d", writerCount, count))
	return cmd
}

// TestKilledWriter kills a process in the middle of its writes: all that it
// acknowledged is there, and the database is whole.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 6 {
		cmd := writer(t, dir, fmt.Sprintf("round-%d", round), 0)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acknowledged[lines.Text()] = true
			if n == 1+round*80 { // before, at and after the log is folded
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed

		s, err := store.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		found, _, err := s.FindSessions(t.Context(), session.Query{})
		if err != nil {
			t.Fatal(err)
		}
		here := map[string]*backendai.Session{}
		for _, one := range found {
			here[one.Name] = one
		}
		for name := range acknowledged {
			if one := here[name]; one == nil || one.Status != backendai.StatusScheduled || one.StatusMessage != "acknowledged" || len(one.History) != 2 {
				t.Fatalf("round %d: the acknowledged session %s is %+v", round, name, one)
			}
		}
		var verdict string
		if err := rawDatabase(t, dir).QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
			t.Errorf("round %d: %s, %v", round, verdict, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(acknowledged) < 1000 {
		t.Errorf("only %d sessions were acknowledged", len(acknowledged))
	}
}

// TestManyWriters lets two processes and many goroutines of this one write at once.
func TestManyWriters(t *testing.T) {
	const each = 50
	dir := t.TempDir()
	s := openStore(t, dir)
	var all sync.WaitGroup
	for p := range 2 {
		cmd := writer(t, dir, fmt.Sprintf("process-%d", p), each)
		all.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "\n") != each {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for g := range 8 {
		all.Go(func() {
			for i := range each {
				one := newSession(fmt.Sprintf("routine-%d-%d", g, i))
				if err := s.InsertSession(t.Context(), one); err != nil {
					t.Error(err)
				}
				one.Priority = g
				if err := s.UpdateSession(t.Context(), one); err != nil {
					t.Error(err)
				}
				if got, err := s.Session(t.Context(), one.ID); err != nil || got.Priority != g { // own writes are seen at once
					t.Errorf("%+v, %v", got, err)
				}
			}
		})
		all.Go(func() {
			for range each / 10 {
				if _, _, err := s.FindSessions(t.Context(), session.Query{Filter: `name like "routine-%"`, Limit: 10}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if _, total, err := s.FindSessions(t.Context(), session.Query{Limit: 1}); err != nil || total != 10*each {
		t.Errorf("%d sessions, %v", total, err)
	}
}

// TestOneNameAtOnce lets many ask for the same name: one gets it, the others
// are told which session has it.
func TestOneNameAtOnce(t *testing.T) {
	s := openStore(t, t.TempDir())
	var all sync.WaitGroup
	var mu sync.Mutex
	var made []string
	told := map[string]int{}
	for range 32 {
		one := newSession("mysession")
		all.Go(func() {
			err := s.InsertSession(t.Context(), one)
			mu.Lock()
			defer mu.Unlock()
			switch backendai.CodeOf(err) {
			case "":
				made = append(made, one.ID)
			case backendai.CodeSessionExists:
				told[dataOf(err).(map[string]string)["existingSessionId"]]++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != 1 || told[made[0]] != 31 {
		t.Errorf("made %v, told %v", made, told)
	}
}
