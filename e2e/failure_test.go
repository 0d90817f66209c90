//go:build integration

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"backendai"
	"backendai/internal/auth"
	"backendai/internal/client"
)

// refused wants of a command what users can expect when something is wrong: the
// exit code, one line that names the thing, and a hint.
func refused(t *testing.T, r result, code int, thing string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.errs), "\n")
	for len(lines) > 0 && strings.HasPrefix(lines[0], "⋯") { // what it was waiting for
		lines = lines[1:]
	}
	if r.code != code || len(lines) < 2 || !strings.HasPrefix(lines[0], "✘ ") || !strings.Contains(lines[0], thing) {
		t.Errorf("it should end with %d and name %q: %v", code, thing, r)
		return
	}
	if !strings.HasPrefix(lines[len(lines)-1], "  hint: ") {
		t.Errorf("there is no hint: %v", r)
	}
	if strings.Contains(r.errs, "internal") || strings.Contains(r.errs, "request ") {
		t.Errorf("it shows what is inside: %v", r)
	}
	if r.out != "" {
		t.Errorf("it printed a result: %v", r)
	}
}

// TestBadInput gives the commands what they cannot take.
func TestBadInput(t *testing.T) {
	u := shared.addUser(t, "clumsy")
	u.start(t, "good-one", "python")
	unreachable := u
	unreachable.env = append(unreachable.env[:len(unreachable.env):len(unreachable.env)], "BACKEND_ENDPOINT=http://127.0.0.1:1")
	impostor := u
	impostor.env = append(impostor.env[:len(impostor.env):len(impostor.env)], "BACKEND_SECRET_KEY=not-the-secret-key-of-anyone-at-all-1234")
	for _, tt := range []struct {
		name  string
		u     user
		args  []string
		code  int
		thing string
	}{
		{"unknown image", u, []string{"start", "-t", "bad-one", "nosuchimage"}, 1, `"nosuchimage"`},
		{"unknown tag", u, []string{"start", "-t", "bad-one", "python:0.9"}, 1, `"python:0.9"`},
		{"unknown app", u, []string{"app", "-b", "0", "good-one", "nosuchapp"}, 1, `"nosuchapp"`},
		{"unknown session", u, []string{"app", "-b", "0", "no-session", "sshd"}, 1, `"no-session"`},
		{"taken name", u, []string{"start", "-t", "good-one", "--no-reuse", "python"}, 1, `"good-one"`},
		{"taken by another image", u, []string{"start", "-t", "good-one", "base"}, 1, `"good-one"`},
		{"name too short", u, []string{"start", "-t", "x", "python"}, 2, `"x"`},
		{"name with a slash", u, []string{"start", "-t", "../../etc", "python"}, 2, `"../../etc"`},
		{"less than no cpu", u, []string{"start", "-t", "bad-one", "-r", "cpu=-1", "python"}, 2, "cpu=-1"},
		{"memory of abc", u, []string{"start", "-t", "bad-one", "-r", "mem=abc", "python"}, 2, "mem=abc"},
		{"unknown resource", u, []string{"start", "-t", "bad-one", "-r", "tpu.device=1", "python"}, 1, "tpu.device"},
		{"more cpu than there is", u, []string{"start", "-t", "bad-one", "-r", "cpu=1000", "python"}, 1, "cpu"},
		{"more memory than there is", u, []string{"start", "-t", "bad-one", "-r", "mem=900t", "python"}, 1, "mem"},
		{"less memory than the image needs", u, []string{"start", "-t", "bad-one", "-r", "mem=1m", "python"}, 1, "mem"},
		{"unknown folder", u, []string{"start", "-t", "bad-one", "-m", "nofolder", "python"}, 1, "nofolder"},
		{"unreachable server", unreachable, []string{"start", "-t", "bad-one", "python"}, 1, "127.0.0.1:1"},
		{"wrong secret", impostor, []string{"start", "-t", "bad-one", "python"}, 1, "access key"},
		{"port that is no number", u, []string{"app", "-b", "http", "good-one", "sshd"}, 1, "http"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, tt.u.run(t, tt.args...), tt.code, tt.thing) })
	}
	if r := u.run(t, "ps", "--name-only"); strings.TrimSpace(r.out) != "good-one" {
		t.Errorf("sessions are left: %v", r)
	}
	shared.nothingLeft(t)
}

// TestProblemsOnTheWire asks as programs do.
func TestProblemsOnTheWire(t *testing.T) {
	u := shared.addUser(t, "program")
	u.start(t, "good-one", "python")
	body := func(more string) string {
		return `{"name":"bad-one","image":"python","config":{"resources":{"cpu":1,"mem":"256m"}}` + more + `}`
	}
	for _, tt := range []struct {
		name         string
		method, path string
		body         string
		status       int
		code         backendai.Code
		skew         time.Duration
	}{
		{"unknown image", "POST", "/session", `{"name":"bad-one","image":"nosuchimage"}`, 404, backendai.CodeNotFound, 0},
		{"unknown app", "GET", "/stream/session/good-one/tcpproxy?app=nosuchapp", "", 404, backendai.CodeNotFound, 0},
		{"unknown app of an unknown session", "GET", "/stream/session/no-session/tcpproxy?app=nosuchapp", "", 404, backendai.CodeNotFound, 0},
		{"unknown session", "GET", "/session/no-session", "", 404, backendai.CodeNotFound, 0},
		{"unknown path", "GET", "/no/such/path", "", 404, backendai.CodeURLNotFound, 0},
		{"other method", "PUT", "/session/good-one", "", 405, backendai.CodeMethod, 0},
		{"taken name", "POST", "/session", `{"name":"good-one","image":"python","reuseIfExists":false}`, 400, backendai.CodeSessionExists, 0},
		{"bad name", "POST", "/session", `{"name":"x","image":"python"}`, 400, backendai.CodeInvalidParams, 0},
		{"bad resources", "POST", "/session", `{"name":"bad-one","image":"python","config":{"resources":{"cpu":-1,"mem":"abc"}}}`, 400, backendai.CodeInvalidParams, 0},
		{"too much", "POST", "/session", `{"name":"bad-one","image":"python","config":{"resources":{"cpu":1000,"mem":"1g"}}}`, 400, backendai.CodeInvalidParams, 0},
		{"unknown folder", "POST", "/session", `{"name":"bad-one","image":"python","config":{"mounts":["nofolder"]}}`, 404, backendai.CodeNotFound, 0},
		{"no JSON", "POST", "/session", `{"name":`, 400, backendai.CodeInvalidParams, 0},
		{"unknown parameter", "POST", "/session", body(`,"colour":"red"`), 400, backendai.CodeInvalidParams, 0},
		{"clock an hour fast", "GET", "/session/good-one", "", 400, backendai.CodeInvalidAuth, time.Hour},
		{"clock an hour slow", "GET", "/session/good-one", "", 400, backendai.CodeInvalidAuth, -time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := u.call(t, tt.method, tt.path, tt.body, time.Now().Add(tt.skew))
			problem(t, resp, tt.status, tt.code)
		})
	}
	impostor := u
	impostor.env = append(impostor.env[:len(impostor.env):len(impostor.env)], "BACKEND_SECRET_KEY=not-the-secret")
	problem(t, impostor.call(t, "GET", "/session/good-one", "", time.Now()), 401, backendai.CodeAuthFailed)
	if r := u.run(t, "ps", "--name-only"); strings.TrimSpace(r.out) != "good-one" {
		t.Errorf("sessions are left: %v", r)
	}
	shared.nothingLeft(t)
}

// variable is a variable of the user's environment; the last one counts.
func (u user) variable(name string) (value string) {
	for _, pair := range u.env {
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value = v
		}
	}
	return value
}

// call sends one signed request, as of a time.
func (u user) call(t testing.TB, method, path, body string, now time.Time) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, shared.endpoint()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	media := "application/json"
	if strings.HasPrefix(path, "/stream/") {
		media = ""
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Sec-WebSocket-Version", "13")
		req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	auth.Sign(req, u.variable("BACKEND_ACCESS_KEY"), u.variable("BACKEND_SECRET_KEY"), "v9.20250722", media, now)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// problem wants an answer that is a problem of the protocol.
func problem(t testing.TB, resp *http.Response, status int, code backendai.Code) {
	t.Helper()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Type, Title string }
	if err := json.Unmarshal(text, &p); err != nil {
		t.Errorf("%d %s: %v", resp.StatusCode, text, err)
		return
	}
	media := resp.Header.Get("Content-Type")
	if resp.StatusCode != status || p.Type != "https://api.backend.ai/probs/"+string(code) || p.Title == "" || strings.Contains(p.Title, "\n") || !strings.HasPrefix(media, "application/problem+json") {
		t.Errorf("%d %s %s; it should be %d, %s", resp.StatusCode, media, text, status, code)
	}
}

// TestClockIsOff runs the client with a clock of its own.
func TestClockIsOff(t *testing.T) {
	u := shared.addUser(t, "late")
	config, err := client.LoadConfig(u.variable, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.CreateSession(t.Context(), client.CreateRequest{Name: "bad-one", Image: "python"})
	if backendai.CodeOf(err) != backendai.CodeInvalidAuth || !strings.Contains(err.Error(), "clock") || !strings.Contains(err.Error(), "1h0m") {
		t.Errorf("an hour late: %v", err)
	}
}

// TestServerDiesDuringStart kills the server under a client that waits.
func TestServerDiesDuringStart(t *testing.T) {
	p := newPlatform(t.TempDir(), "--cpu", "1")
	p.run(t)
	p.load(t, busybox(t), "localhost/busybox:1")
	u := p.admin
	u.must(t, "start", "-t", "holds-all", "busybox")
	waiting := make(chan result)
	go func() { waiting <- u.run(t, "start", "-t", "in-the-middle", "busybox") }()
	for !strings.Contains(u.must(t, "ps", "--name-only"), "in-the-middle") { // it is on its way
	}
	p.kill()
	refused(t, <-waiting, 1, p.address)
	if r := u.run(t, "ps"); r.code != 1 || !strings.Contains(r.errs, p.address) {
		t.Errorf("ps without a server: %v", r)
	}
	if err := p.boot(); err != nil {
		t.Fatal(err)
	}
	// What was asked for is not forgotten: it starts when there is room.
	u.must(t, "rm", "holds-all")
	u.must(t, "start", "-t", "in-the-middle", "busybox")
	u.must(t, "rm", "in-the-middle")
	p.nothingLeft(t)
}

// run boots a server that ends with the test and leaves nothing.
func (p *platform) run(t testing.TB) {
	t.Helper()
	if err := p.boot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestAddressInUse starts a second server where one listens, and one on the
// state of one that runs.
func TestAddressInUse(t *testing.T) {
	u := shared.user("second")
	refused(t, u.run(t, "server", "--state-dir", t.TempDir(), "--listen", shared.address), 1, shared.address)
	refused(t, u.run(t, "server", "--state-dir", filepath.Join(shared.dir, "server"), "--listen", "127.0.0.1:0"), 1, shared.dir)
}

// TestDiskFull imports images on a server whose disk is small.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	p := newPlatform(dir)
	p.run(t)
	small := busybox(t)
	p.load(t, small, "localhost/busybox:1")
	before := used(t, dir)
	large := content{}
	for i := range 8 {
		large["file-"+string(rune('a'+i))] = strings.Repeat("all work and no play\n", 1<<20)
	}
	r := p.admin.run(t, "image", "import", large.image(t, "localhost/large:1", "amd64"))
	refused(t, r, 1, "disk")
	if now := used(t, dir); now > before+1<<20 {
		t.Errorf("the image that did not fit left %d KiB", (now-before)>>10)
	}
	if r := p.admin.run(t, "image", "list"); strings.Contains(r.out, "large") {
		t.Errorf("image list: %v", r)
	}
	p.admin.must(t, "start", "-t", "fits-still", "busybox")
	// A session that fills the disk harms itself alone.
	p.admin.inside(t, "fits-still", "dd if=/dev/zero of=/home/work/big bs=1M; rm /home/work/big")
	p.admin.must(t, "rm", "fits-still")
	p.nothingLeft(t)
}

// used is how many bytes of a file system are taken.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// TestOtherArchitecture imports an image that this machine cannot run.
func TestOtherArchitecture(t *testing.T) {
	file := content{"bin/true": "not for us"}.image(t, "localhost/foreign:1", "s390x")
	refused(t, shared.admin.run(t, "image", "import", file), 1, "s390x")
	if r := shared.admin.run(t, "image", "list"); strings.Contains(r.out, "foreign") {
		t.Errorf("image list: %v", r)
	}
	refused(t, shared.admin.run(t, "start", "-t", "bad-one", "--arch", "s390x", "python"), 1, "s390x")
}

// faultyRuntime is an OCI runtime whose containers die at once, or that starts
// none at all, as the file beside it says.
const faultyRuntime = `#!/bin/bash
mode=$(cat "${0%/*}/mode")
for last in "$@"; do :; done
if [[ " $* " == *" run "* && $mode = refuse ]]; then
	echo "the kernel says no" >&2
	exit 1
fi
crun "$@" || exit $?
if [[ " $* " == *" run "* && $mode = die ]]; then
	pid=$(sed 's/.* --pid-file \([^ ]*\).*/\1/' <<<"$*")
	kill -9 "$(cat "$pid")"
fi
`

// TestDiesAtOnce starts containers that cannot go on.
func TestDiesAtOnce(t *testing.T) {
	dir := t.TempDir()
	runtime := filepath.Join(dir, "crun")
	mode := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(runtime, []byte(faultyRuntime), 0o700); err != nil {
		t.Fatal(err)
	}
	mode("")
	p := newPlatform(t.TempDir(), "--runtime", runtime)
	p.run(t)
	p.load(t, busybox(t), "localhost/busybox:1")
	for _, what := range []string{"die", "refuse"} {
		mode(what)
		refused(t, p.admin.run(t, "start", "-t", "still-born", "busybox"), 1, "still-born")
		if r := p.admin.run(t, "ps", "--name-only"); strings.Contains(r.out, "still-born") {
			t.Errorf("sessions are left: %v", r)
		}
		if r := p.admin.run(t, "ps", "--dead"); !strings.Contains(r.out, "failed-to-") {
			t.Errorf("ps --dead: %v", r)
		}
		p.nothingLeft(t)
	}
	mode("")
	p.admin.must(t, "start", "-t", "still-born", "busybox") // its name is free
	p.admin.must(t, "rm", "still-born")
}

// TestStrangeImage starts a session of an image that has files where the
// kernel's file systems, the home and the runner belong.
func TestStrangeImage(t *testing.T) {
	c := busybox(t)
	for path, body := range map[string]string{"proc": "a file", "dev": "another", "sys": "-> /etc", "home": "-> /", "opt": "-> nowhere", "etc/passwd": "-> /proc/1/environ"} {
		c[path] = body
	}
	shared.load(t, c, "localhost/strange:1")
	u := shared.admin
	u.start(t, "strange-one", "strange")
	if r := u.inside(t, "strange-one", "id -un; pwd; test -r /proc/self/status && echo sees itself"); r.out != "work\n/home/work\nsees itself\n" {
		t.Errorf("inside: %v", r)
	}
	u.must(t, "rm", "strange-one")
	shared.nothingLeft(t)
}

// TestBatchFails runs a command that ends badly.
func TestBatchFails(t *testing.T) {
	u := shared.admin
	t.Cleanup(func() { u.remove(t, "batch-one") })
	u.must(t, "start", "-t", "batch-one", "--enqueue-only", "--type", "batch", "-c", "echo last words; exit 7", "python")
	if r := u.run(t, "events", "-q", "--wait", "batch_session_result", "batch-one"); r.code != 1 {
		t.Errorf("events: %v", r)
	}
	id := strings.Fields(u.must(t, "ps", "--status", "ALL", "--plain", "-f", "session_id", "--filter", `name == "batch-one"`))
	if len(id) != 1 {
		t.Fatalf("ps: %q", id)
	}
	if out := u.must(t, "logs", id[0]); !strings.Contains(out, "last words") {
		t.Errorf("logs: %q", out)
	}
	if out := u.must(t, "info", id[0]); !strings.Contains(out, "FAILURE") || !strings.Contains(out, "task-failed") {
		t.Errorf("info: %s", out)
	}
	u.run(t, "events", "-q", "--wait", "session_terminated", id[0])
	shared.nothingLeft(t)
}

// TestRunnerIsKilled ends a session from outside, as a machine short of memory does.
func TestRunnerIsKilled(t *testing.T) {
	u := shared.addUser(t, "unlucky")
	u.start(t, "murdered", "python")
	id := strings.TrimSpace(u.must(t, "ps", "-f", "session_id", "--plain"))
	out, err := exec.Command("sh", "-c", `for p in /proc/[0-9]*; do grep -q "$1" $p/cgroup 2>/dev/null && kill -9 ${p#/proc/}; done; true`, "sh", id).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for strings.Contains(u.must(t, "ps", "--name-only"), "murdered") { // the server notices at once
	}
	info := u.must(t, "info", id)
	if !strings.Contains(info, "TERMINATED") {
		t.Errorf("info: %s", info)
	}
	refused(t, u.run(t, "ssh", "murdered", "true"), 1, `"murdered"`)
	shared.nothingLeft(t)
}
