package session_test

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/engine/fake"
	"backendai/internal/session"
)

// realWorld is a server on the engine of plain processes, with real runners.
func realWorld(t *testing.T) *world {
	t.Helper()
	definitions := t.TempDir()
	text := `{"command": ["python3", "-m", "http.server", "--bind", "{loopback}", "{ports[0]}"]}`
	if err := os.WriteFile(filepath.Join(definitions, "jupyter.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := fake.New(fake.Options{Dir: t.TempDir(), Definitions: definitions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return newWorld(t, func(w *world, o *session.Options) { w.real, o.Engine = e, e })
}

func all(t *testing.T, r io.ReadCloser, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func TestRealSession(t *testing.T) {
	w := realWorld(t)
	r := ask("mysession")
	r.Environ, r.Bootstrap = map[string]string{"MINE": "yes"}, "echo bootstrap of $BACKENDAI_SESSION_NAME with $MINE"
	made, err := w.Create(t.Context(), alice, r)
	if err != nil || made.Session.Status != backendai.StatusRunning {
		t.Fatalf("%+v, %v", made, err)
	}
	if names := made.Session.Apps; len(names) < 3 || names[0].Name != "sshd" || names[1].Name != "ttyd" || names[2].Name != "jupyter" {
		t.Errorf("apps %v", names)
	}
	follow, err := w.Logs(t.Context(), alice, "mysession", true)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(follow)
	for lines.Scan() && lines.Text() != "bootstrap of mysession with yes" {
	}
	follow.Close()

	first := signIn(t, w)
	if err := w.Restart(t.Context(), alice, "mysession"); err != nil {
		t.Fatal(err)
	}
	if second := signIn(t, w); first != second {
		t.Error("a restart changes the session's key")
	}
	conn, err := w.Connect(t.Context(), alice, "mysession", session.ConnectRequest{App: "jupyter"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if text := all(t, conn, nil); !strings.HasPrefix(text, "HTTP/1.0 200 OK") {
		t.Errorf("jupyter says %q", text)
	}
	gone, err := w.Destroy(t.Context(), alice, "mysession", false)
	if err != nil || gone.StatusInfo != backendai.ReasonUserRequested {
		t.Errorf("%+v, %v", gone, err)
	}
	log, err := w.Logs(t.Context(), alice, "mysession", false)
	if text := all(t, log, err); !strings.Contains(text, "bootstrap of mysession with yes\n") {
		t.Errorf("kept log %q", text)
	}
}

// signIn downloads the session's key and logs in with it, checking the host key.
func signIn(t *testing.T, w *world) string {
	t.Helper()
	tar, err := w.Download(t.Context(), alice, "mysession", "id_container")
	text := all(t, tar, err)
	begin, end := strings.Index(text, "-----BEGIN"), strings.Index(text, "-----END OPENSSH PRIVATE KEY-----\n")
	if begin < 0 || end < 0 {
		t.Fatalf("downloaded %q", text)
	}
	key := text[begin : end+len("-----END OPENSSH PRIVATE KEY-----\n")]
	signer, err := ssh.ParsePrivateKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.HostKeys(t.Context(), alice, "mysession")
	if err != nil {
		t.Fatal(err)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(keys[0]))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := w.Connect(t.Context(), alice, "mysession", session.ConnectRequest{App: "sshd"})
	if err != nil {
		t.Fatal(err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "mysession", &ssh.ClientConfig{
		User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	one, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if out, err := one.Output("echo $BACKENDAI_SESSION_NAME"); err != nil || string(out) != "mysession\n" {
		t.Errorf("ssh: %q, %v", out, err)
	}
	return key
}

func TestRealBatch(t *testing.T) {
	w := realWorld(t)
	sub := w.listen(session.EventFilter{Scope: "session"})
	r := batch("mysession")
	r.Startup = "echo working; exit 5"
	one := w.enqueue(r)
	if e := w.until(sub, "session_failure"); e.ExitCode == nil || *e.ExitCode != 5 {
		t.Errorf("%+v", e)
	}
	w.until(sub, "session_terminated")
	log, err := w.Logs(t.Context(), alice, one.ID, false)
	if text := all(t, log, err); !strings.Contains(text, "working\n") {
		t.Errorf("log %q", text)
	}
	if got := w.record(one.ID); got.Result != backendai.ResultFailure || got.StatusInfo != backendai.ReasonTaskFailed {
		t.Errorf("%s, %s", got.Result, got.StatusInfo)
	}
}

func TestRealCrash(t *testing.T) {
	w := realWorld(t)
	one := w.start("mysession")
	engine := w.real
	w.store.die()
	w.stop()
	w.serve(func(_ *world, o *session.Options) { o.Engine = engine })
	conn, err := w.Connect(t.Context(), alice, "mysession", session.ConnectRequest{App: "sshd"})
	if err != nil {
		t.Fatal(err)
	}
	banner := make([]byte, 8)
	if _, err := io.ReadFull(conn, banner); err != nil || string(banner) != "SSH-2.0-" {
		t.Errorf("%q, %v", banner, err)
	}
	conn.Close()
	w.destroy("mysession")
	if list, err := engine.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left of %s: %v, %v", one.ID, list, err)
	}
}
