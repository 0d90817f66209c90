//go:build integration && linux

package oci

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine/enginetest"
)

const (
	childEnv = "BACKENDAI_TEST_CHILD" // state directory of an engine to be killed
	keepEnv  = "BACKENDAI_TEST_KEEP"  // set when it removes no session
	secret   = "secret of the runners"
)

// child is an engine in a process of its own that makes sessions, and removes
// them, until it is killed. It tells the id of each that it made.
func child() {
	o := options(os.Getenv(childEnv))
	o.Network = NetworkNAT
	e, err := New(context.Background(), o)
	for err == nil {
		s := spec()
		s.Runner.Secret = []byte(secret)
		s.Egress = true
		if err = e.Create(context.Background(), s); err != nil {
			break
		}
		fmt.Println(s.ID)
		if os.Getenv(keepEnv) == "" {
			err = e.Remove(context.Background(), s.ID, 0)
		}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// startChild starts such a process and gives the lines that it prints.
func startChild(t *testing.T, dir string, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	rest, _ := io.ReadAll(out)
	if strings.Contains(string(rest), "error") {
		t.Errorf("the engine failed before it was killed: %s", rest)
	}
	_ = cmd.Wait() // it was killed
}

// A session goes on when its server is killed, and the next server has it.
func TestAdoptionAfterKill(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startChild(t, dir, keepEnv+"=1")
	var ids []string
	for range 3 {
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		ids = append(ids, strings.TrimSpace(line))
	}
	kill(t, cmd, out)
	e := natEngine(t, dir)
	next := exits(t, e)
	for _, id := range ids {
		s := spec()
		s.ID, s.Runner.Secret = id, []byte(secret)
		if err := enginetest.Health(t.Context(), e, s); err != nil {
			t.Errorf("after the server was killed: %v", err)
		}
		c, err := e.DialPort(t.Context(), id, 2200)
		if err != nil {
			t.Errorf("after the server was killed: %v", err)
			continue
		}
		_ = c.Close()
	}
	if err := e.Stop(t.Context(), ids[0], patience); err != nil {
		t.Error(err)
	}
	if got := next(); got.ID != ids[0] || got.Reason != backendai.ReasonUserRequested {
		t.Errorf("the end of an adopted session is told as %+v", got)
	}
	if err := e.Remove(t.Context(), ids[1], 0); err != nil {
		t.Error(err)
	}
}

// Killed at any moment, a server leaves nothing that the next one does not
// either run on or remove.
func TestKillAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	for range 25 {
		cmd, out := startChild(t, dir)
		if _, err := out.ReadString('\n'); err != nil { // it works
			t.Fatal(err)
		}
		<-time.After(time.Duration(rand.IntN(80_000)) * time.Microsecond)
		kill(t, cmd, out)
	}
	e := natEngine(t, dir)
	all, err := e.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if !c.Running && (c.Exit == nil || c.Exit.Reason == "") {
			t.Errorf("a session ended without a reason: %+v", c)
		}
		if !c.Running {
			continue
		}
		s := spec()
		s.ID, s.Runner.Secret = c.ID, []byte(secret)
		if err := enginetest.Health(t.Context(), e, s); err != nil {
			t.Errorf("a session that is said to run: %v", err)
		}
	}
	if pids := pidsOf(t, e.names.cgroup()); len(pids) > len(all) {
		t.Errorf("%d processes run in %d sessions", len(pids), len(all))
	}
}

// What ended while no server was there is told by the next one.
func TestEndWithoutServer(t *testing.T) {
	dir := t.TempDir()
	first, err := New(t.Context(), options(dir))
	if err != nil {
		t.Fatal(err)
	}
	alive, killed := create(t, first, spec()), create(t, first, spec())
	pid, err := openProcess(first.byID[killed.ID].snapshot().PID)
	if err != nil {
		t.Fatal(err)
	}
	defer pid.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sendSignal(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := waitProcess(pid); err != nil {
		t.Fatal(err)
	}
	second := openEngine(t, options(dir))
	all, err := second.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		switch {
		case c.ID == alive.ID && !c.Running:
			t.Errorf("a running session is listed as %+v", c)
		case c.ID == killed.ID && (c.Running || c.Exit == nil || c.Exit.Reason != backendai.ReasonLost):
			t.Errorf("a session that was killed without a server is listed as %+v", c)
		}
	}
}
