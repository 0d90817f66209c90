package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/session"
)

func TestConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := ask("mysession")
		r.PreopenPorts = []int{9000}
		made, err := w.Create(t.Context(), alice, r)
		if err != nil {
			t.Fatal(err)
		}
		c := w.host.get(made.Session.ID)
		reach := func(req session.ConnectRequest, want string) {
			t.Helper()
			conn, err := w.Connect(t.Context(), alice, "mysession", req)
			if err != nil {
				t.Errorf("%+v: %v", req, err)
				return
			}
			defer conn.Close()
			if text, err := io.ReadAll(conn); err != nil || string(text) != want {
				t.Errorf("%+v: %q, %v", req, text, err)
			}
		}
		reach(session.ConnectRequest{App: "sshd"}, "port 2200")
		reach(session.ConnectRequest{App: "ttyd", Port: 7681}, "port 7681")
		c.ports[9000], c.ports[1234] = true, true
		reach(session.ConnectRequest{App: "9000"}, "port 9000")
		reach(session.ConnectRequest{App: "1234"}, "port 1234")
		if c.starts != 0 {
			t.Errorf("%d starts for what needs none", c.starts)
		}
		for range 3 {
			reach(session.ConnectRequest{App: "jupyter", Arguments: map[string][]string{"--debug": nil}}, "port 8080")
		}
		if c.starts != 1 {
			t.Errorf("%d starts for three connections", c.starts)
		}
		c.ports[8080] = false // it has died
		reach(session.ConnectRequest{App: "jupyter"}, "port 8080")
		if c.starts != 2 {
			t.Errorf("%d starts after its death", c.starts)
		}
		if err := w.ShutdownApp(t.Context(), alice, "mysession", "jupyter"); err != nil {
			t.Error(err)
		}
		reach(session.ConnectRequest{App: "jupyter"}, "port 8080")
		if c.starts != 3 {
			t.Errorf("%d starts after a stop", c.starts)
		}

		refused := []struct {
			req   session.ConnectRequest
			code  backendai.Code
			field string
		}{
			{session.ConnectRequest{App: "nope"}, backendai.CodeNotFound, ""},
			{session.ConnectRequest{App: "../x"}, backendai.CodeNotFound, ""},
			{session.ConnectRequest{App: ""}, backendai.CodeNotFound, ""},
			{session.ConnectRequest{App: "0"}, backendai.CodeInvalidParams, "app"},
			{session.ConnectRequest{App: "65536"}, backendai.CodeInvalidParams, "app"},
			{session.ConnectRequest{App: "4321"}, backendai.CodeUnavailable, ""},
			{session.ConnectRequest{App: "1234", Port: 80}, backendai.CodeInvalidParams, "port"},
			{session.ConnectRequest{App: "jupyter", Port: 9999}, backendai.CodeInvalidParams, "port"},
			{session.ConnectRequest{App: "jupyter", Arguments: map[string][]string{"--evil": {"x"}}}, backendai.CodeInvalidParams, "arguments"},
			{session.ConnectRequest{App: "jupyter", Envs: map[string]string{"PATH": "/"}}, backendai.CodeInvalidParams, "envs"},
			{session.ConnectRequest{App: "sshd", Envs: map[string]string{"A": ""}}, backendai.CodeInvalidParams, "envs"},
			{session.ConnectRequest{App: "jupyter", Arguments: map[string][]string{"--debug": make([]string, 65)}}, backendai.CodeInvalidParams, "arguments"},
			{session.ConnectRequest{App: "jupyter", Arguments: map[string][]string{"--debug": {strings.Repeat("x", 9<<10)}}}, backendai.CodeInvalidParams, "arguments"},
		}
		for _, tt := range refused {
			_, err := w.Connect(t.Context(), alice, "mysession", tt.req)
			e, ok := errors.AsType[*backendai.Error](err)
			data, _ := e.Data.(map[string]string)
			if !ok || e.Code != tt.code || tt.field != "" && data[tt.field] == "" {
				t.Errorf("%.80v: %v", tt.req, err)
			}
		}
		w.enqueue(cpus("waiting", "4"))
		if _, err := w.Connect(t.Context(), alice, "waiting", session.ConnectRequest{App: "sshd"}); backendai.CodeOf(err) != backendai.CodeUnavailable || !strings.Contains(err.Error(), "PENDING") {
			t.Errorf("to a pending session: %v", err)
		}
	})
}

func TestCallsToTheRunner(t *testing.T) {
	w := newWorld(t)
	one := w.start("mysession")
	if apps, err := w.Apps(t.Context(), alice, "mysession"); err != nil || len(apps) != 3 {
		t.Errorf("apps %v, %v", apps, err)
	}
	for path, want := range map[string]string{
		"id_container": "id_container", "/home/work/a/b": "a/b", "/home/work": ".", "/home/work/../../etc/passwd": "", "/etc/passwd": "", "": "", "a\x00": "", "../x": "../x",
	} {
		body, err := w.Download(t.Context(), alice, "mysession", path)
		if want == "" {
			if backendai.CodeOf(err) != backendai.CodeInvalidParams {
				t.Errorf("%q: %v", path, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if text, _ := io.ReadAll(body); string(text) != "tar of "+want { // the runner refuses what leads out of the home
			t.Errorf("%q: %q", path, text)
		}
		body.Close()
	}
	if list, err := w.Terminals(t.Context(), alice, "mysession"); err != nil || len(list) != 1 || list[0].Name != "main" {
		t.Errorf("terminals %v, %v", list, err)
	}
	if err := errors.Join(w.EndTerminal(t.Context(), alice, "mysession", "main"), w.Interrupt(t.Context(), alice, "mysession")); err != nil {
		t.Error(err)
	}
	keys, err := w.HostKeys(t.Context(), alice, "mysession")
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], "ssh-ed25519 AAAA") {
		t.Errorf("host keys %v, %v", keys, err)
	}
	if again, _ := w.HostKeys(t.Context(), alice, one.ID); !cmp.Equal(keys, again) {
		t.Errorf("host keys %v, then %v", keys, again)
	}
}

// TestStrangers asks with every call for the session of someone else.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	one := w.start("mysession")
	calls := map[string]func(ctx context.Context, c backendai.Caller, ref string) error{
		"find": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Find(ctx, c, ref, false)
			return err
		},
		"find dead": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Find(ctx, c, ref, true)
			return err
		},
		"destroy": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Destroy(ctx, c, ref, true)
			return err
		},
		"restart": func(ctx context.Context, c backendai.Caller, ref string) error { return w.Restart(ctx, c, ref) },
		"rename": func(ctx context.Context, c backendai.Caller, ref string) error {
			return w.Rename(ctx, c, ref, "stolen")
		},
		"logs": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Logs(ctx, c, ref, false)
			return err
		},
		"follow": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Logs(ctx, c, ref, true)
			return err
		},
		"apps": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Apps(ctx, c, ref)
			return err
		},
		"connect": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Connect(ctx, c, ref, session.ConnectRequest{App: "sshd"})
			return err
		},
		"shutdown app": func(ctx context.Context, c backendai.Caller, ref string) error {
			return w.ShutdownApp(ctx, c, ref, "jupyter")
		},
		"download": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Download(ctx, c, ref, "x")
			return err
		},
		"terminals": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.Terminals(ctx, c, ref)
			return err
		},
		"end terminal": func(ctx context.Context, c backendai.Caller, ref string) error {
			return w.EndTerminal(ctx, c, ref, "x")
		},
		"host keys": func(ctx context.Context, c backendai.Caller, ref string) error {
			_, err := w.HostKeys(ctx, c, ref)
			return err
		},
		"interrupt": func(ctx context.Context, c backendai.Caller, ref string) error { return w.Interrupt(ctx, c, ref) },
		"as dependency": func(ctx context.Context, c backendai.Caller, ref string) error {
			r := batch("another")
			r.Dependencies = []string{ref}
			_, err := w.Create(ctx, c, r)
			return err
		},
	}
	for name, call := range calls {
		for _, ref := range []string{one.ID, one.ID[:8], "mysession", "mys"} {
			err, none := call(t.Context(), stranger, ref), call(t.Context(), stranger, "nobody")
			if backendai.CodeOf(err) != backendai.CodeNotFound {
				t.Errorf("%s %s: %v", name, ref, err)
			}
			// It looks the same as what does not exist.
			if err != nil && none != nil && strings.ReplaceAll(err.Error(), ref, "nobody") != none.Error() {
				t.Errorf("%s: %q and %q", name, err, none)
			}
		}
	}
	if found, err := w.Match(t.Context(), stranger, "my"); err != nil || len(found) != 0 {
		t.Errorf("match: %v, %v", found, err)
	}
	for _, q := range []session.Query{{}, {AccessKey: alice.Keypair.AccessKey}, {UserID: alice.User.ID}} {
		if found, n, err := w.List(t.Context(), stranger, q); err != nil || len(found) != 0 || n != 0 {
			t.Errorf("list %+v: %v, %d, %v", q, found, n, err)
		}
	}
	if _, err := w.Find(t.Context(), admin, "mysession", false); err != nil {
		t.Errorf("a superadmin: %v", err)
	}
	if found, _, err := w.List(t.Context(), admin, session.Query{}); err != nil || len(found) != 1 {
		t.Errorf("a superadmin lists %v, %v", found, err)
	}
	w.destroy("mysession")
	for _, ref := range []string{one.ID, "mysession"} {
		if _, err := w.Find(t.Context(), stranger, ref, true); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("an ended one: %v", err)
		}
		if _, err := w.Logs(t.Context(), stranger, ref, false); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("the log of an ended one: %v", err)
		}
	}
}

func TestReferences(t *testing.T) {
	w := newWorld(t)
	data, data2 := w.start("data"), w.start("data2")
	other, err := w.Create(t.Context(), admin, ask("data"))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		data.ID: data.ID, data2.ID[:12]: data2.ID, strings.ToUpper(data.ID): data.ID, "data": data.ID, "data2": data2.ID,
	} {
		if found, err := w.Find(t.Context(), alice, ref, false); err != nil || found.ID != want {
			t.Errorf("%s: %+v, %v", ref, found, err)
		}
	}
	_, err = w.Find(t.Context(), alice, "dat", false)
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok || e.Code != backendai.CodeTooManySessions || len(e.Data.(map[string]any)["matches"].([]map[string]any)) != 2 {
		t.Errorf("a prefix of both: %v", err)
	}
	if found, err := w.Find(t.Context(), admin, "data", false); err != nil || found.ID != other.Session.ID {
		t.Errorf("a superadmin's own comes first: %+v, %v", found, err)
	}
	for _, ref := range []string{"", "%", "data%", `"`, "_", "a b", strings.Repeat("x", 65)} {
		if _, err := w.Find(t.Context(), alice, ref, true); backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if found, err := w.Match(t.Context(), alice, "data"); err != nil || len(found) != 2 {
		t.Errorf("match: %v, %v", found, err)
	}
	w.destroy("data")
	w.destroy("data2")
	newest := w.start("data")
	w.destroy("data")
	for ref, want := range map[string]string{"data": newest.ID, "data2": data2.ID, data.ID: data.ID, data.ID[:13]: data.ID} {
		if found, err := w.Find(t.Context(), alice, ref, true); err != nil || found.ID != want {
			t.Errorf("ended %s: %+v, %v", ref, found, err)
		}
	}
	if _, err := w.Find(t.Context(), alice, "dat", true); backendai.CodeOf(err) != backendai.CodeTooManySessions {
		t.Errorf("a prefix of ended ones: %v", err)
	}
	if _, err := w.Find(t.Context(), alice, "d_ta", true); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("an underscore is a sign like others: %v", err)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	sub := func(c backendai.Caller, f session.EventFilter) <-chan backendai.Event {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		events, err := w.Events(ctx, c, f)
		if err != nil {
			t.Fatal(err)
		}
		return events
	}
	none := []<-chan backendai.Event{
		sub(stranger, session.EventFilter{}), sub(stranger, session.EventFilter{Session: "mysession"}),
		sub(alice, session.EventFilter{Session: "another"}), sub(alice, session.EventFilter{Group: "other"}),
	}
	sessions, kernels := sub(alice, session.EventFilter{Session: "mysession", Scope: "session"}), sub(alice, session.EventFilter{Scope: "kernel"})
	all, admins := sub(alice, session.EventFilter{Scope: "session,kernel", Group: "default"}), sub(admin, session.EventFilter{Scope: "*"})
	one := w.start("mysession")
	w.destroy("mysession")
	read := func(c <-chan backendai.Event, n int) (list []string) {
		var last uint64
		late := time.After(10 * time.Second)
		for len(list) < n || len(c) > 0 { // the end is told after it has come
			var e backendai.Event
			select {
			case e = <-c:
			case <-late:
				return list
			}
			if e.Seq <= last || e.SessionID != one.ID || e.At.IsZero() {
				t.Errorf("%+v after %d", e, last)
			}
			last = e.Seq
			list = append(list, e.Name)
		}
		return list
	}
	wantAll := []string{
		"session_enqueued", "session_scheduled", "kernel_preparing", "session_preparing", "kernel_creating", "kernel_started", "session_started",
		"kernel_terminating", "session_terminating", "kernel_terminated", "session_terminated",
	}
	var wantSessions, wantKernels []string
	for _, name := range wantAll {
		if strings.HasPrefix(name, "session_") {
			wantSessions = append(wantSessions, name)
		} else {
			wantKernels = append(wantKernels, name)
		}
	}
	for _, tt := range []struct {
		got  <-chan backendai.Event
		want []string
	}{{sessions, wantSessions}, {kernels, wantKernels}, {all, wantAll}, {admins, wantAll}} {
		if diff := cmp.Diff(tt.want, read(tt.got, len(tt.want))); diff != "" {
			t.Error(diff)
		}
	}
	for i, c := range none {
		if got := read(c, 0); got != nil {
			t.Errorf("listener %d hears %v", i, got)
		}
	}
	if _, err := w.Events(t.Context(), alice, session.EventFilter{Scope: "agent"}); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("an unknown scope: %v", err)
	}
	// By a prefix of the id of one that lives.
	two := w.start("another")
	byID := sub(alice, session.EventFilter{Session: two.ID[:13]})
	w.destroy("another")
	if e := <-byID; e.Name != "kernel_terminating" {
		t.Errorf("%+v", e)
	}
}

func TestSlowListenersAreLetGo(t *testing.T) {
	w := newWorld(t)
	slow, err := w.Events(t.Context(), alice, session.EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		w.start(fmt.Sprintf("session-%d", i))
		w.destroy(fmt.Sprintf("session-%d", i))
	}
	n := 0
	for range slow {
		n++
	}
	if n == 0 || n > 40*11 {
		t.Errorf("%d events", n)
	}
}

func TestFollowLogs(t *testing.T) {
	w := newWorld(t)
	one := w.start("mysession")
	log, err := w.Logs(t.Context(), alice, "mysession", true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	want := "hello from " + one.ID + "\n"
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(log, buf); err != nil || string(buf) != want {
		t.Errorf("%q, %v", buf, err)
	}
	w.destroy("mysession")
	if rest, err := io.ReadAll(log); err != nil || len(rest) != 0 {
		t.Errorf("at the end %q, %v", rest, err)
	}
	log2, err := w.Logs(t.Context(), alice, "mysession", false)
	if err != nil {
		t.Fatal(err)
	}
	defer log2.Close()
	if text, err := io.ReadAll(log2); err != nil || string(text) != want {
		t.Errorf("kept: %q, %v", text, err)
	}
}
