package api_test

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/auth"
	"backendai/internal/session"
	"backendai/internal/tunnel"
)

type problem struct {
	Type, Title, Hint, Msg string
	Data                   any
}

// problem does a call that must fail as told.
func (w *world) problem(user, method, target, body string, status int, slug string) problem {
	w.t.Helper()
	resp, text := w.call(user, method, target, body)
	return w.checkProblem(method+" "+target, resp, text, status, slug)
}

func (w *world) checkProblem(what string, resp *http.Response, text string, status int, slug string) problem {
	w.t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		w.t.Fatalf("%s: %d %q is not a problem: %v", what, resp.StatusCode, text, err)
	}
	if resp.StatusCode != status || p.Type != "https://api.backend.ai/probs/"+slug || p.Title == "" ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		w.t.Errorf("%s: %d %s; want %d %s with a title", what, resp.StatusCode, text, status, slug)
	}
	return p
}

func tarOf(name, content string) string {
	var b strings.Builder
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return b.String()
}

func TestGreeting(t *testing.T) {
	w := newWorld(t)
	resp, text := w.call("", "GET", "/", "")
	if resp.StatusCode != 200 || text != `{"manager":"1.2.3","version":"v9.20250722"}` || resp.Header.Get("Server") != "BackendAI" {
		t.Errorf("%d %s %v", resp.StatusCode, text, resp.Header)
	}
}

// TestEveryOtherCallNeedsASignature walks the table of routes as nobody.
func TestEveryOtherCallNeedsASignature(t *testing.T) {
	w := newWorld(t)
	for _, r := range w.handler.Routes() {
		if r.Pattern == "/" || strings.HasPrefix(r.Pattern, "/storage") { // those want a token
			continue
		}
		w.problem("", r.Method, strings.ReplaceAll(r.Pattern, "{name}", "mysession"), "", 401, "auth-failed")
	}
}

// TestStranger walks the table of routes: what belongs to another user answers
// as what does not exist, in every byte but the name.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	w.sessions.app = "127.0.0.1:1"
	walked := 0
	for _, r := range w.handler.Routes() {
		if !strings.Contains(r.Pattern, "{name}") {
			continue
		}
		walked++
		query := "?app=sshd&files=id_container&file=id_container&name=newname&service_name=sshd&forced=true"
		target := func(name string) string { return strings.ReplaceAll(r.Pattern, "{name}", name) + query }
		theirs := w.problem("stranger", r.Method, target("mysession"), "", 404, "object-not-found")
		nothing := w.problem("stranger", r.Method, target("nosession"), "", 404, "object-not-found")
		theirs.Title = strings.ReplaceAll(theirs.Title, "mysession", "nosession")
		if diff := cmp.Diff(nothing, theirs); diff != "" {
			t.Errorf("%s %s tells a stranger more than that it does not exist:\n%s", r.Method, r.Pattern, diff)
		}
	}
	if walked < 12 {
		t.Errorf("only %d routes with a session", walked)
	}
}

func TestSuperadminRoutes(t *testing.T) {
	w := newWorld(t)
	walked := 0
	for _, r := range w.handler.Routes() {
		if strings.HasPrefix(r.Pattern, "/image") {
			walked++
			w.problem("alice", r.Method, r.Pattern+"?ref=python", "", 403, "generic-forbidden")
		}
	}
	if walked != 5 {
		t.Errorf("walked %d routes", walked)
	}
}

func TestPathForms(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{"/session/mysession/", "/session/mysession", "/kernel/mysession", "/session/mys%65ssion", "/stream/kernel/mysession/apps"} {
		if resp, text := w.call("alice", "GET", target, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, resp.StatusCode, text)
		}
	}
	p := w.problem("alice", "GET", "/no/such", "", 404, "url-not-found")
	if p.Data != "/no/such" {
		t.Errorf("data is %v", p.Data)
	}
	w.problem("alice", "GET", "/session//logs", "", 404, "url-not-found")
	resp, text := w.call("alice", "PUT", "/session/mysession", "")
	w.checkProblem("PUT", resp, text, 405, "method-not-allowed")
	if got := resp.Header.Get("Allow"); got != "DELETE, GET, PATCH" {
		t.Errorf("Allow is %q", got)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	w.problem("alice", "POST", "/session", "{", 400, "invalid-api-params")
	w.problem("alice", "POST", "/session", "[1]", 400, "invalid-api-params")
	w.problem("alice", "POST", "/session", `{"image":"`+strings.Repeat("x", 2<<20)+`"}`, 400, "invalid-api-params")
	w.problem("alice", "GET", "/session/mysession?owner_access_key=AKIAadmin", "", 403, "generic-forbidden")
	w.problem("alice", "GET", "/session/_/match", "", 400, "invalid-api-params")
	w.problem("alice", "POST", "/session/mysession/rename", "", 400, "invalid-api-params")
	w.problem("alice", "DELETE", "/session/mysession/terminals/none", "", 404, "object-not-found")
	w.problem("alice", "GET", "/session/mysession/download", `{"files":["gone"]}`, 400, "invalid-api-params")
	w.problem("alice", "GET", "/session/mysession/download", `{"files":["1","2","3","4","5","6"]}`, 400, "invalid-api-params")
	w.problem("alice", "GET", "/stream/session/mysession/tcpproxy", "", 400, "invalid-api-params")
	w.problem("alice", "GET", "/stream/session/mysession/tcpproxy?app=sshd", "", 400, "generic-bad-request")
	w.problem("alice", "GET", "/stream/session/mysession/tcpproxy?app=sshd&envs=1", "", 400, "invalid-api-params")

	req := w.request("alice", "GET", "/session/mysession", "")
	auth.Sign(req, "AKIAalice", "secret-alice", "v3.20170615", "text/plain", time.Now())
	resp, text := w.do(req)
	w.checkProblem("old version", resp, text, 400, "generic-bad-request")

	auth.Sign(req, "AKIAalice", "wrong", "v6.20220315", "text/plain", time.Now())
	resp, text = w.do(req)
	w.checkProblem("wrong secret", resp, text, 401, "auth-failed")

	auth.Sign(req, "AKIAalice", "secret-alice", "v6.20220315", "text/plain", time.Now().Add(-time.Hour))
	resp, text = w.do(req)
	if p := w.checkProblem("clock off", resp, text, 400, "invalid-auth-params"); !strings.Contains(p.Title, "clocks") || p.Hint == "" || p.Msg != p.Hint {
		t.Errorf("clock off: %+v", p)
	}
}

func TestServiceErrorsKeepTheirDetail(t *testing.T) {
	w := newWorld(t)
	fail := func(err error) func() {
		w.sessions.create = func(context.Context, session.CreateRequest) (session.CreateResult, error) {
			return session.CreateResult{}, err
		}
		return func() { w.sessions.create = nil }
	}
	defer fail(backendai.Errorf(backendai.CodeSessionExists, "session exists").WithData(map[string]string{"existingSessionId": "x"}))()
	p := w.problem("alice", "POST", "/session", `{"image":"python","name":"mysession"}`, 400, "session-already-exists")
	if diff := cmp.Diff(map[string]any{"existingSessionId": "x"}, p.Data); diff != "" {
		t.Error(diff)
	}
	defer fail(backendai.Errorf(backendai.CodeQuota, "too much").WithHint("ask for less"))()
	if p := w.problem("alice", "POST", "/session", `{"image":"python","name":"mysession"}`, 412, "quota-exceeded"); p.Hint != "ask for less" {
		t.Errorf("%+v", p)
	}
	defer fail(io.ErrUnexpectedEOF)()
	if p := w.problem("alice", "POST", "/session", `{"image":"python","name":"mysession"}`, 500, "internal-server-error"); strings.Contains(p.Title+p.Hint, "EOF") {
		t.Errorf("the cause is told: %+v", p)
	}
	w.sessions.create = func(context.Context, session.CreateRequest) (session.CreateResult, error) { panic("secret detail") }
	if p := w.problem("alice", "POST", "/session", `{"image":"python","name":"mysession"}`, 500, "internal-server-error"); strings.Contains(p.Title+p.Hint, "secret") {
		t.Errorf("the panic is told: %+v", p)
	}
}

func TestSessionCalls(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string // part of the answer
	}{
		{"GET", "/session/mysession", "", 200, `"status":"RUNNING"`},
		{"DELETE", "/session/mysession?forced=true", "", 200, `{"stats":{"status":"terminated","version":2}}`},
		{"DELETE", "/session/mysession", `{"forced":true}`, 200, `"terminated"`},
		{"PATCH", "/session/mysession", "", 204, ""},
		{"POST", "/session/mysession/rename?name=newname", "", 204, ""},
		{"POST", "/session/mysession/rename", `{"session_name":"newname"}`, 204, ""},
		{"GET", "/session/mysession/logs", "", 200, `{"result":{"logs":"hello\ufffd\n"}}`},
		{"GET", "/session/mysession/logs?follow=true", "", 200, "hello\xff\n"},
		{"GET", "/session/_/match?id=mys", "", 200, `{"matches":[{"id":"11111111-2222-4333-8444-555555555555","name":"mysession","status":"RUNNING"}]}`},
		{"GET", "/session/_/match?id=other", "", 200, `{"matches":[]}`},
		{"GET", "/session/mysession/ssh-host-keys", "", 200, `{"host_keys":["ssh-ed25519 AAAA"],"id":"11111111-2222-4333-8444-555555555555","name":"mysession"}`},
		{"GET", "/session/mysession/terminals", "", 200, `{"terminals":[{"name":"main","command":"bash","pid":7,"viewers":1,"rows":24,"cols":80,"started":"2026-01-02T03:04:05Z"}]}`},
		{"DELETE", "/session/mysession/terminals/main", "", 204, ""},
		{"POST", "/session/mysession/interrupt", "", 204, ""},
		{"POST", "/session/mysession/shutdown-service", `{"service_name":"jupyter"}`, 204, ""},
		{"GET", "/session/mysession/status-history", "", 200, `"running":"2026-01-02T03:04:06Z"`},
		{"GET", "/stream/session/mysession/apps", "", 200, `[{"name":"sshd","protocol":"tcp","ports":[2200]}]`},
		{"GET", "/session/mysession/download_single?file=id_container", "", 200, "PRIVATE KEY"},
		{"GET", "/manager/announcement", "", 200, `{"enabled":false,"message":""}`},
		{"POST", "/auth", `{"echo":"hi"}`, 200, `{"authorized":"yes","echo":"hi"}`},
		{"GET", "/auth/role", "", 200, `{"domain_role":"user","global_role":"user","group_role":null}`},
		{"GET", "/config/resource-slots", "", 200, `{"cpu":"count","mem":"bytes"}`},
		{"GET", "/config/vfolder-types", "", 200, `["user","group"]`},
		{"GET", "/resource/presets", "", 200, `{"presets":[]}`},
		{"GET", "/scaling-groups?group=default", "", 200, `{"scaling_groups":[{"name":"default"}]}`},
	} {
		resp, text := w.call("alice", c.method, c.target, c.body)
		if resp.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %q; want %d with %q", c.method, c.target, resp.StatusCode, text, c.status, c.want)
		}
	}
	if w.sessions.renamed != "newname" {
		t.Errorf("renamed to %q", w.sessions.renamed)
	}
	if resp, _ := w.call("admin", "GET", "/session/mysession?owner_access_key=AKIAalice", ""); resp.StatusCode != 200 {
		t.Errorf("delegation: %d", resp.StatusCode)
	}
}

// TestDownloadForms has the four encodings of the list of files that clients send.
func TestDownloadForms(t *testing.T) {
	w := newWorld(t)
	for _, c := range [][3]string{
		{"GET", "", `{"files":["id_container","id_container"]}`}, {"POST", "", `{"files":["id_container","id_container"]}`},
		{"POST", "?files=id_container&files=id_container", ""}, {"GET", "?files=id_container&files=id_container", ""},
	} {
		resp, text := w.call("alice", c[0], "/session/mysession/download"+c[1], c[2])
		kind, mediaParams, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil || kind != "multipart/mixed" {
			t.Fatalf("%v: %s: %v: %s", c, kind, err, text)
		}
		parts := multipart.NewReader(strings.NewReader(text), mediaParams["boundary"])
		for range 2 {
			part, err := parts.NextRawPart()
			if err != nil {
				t.Fatal(err)
			}
			archive := tar.NewReader(part)
			header, err := archive.Next()
			if err != nil || header.Name != "id_container" || header.Mode != 0o600 || part.Header.Get("Content-Encoding") != "identity" {
				t.Errorf("%v: %+v, %v, %v", c, header, err, part.Header)
			}
		}
		if _, err := parts.NextRawPart(); err != io.EOF {
			t.Errorf("%v: more parts: %v", c, err)
		}
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	resp, err := w.server.Client().Do(w.request("alice", "GET", "/events/session?sessionName=mysession&ownerAccessKey=AKIAalice", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	w.sessions.events <- backendai.Event{
		Name: "kernel_pulling", SessionID: "id", Session: "mysession", AccessKey: "AKIAalice", Reason: "image",
		Progress: &backendai.PullProgress{Ref: "r", Stage: "downloading", Done: 1, Total: 2, Layers: 3},
	}
	code := 7
	w.sessions.events <- backendai.Event{Name: "session_failure", SessionID: "id", Session: "mysession", ExitCode: &code}
	close(w.sessions.events)
	text, err := io.ReadAll(resp.Body)
	want := `event: kernel_pulling
data: {"reason":"image","sessionName":"mysession","ownerAccessKey":"AKIAalice","sessionId":"id","exitCode":null,"kernelId":"id","clusterRole":"main","clusterIdx":1,"progress":{"ref":"r","stage":"downloading","done":1,"total":2,"layers":3}}

event: session_failure
data: {"reason":"","sessionName":"mysession","ownerAccessKey":"","sessionId":"id","exitCode":7}

`
	if diff := cmp.Diff(want, string(text)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestImageCalls(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 []string
	}{
		{"GET", "/image", "", 200, []string{`"ref":"localhost/python:3.11-debian12"`}},
		{"POST", "/image/pull", `{"ref":"python"}`, 200, []string{`{"progress":{"ref":"localhost/python","stage":"downloading","done":1,"total":2,"layers":0}}`, `{"image":{"ref":"localhost/python",`}},
		{"POST", "/image/build", `{"recipe":"python"}`, 200, []string{`{"line":"a \u003cline\u003e"}`, `{"image":{"ref":"localhost/python",`}},
		{"POST", "/image/import?name=mine", "12345", 200, []string{`{"progress":{"ref":"mine","stage":"unpacking","done":5,`, `{"image":{"ref":"mine",`}},
		{"DELETE", "/image?ref=python", "", 204, nil},
	} {
		resp, text := w.call("admin", c.method, c.target, c.body)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.target, resp.StatusCode, text)
		}
		for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
			if i < len(c.want) && !strings.Contains(line, c.want[i]) {
				t.Errorf("%s %s: line %d is %s, want %s", c.method, c.target, i, line, c.want[i])
			}
		}
	}
	w.problem("admin", "DELETE", "/image?ref=other", "", 404, "object-not-found")
	w.problem("admin", "POST", "/image/pull", `{"ref":"nothing"}`, 404, "object-not-found")
	w.images.fail = backendai.Errorf(backendai.CodeUnavailable, "the registry is away").WithHint("try later")
	_, text := w.call("admin", "POST", "/image/pull", `{"ref":"python"}`)
	if lines := strings.Split(strings.TrimSpace(text), "\n"); lines[len(lines)-1] != `{"error":{"type":"https://api.backend.ai/probs/service-unavailable","title":"the registry is away","msg":"try later","hint":"try later"}}` {
		t.Errorf("a failed pull ends with %s", lines[len(lines)-1])
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t)
	c := w.accounts.callers["AKIAalice"]
	c.Keypair.RateLimit = 2
	w.accounts.callers["AKIAalice"] = c
	for want := range 2 {
		resp, _ := w.call("alice", "GET", "/auth", "")
		if got := resp.Header.Get("X-RateLimit-Remaining"); resp.StatusCode != 200 || got != []string{"1", "0"}[want] ||
			resp.Header.Get("X-RateLimit-Limit") != "2" || resp.Header.Get("X-RateLimit-Window") != "900" {
			t.Errorf("call %d: %d, %v", want, resp.StatusCode, resp.Header)
		}
	}
	w.problem("alice", "GET", "/auth", "", 429, "rate-limit-exceeded")
	if resp, _ := w.call("admin", "GET", "/auth", ""); resp.StatusCode != 200 {
		t.Errorf("another key: %d", resp.StatusCode)
	}
}

// echoApp answers each connection with what it sends, after its end.
func echoApp(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestTunnelForms(t *testing.T) {
	w := newWorld(t)
	w.sessions.app = echoApp(t)
	target := "/stream/session/mysession/tcpproxy?app=sshd&envs=" + url.QueryEscape(`{"A":"1"}`) + "&arguments=" + url.QueryEscape(`{"--x":null,"--y":"1","--z":["1","2"]}`)

	req := w.request("alice", "GET", target, "")
	auth.Sign(req, "AKIAalice", "secret-alice", "v6.20220315", "", time.Now())
	ws, _, err := websocket.Dial(t.Context(), w.server.URL+target, &websocket.DialOptions{HTTPHeader: req.Header})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("over WebSocket")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.Read(t.Context()); err != nil || string(got) != "over WebSocket" {
		t.Errorf("Read = %q, %v", got, err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	want := session.ConnectRequest{App: "sshd", Envs: map[string]string{"A": "1"}, Arguments: map[string][]string{"--x": nil, "--y": {"1"}, "--z": {"1", "2"}}}
	if diff := cmp.Diff(want, w.sessions.connect); diff != "" {
		t.Error(diff)
	}

	d := w.dialer("alice")
	conn, err := d.Dial(t.Context(), w.url("/stream/session/mysession/httpproxy?service=sshd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "raw"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "raw" {
		t.Errorf("read %q, %v", got, err)
	}
	conn.Close()

	if _, err := d.Dial(t.Context(), w.url("/stream/session/mysession/tcpproxy?app=none")); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an unknown app: %v", err)
	}
	if _, err := w.dialer("stranger").Dial(t.Context(), w.url(target)); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a stranger: %v", err)
	}
}

// TestRevocation: nothing goes on by a keypair that may not be used any more.
func TestRevocation(t *testing.T) {
	w := newWorld(t)
	w.sessions.app = echoApp(t)
	conn, err := w.dialer("alice").Dial(t.Context(), w.url("/stream/session/mysession/tcpproxy?app=sshd"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 5)
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	w.accounts.revoke("AKIAalice")
	if n, err := conn.Read(b); err == nil {
		t.Errorf("a tunnel still gives %d bytes", n)
	}

	resp, err := http.DefaultClient.Do(w.request("alice", "GET", "/events/session", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	w.accounts.revoke("AKIAalice")
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("a stream of events: %v", err)
	}
}

func TestDeadAppClosesWebSocketWith1013(t *testing.T) {
	w := newWorld(t)
	target := "/stream/session/mysession/tcpproxy?app=dead"
	req := w.request("alice", "GET", target, "")
	auth.Sign(req, "AKIAalice", "secret-alice", "v6.20220315", "", time.Now())
	ws, _, err := websocket.Dial(t.Context(), w.server.URL+target, &websocket.DialOptions{HTTPHeader: req.Header})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("Read = %v", err)
	}
}

func (w *world) url(target string) *url.URL {
	u, err := url.Parse(w.server.URL + target)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) dialer(user string) *tunnel.Dialer {
	return &tunnel.Dialer{Sign: func(r *http.Request) error {
		auth.Sign(r, "AKIA"+user, "secret-"+user, "v6.20220315", "", time.Now())
		return nil
	}}
}

func TestLogsAreFollowedAtOnce(t *testing.T) {
	w := newWorld(t)
	resp, err := w.server.Client().Do(w.request("alice", "GET", "/session/mysession/logs?follow=1", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || line != "hello\xff\n" || !slices.Contains(resp.TransferEncoding, "chunked") {
		t.Errorf("%q, %v, %v", line, err, resp.TransferEncoding)
	}
}
