//go:build integration

package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSessionsSurviveACrash kills the server under a running session; a
// connection that is opened afterwards, through the same "app", finds the same
// processes.
func TestSessionsSurviveACrash(t *testing.T) {
	u := shared.admin
	u.start(t, "survivor", "python")
	port := u.app(t, "survivor", "jupyter")
	started := jupyterStart(t, port)
	for range 3 {
		shared.restart(t)
		if again := jupyterStart(t, port); again != started {
			t.Errorf("Jupyter started at %s, before the crash at %s", again, started)
		}
	}
	if r := u.run(t, "ps", "--name-only"); !strings.Contains(r.out, "survivor") {
		t.Errorf("ps: %v", r)
	}
}

// TestWorkSurvivesCrashes crashes and stops the server while a batch session
// prints: it loses neither its result nor a line of its log.
func TestWorkSurvivesCrashes(t *testing.T) {
	u := shared.admin
	t.Cleanup(func() { u.remove(t, "worker") })
	const lines = 150
	command := fmt.Sprintf("for i in $(seq %d); do echo line $i; sleep 0.02; done; exit 3", lines)
	u.must(t, "start", "-t", "worker", "--type", "batch", "-c", command, "base")
	logged := shared.logs.size()
	id := strings.TrimSpace(u.must(t, "ps", "-f", "session_id", "--plain", "--filter", `name == "worker"`))
	shared.logs.wait(t, logged, "path=/admin/gql")
	logged = shared.logs.size()
	waiting := make(chan result)
	go func() { waiting <- u.run(t, "events", "-q", "--wait", "batch_session_result", id) }()
	shared.logs.wait(t, logged, "path=/admin/gql") // it hears of changes, and has asked for what was before
	shared.restart(t)
	if err := shared.stop(); err != nil {
		t.Error(err)
	}
	if err := shared.boot(); err != nil {
		t.Fatal(err)
	}
	shared.restart(t)
	if r := <-waiting; r.code != 1 || r.errs != "" { // that of a session that failed
		t.Errorf("events: %v", r)
	}
	if out := u.must(t, "info", id); !strings.Contains(out, "FAILURE") || !strings.Contains(out, "exit_code:3") {
		t.Errorf("info: %s", out)
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	if out := u.must(t, "logs", id); !strings.Contains(out, want.String()) {
		t.Errorf("logs: %s", out)
	}
}

// jupyterStart is when the Jupyter behind a port started.
func jupyterStart(t *testing.T, port string) string {
	t.Helper()
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://127.0.0.1:" + port + "/api/status")
	if err != nil {
		t.Fatalf("ask Jupyter: %v\n%s", err, shared.logs.tail(3000))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("ask Jupyter: %d %v %s", resp.StatusCode, err, body)
	}
	return find(t, string(body), "started")
}

// TestCrashAtAnyMoment kills the server at random moments while sessions start,
// run and end. Whatever it was doing, the next start settles it: every session
// gets to RUNNING or to an end with a reason, and nothing is left over.
func TestCrashAtAnyMoment(t *testing.T) {
	u := shared.admin
	const rounds = 12
	for round := range rounds {
		var names []string
		var commands sync.WaitGroup
		for i := range 4 {
			name := fmt.Sprintf("crash-%d-%d", round, i)
			names = append(names, name)
			commands.Go(func() {
				for _, args := range [][]string{{"start", "-t", name, "base"}, {"rm", "-f", name}} {
					cmd := exec.Command(program, args...)
					cmd.Env = u.env
					_ = cmd.Run() // the crash may break it: that is the point
					if i%2 == 0 {
						return
					}
				}
			})
		}
		delay := time.Duration(rand.IntN(250)) * time.Millisecond
		timer := time.NewTimer(delay)
		<-timer.C
		shared.restart(t)
		commands.Wait()
		for _, name := range names {
			r := u.run(t, "start", "-t", name, "base") // again: the same session, or a new one
			if r.code != 0 {
				t.Fatalf("round %d, crash after %s: start %s again: %v\n%s", round, delay, name, r, shared.logs.tail(3000))
			}
			if r := u.run(t, "rm", name); r.code != 0 {
				t.Fatalf("round %d: rm %s: %v", round, name, r)
			}
		}
		shared.nothingLeft(t)
	}
	if r := u.run(t, "ps", "--name-only"); strings.Contains(r.out, "crash-") {
		t.Errorf("sessions are left: %v", r)
	}
}

// TestAppWaitsForTheServer opens a connection while the server is down for a moment.
func TestAppWaitsForTheServer(t *testing.T) {
	u := shared.admin
	u.start(t, "patient", "base")
	port := u.app(t, "patient", "sshd")
	shared.kill()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := shared.boot(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	banner := make([]byte, 7)
	if _, err := io.ReadFull(c, banner); err != nil || string(banner) != "SSH-2.0" {
		t.Errorf("after the restart: %q, %v", banner, err)
	}
}
