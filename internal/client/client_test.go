package client_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/auth"
	"backendai/internal/client"
)

const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// cluster is a scripted server of the protocol. Every call but the greeting
// must be signed.
type cluster struct {
	t       *testing.T
	server  *httptest.Server
	version string // that it speaks

	mu     sync.Mutex
	greets int
	calls  []string // method and target of each signed call, and its body if there is one
	answer map[string]http.HandlerFunc
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, version: "v9.20250722", answer: map[string]http.HandlerFunc{}}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

// on sets the answer to a method and a path.
func (c *cluster) on(call string, answer http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer[call] = answer
}

// speak sets the version that the cluster speaks.
func (c *cluster) speak(version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = version
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.greets++
		fmt.Fprintf(w, `{"version":%q,"manager":"1.2.3"}`, c.version)
		return
	}
	if _, err := auth.Verify(r, time.Now(), func(string) (string, error) { return secretKey, nil }); err != nil {
		writeProblem(w, 401, "auth-failed", err.Error(), "")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Errorf("read body: %v", err)
	}
	call := r.Method + " " + r.URL.RequestURI()
	if len(body) > 0 {
		call += " " + string(body)
	}
	c.mu.Lock()
	c.calls = append(c.calls, call)
	answer := c.answer[r.Method+" "+r.URL.Path]
	c.mu.Unlock()
	if answer == nil {
		writeProblem(w, 404, "url-not-found", "unknown URL path: "+r.URL.Path, "")
		return
	}
	answer(w, r)
}

func writeProblem(w http.ResponseWriter, status int, slug, title, hint string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "https://api.backend.ai/probs/" + slug, "title": title, "hint": hint})
}

// says makes an answer of a text.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// last is the last call.
func (c *cluster) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) == 0 {
		return ""
	}
	return c.calls[len(c.calls)-1]
}

// client is a client of endpoints, by default the cluster's.
func (c *cluster) client(opts client.Options, env map[string]string) *client.Client {
	c.t.Helper()
	all := map[string]string{"BACKEND_ENDPOINT": c.server.URL, "BACKEND_ACCESS_KEY": accessKey, "BACKEND_SECRET_KEY": secretKey}
	for name, value := range env {
		all[name] = value
	}
	config, err := client.LoadConfig(func(name string) string { return all[name] }, "")
	if err != nil {
		c.t.Fatal(err)
	}
	one, err := client.New(config, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(one.Close)
	return one
}

// problemOf checks that an error is a problem of the code with a hint, and
// names what it says it is about.
func problemOf(t *testing.T, err error, code backendai.Code, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*backendai.Error](err)
	if !ok || e.Code != code || e.Hint == "" {
		t.Errorf("%v is no %s with a hint: %+v", err, code, e)
		return
	}
	for _, part := range parts {
		if !strings.Contains(e.Title+"\n"+e.Hint, part) {
			t.Errorf("%q with the hint %q does not say %q", e.Title, e.Hint, part)
		}
	}
	if strings.Contains(e.Title+e.Hint, secretKey) {
		t.Errorf("%q tells the secret key", e.Title)
	}
}

func TestVersionIsRemembered(t *testing.T) {
	c := newCluster(t)
	c.speak("v8.20240315") // older than the client
	c.on("GET /session/mysession", says(200, `{"status":"RUNNING"}`))
	state := t.TempDir()
	for range 3 {
		info, err := c.client(client.Options{StateDir: state}, nil).SessionInfo(t.Context(), "mysession")
		if err != nil || info.Status != backendai.StatusRunning {
			t.Fatalf("%+v, %v", info, err)
		}
	}
	if c.greets != 1 {
		t.Errorf("asked for the version %d times", c.greets)
	}
	modern, err := c.client(client.Options{StateDir: state}, nil).Speaks(t.Context(), 8, "20240915")
	if modern || err != nil {
		t.Errorf("speaks more than the server: %v, %v", modern, err)
	}
	// After a day it is asked again, and a broken memory is no fault.
	tomorrow := client.Options{StateDir: state, Now: func() time.Time { return time.Now().Add(25 * time.Hour) }}
	if _, err := c.client(tomorrow, nil).Speaks(t.Context(), 8, "20240915"); err != nil || c.greets != 2 {
		t.Errorf("asked %d times, %v", c.greets, err)
	}
	if err := os.WriteFile(state+"/versions.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client(client.Options{StateDir: state}, nil).Speaks(t.Context(), 8, "20240915"); err != nil {
		t.Error(err)
	}
}

// TestServerOfAnotherAge has a server that no longer knows the remembered version.
func TestServerOfAnotherAge(t *testing.T) {
	c := newCluster(t)
	state := t.TempDir()
	c.speak("v5.20191215")
	if _, err := c.client(client.Options{StateDir: state}, nil).Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.speak("v9.20250722")
	c.on("GET /session/mysession", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get(auth.HeaderVersion), "v5") {
			writeProblem(w, 400, "generic-bad-request", `unsupported API version "v5.20191215"`, "")
			return
		}
		_, _ = io.WriteString(w, `{"status":"RUNNING"}`)
	})
	if _, err := c.client(client.Options{StateDir: state}, nil).SessionInfo(t.Context(), "mysession"); err != nil {
		t.Error(err)
	}
}

func TestSessionsWereKernels(t *testing.T) {
	c := newCluster(t)
	c.speak("v4.20190615")
	c.on("POST /kernel", says(201, `{"sessionId":"x","created":true}`))
	c.on("GET /stream/kernel/a b/apps", says(200, `[]`))
	if _, err := c.client(client.Options{}, nil).CreateSession(t.Context(), client.CreateRequest{Name: "mysession", Image: "python", ClusterSize: 1}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(c.last(), `"clientSessionToken":"mysession"`) || !strings.Contains(c.last(), `"config":{"clusterSize":1}`) {
		t.Error(c.last())
	}
	if _, err := c.client(client.Options{}, nil).Apps(t.Context(), "a b"); err != nil {
		t.Error(err)
	}
}

func TestCreate(t *testing.T) {
	c := newCluster(t)
	c.on("POST /session", says(201, `{"sessionId":"x","sessionName":"mysession","status":"TERMINATED","created":true,"statusInfo":"failed-to-start","statusMessage":"no shell"}`))
	priority := 5
	created, err := c.client(client.Options{}, nil).CreateSession(t.Context(), client.CreateRequest{
		Name: "mysession", Image: "python", Type: backendai.Interactive, Resources: map[string]string{"cpu": "1"}, MaxWait: 1500 * time.Millisecond,
		Mounts:   []backendai.Mount{{Source: "data", Target: "/data", Permission: "ro"}, {Source: ".ssh"}},
		Priority: &priority, NoReuse: true, ClusterSize: 1, ClusterMode: "single-node",
	})
	if err != nil || created.Status != backendai.StatusTerminated || created.Info != "failed-to-start" || created.Message != "no shell" {
		t.Errorf("%+v, %v", created, err)
	}
	_, body, _ := strings.Cut(c.last(), "POST /session ")
	want := `{"clusterMode":"single-node","clusterSize":1,"config":{"mount_map":{"data":"/data"},"mount_options":{"data":{"permission":"ro","type":"bind"}},` +
		`"mounts":["data",".ssh"],"resources":{"cpu":"1"}},"enqueueOnly":false,"image":"python","maxWaitSeconds":2,"name":"mysession","priority":5,"reuseIfExists":false,"type":"interactive"}`
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
}

func TestFailover(t *testing.T) {
	c := newCluster(t)
	c.on("GET /session/_/match", says(200, `{"matches":[{"id":"x","name":"mysession","status":"RUNNING"}]}`))
	for range 8 { // in whichever order
		one := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": "http://127.0.0.1:1, " + c.server.URL})
		for range 2 {
			if found, err := one.MatchSessions(t.Context(), "mys"); err != nil || len(found) != 1 {
				t.Fatalf("%v, %v", found, err)
			}
		}
	}
	one := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": "http://127.0.0.1:1,http://127.0.0.1:2"})
	_, err := one.MatchSessions(t.Context(), "mys")
	problemOf(t, err, backendai.CodeUnreachable, "cannot reach the server at http://127.0.0.1:")
	if !client.Restarting(err) {
		t.Error("a server that is not there may come back")
	}
}

func TestPathPrefix(t *testing.T) {
	c := newCluster(t)
	prefixed := httptest.NewServer(http.StripPrefix("/api", c)) // the signature covers the path as it was sent
	t.Cleanup(prefixed.Close)
	_, err := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": prefixed.URL + "/api/"}).Greet(t.Context())
	if err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	c := newCluster(t)
	for _, name := range []string{"", ".", ".."} {
		_, err := c.client(client.Options{}, nil).Apps(t.Context(), name)
		problemOf(t, err, backendai.CodeInvalidParams, fmt.Sprintf("%q", name))
	}
	c.on("GET /session/a/b?c#d%/logs", says(200, `{"result":{"logs":"hello"}}`))
	log, err := c.client(client.Options{}, nil).SessionLogs(t.Context(), "a/b?c#d%", "", false)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if text, err := io.ReadAll(log); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRefusals(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	info := func(c *client.Client) error {
		_, err := c.SessionInfo(ctx, "mysession")
		return err
	}
	wrong := c.client(client.Options{}, map[string]string{"BACKEND_SECRET_KEY": "wrong"})
	problemOf(t, info(wrong), backendai.CodeAuthFailed, "check the access key and the secret key")
	nobody := c.client(client.Options{}, map[string]string{"BACKEND_ACCESS_KEY": "", "BACKEND_SECRET_KEY": ""})
	problemOf(t, info(nobody), backendai.CodeAuthFailed, "no access key is set")
	late := c.client(client.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }}, nil)
	problemOf(t, info(late), backendai.CodeAuthFailed, "the clock of this machine and the server's are", "apart")

	for status, want := range map[int]struct {
		code backendai.Code
		part string
	}{
		502: {backendai.CodeUnavailable, "502 Bad Gateway"},
		404: {backendai.CodeInternal, "404 Not Found"},
		200: {backendai.CodeInternal, "is not what the protocol says"},
	} {
		c.on("GET /session/mysession", says(status, "<html>"))
		problemOf(t, info(c.client(client.Options{}, nil)), want.code, want.part)
	}
	c.on("GET /session/mysession", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusMovedPermanently)
	})
	problemOf(t, info(c.client(client.Options{}, nil)), backendai.CodeInvalidParams, "https://elsewhere.example.com/")
	c.on("GET /session/mysession", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	err := info(c.client(client.Options{}, nil))
	problemOf(t, err, backendai.CodeUnavailable, "ended the connection before its answer")
	if !client.Restarting(err) {
		t.Error("a server that has been stopped may come back")
	}
	c.on("GET /session/mysession", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, 503, "service-unavailable", "the queue is full", "wait")
	})
	err = info(c.client(client.Options{}, nil))
	problemOf(t, err, backendai.CodeUnavailable, "the queue is full", "wait")
	if client.Restarting(err) {
		t.Error("a server that answers does not start again")
	}
}

func TestOtherServers(t *testing.T) {
	c := newCluster(t)
	for name, answer := range map[string]http.HandlerFunc{
		"a web page": says(200, "<html>"), "no version": says(200, "{}"), "an error": says(500, `{"version":"v9.20250722"}`),
	} {
		other := httptest.NewServer(answer)
		_, err := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": other.URL}).Apps(t.Context(), "mysession")
		other.Close()
		problemOf(t, err, backendai.CodeInvalidParams, "is not a Backend.AI server")
		_ = name
	}
	_, err := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": strings.Replace(c.server.URL, "http:", "https:", 1)}).Apps(t.Context(), "mysession")
	problemOf(t, err, backendai.CodeInvalidParams, "does not speak HTTPS")
}

func TestCertificates(t *testing.T) {
	c := newCluster(t)
	secure := httptest.NewUnstartedServer(c)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake that fails is meant
	secure.StartTLS()
	t.Cleanup(secure.Close)
	endpoint := map[string]string{"BACKEND_ENDPOINT": secure.URL}
	_, err := c.client(client.Options{}, endpoint).Greet(t.Context())
	problemOf(t, err, backendai.CodeAuthFailed, "the certificate of", "--skip-sslcert-validation")
	endpoint["BACKEND_SKIP_SSLCERT_VALIDATION"] = "yes"
	if _, err := c.client(client.Options{}, endpoint).Greet(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSilence has a server that takes connections and says nothing.
func TestSilence(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newCluster(t)
	one := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": "http://" + l.Addr().String(), "BACKEND_READ_TIMEOUT": "0.05"})
	_, err = one.Greet(t.Context())
	problemOf(t, err, backendai.CodeUnavailable, "did not answer in time")
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := c.client(client.Options{}, map[string]string{"BACKEND_ENDPOINT": "http://" + l.Addr().String()}).Greet(ctx); !errors.Is(err, cause) {
		t.Errorf("%v is not why it was ended", err)
	}
}

func TestGraphQL(t *testing.T) {
	c := newCluster(t)
	c.on("POST /admin/gql", says(200, `{"data":{"keypair":{"is_admin":true}}}`))
	if admin, err := c.client(client.Options{}, nil).IsAdmin(t.Context()); !admin || err != nil {
		t.Errorf("%v, %v", admin, err)
	}
	c.on("POST /admin/gql", says(200, `{"data":{"user_list":{"items":[{"email":"a"}],"total_count":7}}}`))
	rows, total, err := c.client(client.Options{}, nil).List(t.Context(), client.ListRequest{
		Query: "user_list", Args: map[string]client.Argument{"status": {Type: "String", Value: "active"}}, Fields: []string{"email"}, Filter: "x", Limit: 1,
	})
	if err != nil || total != 7 || len(rows) != 1 || rows[0]["email"] != "a" {
		t.Errorf("%v, %d, %v", rows, total, err)
	}
	want := `{"query":"query($filter: String, $limit: Int!, $offset: Int!, $status: String) { user_list(filter: $filter, limit: $limit, offset: $offset, status: $status) ` +
		`{ items { email } total_count } }","variables":{"filter":"x","limit":1,"offset":0,"status":"active"}}`
	if _, body, _ := strings.Cut(c.last(), "POST /admin/gql "); body != want {
		t.Error(cmp.Diff(want, body))
	}
	c.on("POST /admin/gql", says(200, `{"data":null,"errors":[{"message":"one"},{"message":"two"}]}`))
	if _, err := c.client(client.Options{}, nil).IsAdmin(t.Context()); backendai.CodeOf(err) != backendai.CodeGraphQL || err.Error() != "one\ntwo" {
		t.Error(err)
	}
	c.on("POST /admin/gql", says(200, `{"data":{"delete_keypair":{"ok":false,"msg":"no such keypair"}}}`))
	if _, err := c.client(client.Options{}, nil).Mutate(t.Context(), "delete_keypair", nil, ""); err == nil || err.Error() != "no such keypair" {
		t.Error(err)
	}
	old := newCluster(t)
	old.speak("v5.20191215")
	old.on("POST /admin/graphql", says(200, `{"keypair":{"is_admin":true}}`))
	if admin, err := old.client(client.Options{}, nil).IsAdmin(t.Context()); !admin || err != nil {
		t.Errorf("%v, %v", admin, err)
	}
}

func TestDownloads(t *testing.T) {
	c := newCluster(t)
	parts := func(encoding string, names ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			m := multipart.NewWriter(w)
			w.Header().Set("Content-Type", "multipart/mixed; boundary="+m.Boundary())
			for _, name := range names {
				part, _ := m.CreatePart(textproto.MIMEHeader{"Content-Encoding": {encoding}})
				archive := tar.NewWriter(part)
				_ = archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg})
				_ = archive.Close()
			}
			_ = m.Close()
		}
	}
	names := func(one *client.Client, files ...string) (got []string, err error) {
		err = one.Download(t.Context(), "mysession", files, func(file string, archive io.Reader) error {
			h, err := tar.NewReader(archive).Next()
			if err == nil {
				got = append(got, file+"="+h.Name)
			}
			return err
		})
		return got, err
	}
	c.on("POST /session/mysession/download", parts("identity", "a", "b"))
	got, err := names(c.client(client.Options{}, nil), "x", "y")
	if diff := cmp.Diff([]string{"x=a", "y=b"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	_, err = names(c.client(client.Options{}, nil), "x", "y", "z")
	problemOf(t, err, backendai.CodeInternal, `"z"`)
	c.on("POST /session/mysession/download", parts("gzip", "a"))
	if _, err = names(c.client(client.Options{}, nil), "x"); err == nil || !strings.Contains(err.Error(), "gzip") {
		t.Error(err)
	}
	// Servers up to 23.03 want a GET with a body.
	c.on("POST /session/mysession/download", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, 405, "method-not-allowed", "POST is not for that", "")
	})
	c.on("GET /session/mysession/download", parts("identity", "a"))
	if got, err := names(c.client(client.Options{}, nil), "x"); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
}

func TestImages(t *testing.T) {
	c := newCluster(t)
	one := c.client(client.Options{}, nil)
	var steps []string
	step := func(s client.ImageStep) {
		if s.Progress != nil {
			steps = append(steps, fmt.Sprint(s.Progress.Stage, " ", s.Progress.Done, "/", s.Progress.Total))
		} else {
			steps = append(steps, s.Line)
		}
	}
	c.on("POST /image/pull", says(200, `{"progress":{"ref":"x","stage":"downloading","done":1,"total":2}}`+"\n"+`{"line":"a line"}`+"\n"+`{"image":{"ref":"x"}}`+"\n"))
	images, err := one.PullImage(t.Context(), "x", "", step)
	if diff := cmp.Diff([]string{"downloading 1/2", "a line"}, steps); err != nil || diff != "" || len(images) != 1 || images[0].Ref != "x" {
		t.Error(images, err, diff)
	}
	c.on("POST /image/import", says(200, `{"error":{"type":"https://api.backend.ai/probs/invalid-api-params","title":"no archive","hint":"make one"}}`+"\n"))
	_, err = one.ImportImage(t.Context(), bytes.NewReader([]byte("data")), "name:1", step)
	problemOf(t, err, backendai.CodeInvalidParams, "no archive")
	if c.last() != "POST /image/import?name=name%3A1 data" {
		t.Error(c.last())
	}
	c.on("POST /image/build", says(200, `{"line":"on its way"}`+"\n"))
	_, err = one.BuildImage(t.Context(), "base", step)
	problemOf(t, err, backendai.CodeUnavailable, "ended the connection before its answer")
	_, err = one.Images(t.Context())
	problemOf(t, err, backendai.CodeURLNotFound, "backend.ai admin image rescan")
}

func TestHostKeysAndTerminals(t *testing.T) {
	c := newCluster(t)
	one := c.client(client.Options{}, nil)
	_, err := one.HostKeys(t.Context(), "mysession")
	problemOf(t, err, backendai.CodeNotImplemented, "backend.ai app")
	c.on("GET /session/mysession/ssh-host-keys", says(200, `{"id":"x","name":"mysession","host_keys":["ssh-ed25519 AAAA"]}`))
	if keys, err := one.HostKeys(t.Context(), "mysession"); err != nil || keys.ID != "x" || len(keys.Keys) != 1 {
		t.Error(keys, err)
	}
	c.on("DELETE /session/mysession/terminals/a b", says(204, ""))
	if err := one.EndTerminal(t.Context(), "mysession", "a b"); err != nil {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	c := newCluster(t)
	one := c.client(client.Options{}, nil)
	c.on("GET /events/session", says(200, ": ping\n\nevent: session_started\ndata: {\"sessionName\":\ndata: \"mysession\"}\n\n"+
		"event: broken\ndata: {\n\nevent: session_terminated\ndata: {\"exitCode\":3}\n\nevent: server_close\ndata: {}\n\n"))
	var seen []string
	opened := 0
	err := one.Events(t.Context(), client.EventFilter{Session: "mysession", Scope: "session"}, func() error { opened++; return nil }, func(e client.Event) error {
		data := e.Decode()
		seen = append(seen, fmt.Sprint(e.Name, " ", data.SessionName, " ", data.ExitCode != nil))
		return nil
	})
	if diff := cmp.Diff([]string{"session_started mysession false", "session_terminated  true"}, seen); err != nil || diff != "" || opened != 1 {
		t.Error(err, opened, diff)
	}
	if c.last() != "GET /events/session?group=%2A&scope=session&sessionName=mysession" {
		t.Error(c.last())
	}
	stop := func(client.Event) error { return client.ErrStop }
	if err := one.Events(t.Context(), client.EventFilter{Session: "x", ByID: true, Owner: "AKIA"}, nil, stop); err != nil {
		t.Error(err)
	}
	if c.last() != "GET /events/session?group=%2A&owner_access_key=AKIA&sessionId=x" {
		t.Error(c.last())
	}
	if err := one.Events(t.Context(), client.EventFilter{}, func() error { return io.ErrUnexpectedEOF }, stop); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	c.on("GET /events/session", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, 404, "object-not-found", "no such session", "look")
	})
	problemOf(t, one.Events(t.Context(), client.EventFilter{Session: "x"}, nil, stop), backendai.CodeNotFound)
}

func TestTasks(t *testing.T) {
	c := newCluster(t)
	one := c.client(client.Options{}, nil)
	for text, want := range map[string]client.TaskEnd{
		"event: bgtask_updated\ndata: {\"current_progress\":1,\"total_progress\":2,\"message\":\"half\"}\n\nevent: bgtask_done\ndata: {\"message\":\"all\"}\n\n": {OK: true, Message: "all"},
		"event: bgtask_failed\ndata: {\"message\":\"bad\"}\n\n": {Message: "bad"},
		"event: task_finished\ndata: {}\n\n":                    {OK: true},
	} {
		c.on("GET /events/background-task", says(200, text))
		steps := 0
		end, err := one.FollowTask(t.Context(), "x", func(s client.TaskStep) {
			if steps++; s.Done != "1" || s.Total != "2" || s.Message != "half" {
				t.Errorf("%+v", s)
			}
		})
		if err != nil || end != want || steps != strings.Count(text, "updated") {
			t.Errorf("%+v, %v after %d steps", end, err, steps)
		}
	}
	c.on("GET /events/background-task", says(200, ""))
	_, err := one.FollowTask(t.Context(), "x", func(client.TaskStep) {})
	problemOf(t, err, backendai.CodeUnavailable, "task x")
}
