package session_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/session"
)

func TestLife(t *testing.T) {
	w := newWorld(t)
	sub := w.listen(session.EventFilter{Scope: "session"})
	one := w.start("mysession")
	if names := []string{one.Apps[0].Name, one.Apps[1].Name, one.Apps[2].Name}; !cmp.Equal(names, []string{"sshd", "ttyd", "jupyter"}) {
		t.Errorf("apps %v", names)
	}
	gone, err := w.Destroy(t.Context(), alice, "mysess", false)
	if err != nil {
		t.Fatal(err)
	}
	if gone.Status != backendai.StatusTerminated || gone.StatusInfo != backendai.ReasonUserRequested || gone.TerminatedAt.IsZero() {
		t.Errorf("destroyed: %s, %s", gone.Status, gone.StatusInfo)
	}
	want := []backendai.Status{"PENDING", "SCHEDULED", "PREPARING", "CREATING", "RUNNING", "TERMINATING", "TERMINATED"}
	if got := statuses(w.record(one.ID)); !cmp.Equal(got, want) {
		t.Errorf("history %v", got)
	}
	for i, name := range []string{"enqueued", "scheduled", "preparing", "started", "terminating", "terminated"} {
		if e := <-sub; e.Name != "session_"+name || e.SessionID != one.ID || e.Session != "mysession" || e.AccessKey != alice.Keypair.AccessKey {
			t.Errorf("event %d: %+v, want session_%s", i, e, name)
		}
	}
	if w.host.count() != 0 {
		t.Error("the container is left")
	}
	if _, err := w.Find(t.Context(), alice, "mysession", false); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("find: %v", err)
	}
	if again := w.start("mysession"); again.ID == one.ID {
		t.Error("the ended session is used again")
	}
}
