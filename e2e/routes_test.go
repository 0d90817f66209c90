//go:build integration

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/api"
	"backendai/internal/auth"
)

// TestStranger asks every route for the session of another user: for a stranger
// there is none, and what does not name one tells nothing of it.
func TestStranger(t *testing.T) {
	owner, stranger := shared.addUser(t, "owner"), shared.addUser(t, "stranger")
	owner.start(t, "private-one", "python")
	id := strings.TrimSpace(owner.must(t, "ps", "-f", "session_id", "--plain"))
	handler, err := api.New(api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, route := range handler.Routes() {
		if !strings.HasPrefix(route.Pattern, "/session/{name}") && !strings.HasPrefix(route.Pattern, "/stream/session/{name}") {
			continue
		}
		for _, ref := range []string{"private-one", "private", id, id[:8]} {
			path := strings.ReplaceAll(strings.ReplaceAll(route.Pattern, "{name}", ref), "{terminal}", "main")
			path += "?app=sshd&file=id_container&files=id_container&path=.&owner_access_key=" + owner.variable("BACKEND_ACCESS_KEY")
			resp := stranger.call(t, route.Method, path, "", time.Now())
			// A route may refuse the owner's key before it looks for the session.
			if resp.StatusCode == http.StatusForbidden {
				path = path[:strings.Index(path, "&owner_access_key")]
				resp = stranger.call(t, route.Method, path, "", time.Now())
			}
			problem(t, resp, http.StatusNotFound, backendai.CodeNotFound)
			if t.Failed() {
				t.Fatalf("%s %s", route.Method, path)
			}
			// Nor is there anything without a valid signature.
			anonymous(t, route.Method, path)
			tried++
		}
	}
	if tried < 4*15 {
		t.Errorf("only %d requests were tried", tried)
	}
	for _, args := range [][]string{
		{"ps", "-a"}, {"ps", "--dead"}, {"info", "private-one"}, {"info", id}, {"logs", id}, {"apps", "private-one"}, {"rm", "-f", "private-one"},
		{"restart", id}, {"rename", "private-one", "my-own-now"}, {"ssh", "private-one", "true"}, {"download", "private-one", "id_container"},
		{"app", "-b", "0", id, "jupyter"}, {"terminals", "private-one"}, {"admin", "session", "list"}, {"admin", "user", "list"}, {"admin", "keypair", "list"},
	} {
		r := stranger.run(t, args...)
		if strings.Contains(r.out, id) || strings.Contains(r.out, owner.variable("BACKEND_ACCESS_KEY")) || strings.Contains(r.out+r.errs, "python:3") {
			t.Errorf("%q tells: %v", args, r)
		}
		if args[0] != "ps" && args[0] != "admin" && r.code == 0 {
			t.Errorf("%q: %v", args, r)
		}
	}
	if r := owner.inside(t, "private-one", "echo untouched"); r.out != "untouched\n" {
		t.Errorf("the session afterwards: %v", r)
	}
}

// TestEventsAreTheOwners listens as a stranger while a session comes and goes.
func TestEventsAreTheOwners(t *testing.T) {
	owner, stranger := shared.addUser(t, "owner"), shared.addUser(t, "stranger")
	resp := stranger.call(t, "GET", "/events/session?sessionName=*&group=*&scope=*", "", time.Now())
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %d", resp.StatusCode)
	}
	owner.start(t, "private-one", "base")
	owner.must(t, "rm", "private-one")
	stranger.start(t, "my-own", "base")
	stranger.must(t, "rm", "my-own")
	var text strings.Builder
	buffer := make([]byte, 4096)
	for !strings.Contains(text.String(), "session_terminated") {
		n, err := resp.Body.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			t.Fatalf("%v after %s", err, text.String())
		}
	}
	if strings.Contains(text.String(), "private-one") || !strings.Contains(text.String(), "my-own") {
		t.Errorf("the stranger heard %s", text.String())
	}
}

// anonymous sends a request without, and with a faulty, signature.
func anonymous(t *testing.T, method, path string) {
	t.Helper()
	for _, key := range []string{"", "AKIANOBODY0000000000"} {
		req, err := http.NewRequestWithContext(t.Context(), method, shared.endpoint()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		auth.Sign(req, key, "no secret", "v9.20250722", "application/json", time.Now())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s with the key %q: %d %s", method, path, key, resp.StatusCode, body)
		}
	}
}
