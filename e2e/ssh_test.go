//go:build integration

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// atHome makes a command that sees the user's folder as the home of the
// system's user, too: ssh reads ~/.ssh by the password file, not by $HOME.
func (u user) atHome(ctx context.Context, args ...string) *exec.Cmd {
	script := `home=$(getent passwd "$(id -u)" | cut -d: -f6) && mount --bind "$HOME" "$home" && cd "$home" && HOME=$home exec "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh"}, args...)...)
	cmd.Env, cmd.Dir = u.env, u.home
	return cmd
}

// at runs such a command to its end.
func (u user) at(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return complete(t, u.atHome(ctx, args...))
}

// TestReadmeSSH runs what the README says about one's own tools, as it is written.
func TestReadmeSSH(t *testing.T) {
	u := shared.addUser(t, "reader")
	u.start(t, "mysess", "python")
	if r := u.at(t, program, "download", "mysess", "id_container"); r.code != 0 {
		t.Fatalf("download: %v", r)
	}
	if info, err := os.Stat(filepath.Join(u.home, "id_container")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	app := u.atHome(ctx, program, "app", "mysess", "sshd", "-b", "9922")
	app.Cancel = func() error { return app.Process.Signal(os.Interrupt) }
	messages, err := app.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = app.Wait() }()
	if _, ok := lineWith(messages, "127.0.0.1:9922"); !ok {
		t.Fatal("app did not open the port")
	}
	for _, command := range []string{
		"ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i id_container work@localhost -p 9922",
		"ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i ~/id_container work@127.0.0.1 -p 9922",
	} {
		if r := u.at(t, "sh", "-c", command+" 'id -un; exit 7'"); r.code != 7 || r.out != "work\n" {
			t.Errorf("%s: %v", command, r)
		}
	}
	// The short form asks about the host key, on a terminal.
	ssh := u.atHome(ctx, "ssh", "-i", "id_container", "-p", "9922", "work@localhost")
	terminal, err := pty.Start(ssh)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	screen := &screen{t: t, f: terminal}
	screen.until("(yes/no")
	screen.say("yes\n")
	screen.until("$ ")
	screen.say("echo $((6*7)) $(tty); exit 5\n")
	screen.until("42 /dev/pts/")
	_ = ssh.Wait()
	if code := ssh.ProcessState.ExitCode(); code != 5 {
		t.Errorf("ssh ended with %d", code)
	}
	// From now on the host is known, and ~/.ssh/config can have it.
	config := "Host mysession\n    HostName localhost\n    Port 9922\n    User work\n    IdentityFile ~/id_container\n"
	if err := os.WriteFile(filepath.Join(u.home, ".ssh", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := u.at(t, "ssh", "mysession", "hostname"); r.code != 0 || r.out != "main1\n" {
		t.Errorf("ssh mysession: %v", r)
	}
	if r := u.at(t, "sh", "-c", "echo put id_container copy | sftp -q -b - mysession && scp -q mysession:copy . && cmp copy id_container"); r.code != 0 {
		t.Errorf("sftp and scp mysession: %v", r)
	}
}

// screen is the other side of a terminal.
type screen struct {
	t    *testing.T
	f    *os.File
	text strings.Builder
}

func (s *screen) say(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.f, text); err != nil {
		s.t.Fatal(err)
	}
}

// until reads until the terminal has shown the text, and forgets what it read.
func (s *screen) until(text string) {
	s.t.Helper()
	deadline := time.AfterFunc(patience, func() { s.f.Close() })
	defer deadline.Stop()
	buffer := make([]byte, 4096)
	for !strings.Contains(s.text.String(), text) {
		n, err := s.f.Read(buffer)
		s.text.Write(buffer[:n])
		if err != nil {
			s.t.Fatalf("%v while waiting for %q in %q", err, text, s.text.String())
		}
	}
	s.text.Reset()
}

// TestSSHConfig makes plain ssh, and what uses it, find sessions by name.
func TestSSHConfig(t *testing.T) {
	u := shared.addUser(t, "comfortable")
	own := "# my own\nHost elsewhere\n    User nobody\n"
	if err := os.MkdirAll(filepath.Join(u.home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(u.home, ".ssh", "config"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if r := u.at(t, program, "ssh-config", "--write"); r.code != 0 {
			t.Fatalf("ssh-config: %v", r)
		}
	}
	text, err := os.ReadFile(filepath.Join(u.home, ".ssh", "config"))
	if err != nil || strings.Count(string(text), "Include") != 1 || !strings.HasSuffix(string(text), own) {
		t.Errorf("%v: %s", err, text)
	}
	files, err := os.ReadDir(u.home)
	if err != nil {
		t.Fatal(err)
	}
	u.start(t, "by-name", "python") // later than the configuration
	if r := u.at(t, "ssh", "by-name.backend.ai", "cat; exit 11"); r.code != 11 || r.errs != "" {
		t.Errorf("ssh: %v", r)
	}
	want := sample(t, filepath.Join(u.home, "sample"))
	if r := u.at(t, "sh", "-ec", "rsync -a sample/ by-name.backend.ai:data/; scp -q -r by-name.backend.ai:data back; echo ls | sftp -q -b - by-name.backend.ai"); r.code != 0 {
		t.Errorf("rsync, scp and sftp: %v", r)
	}
	if got := sums(t, filepath.Join(u.home, "back")); got != want {
		t.Errorf("there came back\n%s, not\n%s", got, want)
	}
	r := u.at(t, "ssh", "-G", "by-name.backend.ai")
	if !strings.Contains(r.out, "stricthostkeychecking true\n") {
		t.Errorf("the host key is not checked strictly: %s", r.out)
	}
	if r := u.at(t, "ssh", "no-session.backend.ai", "true"); r.code != 255 || !strings.Contains(r.errs, "no-session") {
		t.Errorf("a session that there is not: %v", r)
	}
	// Another session of the name has another host key, which is no surprise.
	u.must(t, "rm", "by-name")
	u.start(t, "by-name", "base")
	if r := u.at(t, "ssh", "by-name.backend.ai", "echo new"); r.out != "new\n" {
		t.Errorf("the next session of the name: %v", r)
	}
	after, err := os.ReadDir(u.home)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(files)+2 { // sample and back
		t.Errorf("the folder had %v, and has %v", files, after)
	}
}

// TestSSHCommands runs our own commands around ssh, scp and sftp.
func TestSSHCommands(t *testing.T) {
	u := shared.addUser(t, "commander")
	u.start(t, "mysess", "python")
	for command, code := range map[string]int{"true": 0, "exit 3": 3, "exit 254": 254, "kill -TERM $$": 255, "kill -9 $$": 255} {
		if r := u.inside(t, "mysess", command); r.code != code {
			t.Errorf("%s gives %d: %v", command, code, r)
		}
	}
	want := sample(t, filepath.Join(u.home, "sample"))
	u.must(t, "scp", "mysess", "-r", "sample", ":there")
	u.must(t, "scp", "mysess", "-r", ":there", "back")
	if got := sums(t, filepath.Join(u.home, "back")); got != want {
		t.Errorf("there came back\n%s, not\n%s", got, want)
	}
	if r := u.exec(t, "get there/large twice\n", program, "sftp", "mysess", "-b", "-"); r.code != 0 {
		t.Errorf("sftp: %v", r)
	}
	if r := u.run(t, "scp", "mysess", ":nothing-there", "."); r.code == 0 || !strings.Contains(r.errs, "nothing-there") {
		t.Errorf("scp of nothing: %v", r)
	}
	// Many at once over one connection.
	control := filepath.Join(t.TempDir(), "c")
	u.must(t, "ssh", "mysess", "-o", "ControlMaster=yes", "-o", "ControlPath="+control, "-o", "ControlPersist=yes", "true")
	defer u.run(t, "ssh", "mysess", "-o", "ControlPath="+control, "-O", "exit")
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			if r := u.exec(t, "", "ssh", "-F", "none", "-o", "ControlPath="+control, "any", fmt.Sprintf("echo %d; exit %d", i, i)); r.code != i || r.out != strconv.Itoa(i)+"\n" {
				t.Errorf("channel %d: %v", i, r)
			}
		})
	}
	all.Wait()
	// A child in the background that holds the output keeps nobody.
	if r := u.inside(t, "mysess", "sleep 600 & echo done"); r.out != "done\n" || r.took > 10*time.Second {
		t.Errorf("a background child: %v after %s", r, r.took)
	}
}

// TestForwarding opens ways through the session, both ways.
func TestForwarding(t *testing.T) {
	u := shared.addUser(t, "forwarder")
	u.start(t, "mysess", "python")
	here := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from here") })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = here.Serve(l) }()
	defer here.Close()
	dir := t.TempDir()
	socket, local, dynamic := filepath.Join(dir, "s"), free(t), free(t)
	agent := exec.Command("ssh-agent", "-D", "-a", filepath.Join(dir, "agent"))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	u.env = append(u.env, "SSH_AUTH_SOCK="+filepath.Join(dir, "agent"))
	u.must(t, "download", "mysess", "id_container")
	for u.exec(t, "", "ssh-add", "-q", "id_container").code != 0 { // until the agent listens
	}
	// One ssh with all of it; its script says what it sees of our side.
	script := `set -e
mkdir -p www; echo "from there" > www/file
python3 -m http.server -b 127.0.0.1 -d www 8000 >/dev/null 2>&1 &
python3 - <<'PYTHON'
import os, socket, time, urllib.request
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
agent.sendall(b"\0\0\0\1\x0b")
answer = agent.recv(9)
print("agent", answer[4], int.from_bytes(answer[5:9], "big"))
print("remote", urllib.request.urlopen("http://127.0.0.1:8001/").read().decode())
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/file")
        break
    except OSError:
        time.sleep(0.05)
PYTHON
echo ready
cat
kill %1
`
	cmd := exec.Command(program, "ssh", "mysess", "-A", "-L", local+":localhost:8000", "-L", socket+":localhost:8000", "-D", dynamic,
		"-R", "8001:"+l.Addr().String(), "-o", "ExitOnForwardFailure=yes", "bash -c "+shellQuote(script))
	cmd.Env, cmd.Dir = u.env, u.home
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
		said = append(said, lines.Text())
	}
	if got := strings.Join(said, "\n"); got != "agent 12 1\nremote from here" {
		t.Errorf("inside: %q, %s", got, errs.String())
	}
	for _, way := range [][]string{
		{"http://127.0.0.1:" + local + "/file"}, {"--unix-socket", socket, "http://x/file"}, {"--socks5-hostname", "127.0.0.1:" + dynamic, "http://localhost:8000/file"},
	} {
		if r := u.exec(t, "", append([]string{"curl", "-fsS"}, way...)...); r.out != "from there\n" {
			t.Errorf("%q: %v", way, r)
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("ssh: %v: %s", err, errs.String())
	}
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// free gives a port that was free a moment ago.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestBusyBox uses an image that has BusyBox and nothing else.
func TestBusyBox(t *testing.T) {
	shared.load(t, busybox(t), "localhost/busybox:1")
	u := shared.admin
	u.start(t, "tiny-one", "busybox")
	defer u.must(t, "rm", "tiny-one")
	if r := u.inside(t, "tiny-one", "id -un; echo $SHELL; cat /proc/$$/comm; exit 6"); r.code != 6 || r.out != "work\n/bin/ash\nash\n" {
		t.Errorf("a command: %v", r)
	}
	want := sample(t, filepath.Join(u.home, "sample"))
	defer os.RemoveAll(filepath.Join(u.home, "sample"))
	for name, options := range map[string][]string{"new": nil, "old": {"-O"}} {
		u.must(t, append(append([]string{"scp", "tiny-one", "-r"}, options...), "sample", ":"+name)...)
		u.must(t, append(append([]string{"scp", "tiny-one", "-r"}, options...), ":"+name, name)...)
		if got := sums(t, filepath.Join(u.home, name)); got != want {
			t.Errorf("scp %s: there came back\n%s, not\n%s", name, got, want)
		}
		os.RemoveAll(filepath.Join(u.home, name))
	}
	if r := u.inside(t, "tiny-one", "cd new && find . -type f -print0 | sort -z | xargs -0 sha256sum"); r.out != want {
		t.Errorf("in the session there is %v", r)
	}
	cmd := exec.Command(program, "ssh", "tiny-one")
	cmd.Env = u.env
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	s := &screen{t: t, f: terminal}
	s.until("$ ")
	s.say("echo $((6*7)) $0\n")
	s.until("42 -ash")
	s.say("exit 4\n")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("the shell ended with %d", code)
	}
}

// TestNoShell uses an image that has one program, which is no shell.
func TestNoShell(t *testing.T) {
	shared.load(t, shellless(t), "localhost/shellless:1")
	u := shared.admin
	u.start(t, "mute-one", "shellless")
	defer u.must(t, "rm", "mute-one")
	if r := u.inside(t, "mute-one", "true"); r.code == 0 || !strings.Contains(r.errs, "shell") {
		t.Errorf("a command: %v", r)
	}
	want := sample(t, filepath.Join(u.home, "sample"))
	defer os.RemoveAll(filepath.Join(u.home, "sample"))
	defer os.RemoveAll(filepath.Join(u.home, "back"))
	u.must(t, "scp", "mute-one", "-r", "sample", ":there")
	if r := u.exec(t, "mkdir more\nrename there more/there\nget -R more/there back\n", program, "sftp", "mute-one", "-b", "-"); r.code != 0 {
		t.Errorf("sftp: %v", r)
	}
	if got := sums(t, filepath.Join(u.home, "back")); got != want {
		t.Errorf("there came back\n%s, not\n%s", got, want)
	}
	cmd := exec.Command(program, "ssh", "mute-one")
	cmd.Env = u.env
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	(&screen{t: t, f: terminal}).until("shell")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("a terminal without a shell was a success")
	}
}
