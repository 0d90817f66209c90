//go:build integration

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is the built binary.
var program string

// shared is the server that all tests use.
var shared *platform

// patience is how long anything in a test may take.
const patience = 90 * time.Second

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) (code int) {
	var err error
	if program, err = filepath.Abs("../bin/backend.ai"); err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the program is not built: run make build first:", err)
		return 1
	}
	dir, err := os.MkdirTemp("/var/tmp", "backend.ai-e2e-") // disk: images are large
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = newPlatform(dir, "--cpu", "64", "--mem", "64g") // tests run side by side, and are not what a machine would be sized for
	if err = shared.stock(); err == nil {
		err = shared.boot()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := shared.end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

// platform is one server, its state and the administrator's environment.
type platform struct {
	dir   string // state, configuration and home of the client
	flags []string
	admin user

	address string // taken at the first boot, kept after
	cmd     *exec.Cmd
	logs    *lockedBuffer
	ended   chan struct{}
}

func newPlatform(dir string, flags ...string) *platform {
	p := &platform{dir: dir, flags: flags, address: "127.0.0.1:0", logs: &lockedBuffer{}}
	p.admin = p.user("admin")
	return p
}

// user is a client's environment: a home of its own.
func (p *platform) user(name string, more ...string) user {
	home := filepath.Join(p.dir, "home-"+name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		panic(err)
	}
	env := []string{
		"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8",
		"XDG_CONFIG_HOME=" + home + "/.config", "XDG_STATE_HOME=" + home + "/.local/state", "XDG_CACHE_HOME=" + home + "/.cache",
	}
	return user{home: home, env: append(env, more...)}
}

// stock gives a server that was not started yet the stock images.
func (p *platform) stock() error {
	images, err := stockImages()
	if err != nil {
		return err
	}
	return cloneImages(images, filepath.Join(p.dir, "server", "images"))
}

// boot starts the server and returns when it answers.
func (p *platform) boot() error {
	args := append([]string{"server", "--state-dir", filepath.Join(p.dir, "server"), "--listen", p.address, "--log-level", "debug"}, p.flags...)
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = p.admin.env
	p.cmd.Stderr = p.logs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	ended := make(chan struct{})
	p.ended = ended
	cmd := p.cmd
	go func() {
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		close(ended)
	}()
	rest, found := strings.CutPrefix(line, "ready: ")
	if readErr != nil || !found {
		<-ended
		return fmt.Errorf("the server did not start: %q\n%s", line, p.logs.tail(4000))
	}
	url, _, _ := strings.Cut(rest, " ")
	_, p.address, _ = strings.Cut(url, "://")
	return nil
}

func (p *platform) endpoint() string { return "http://" + p.address }

// kill ends the server as a crash would.
func (p *platform) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop ends the server as its administrator would.
func (p *platform) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.kill()
		return errors.New("the server did not end after SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 143 && code != 0 {
		return fmt.Errorf("the server ended with %d\n%s", code, p.logs.tail(4000))
	}
	return nil
}

// end stops the server and looks whether anything of it is left on the machine.
// All sessions must have been removed.
func (p *platform) end() error {
	if err := p.stop(); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	folders, err := p.folders()
	if err != nil {
		return err
	}
	traces, err := p.traces()
	if err != nil {
		return err
	}
	for _, name := range folders {
		traces = append(traces, trace{"session's folder", name})
	}
	if len(traces) > 0 {
		return fmt.Errorf("the server has ended, and left: %q", traces)
	}
	return nil
}

// restart crashes the server and starts it again.
func (p *platform) restart(t testing.TB) {
	t.Helper()
	p.kill()
	if err := p.boot(); err != nil {
		t.Fatal(err)
	}
}

// addUser makes a user without rights over others.
func (p *platform) addUser(t testing.TB, name string) user {
	t.Helper()
	name = fmt.Sprintf("%s-%d", name, time.Now().UnixNano())
	out := p.admin.must(t, "--output", "json", "admin", "user", "add", "default", name+"@example.org", "a long test password")
	access, secret := find(t, out, "access_key"), find(t, out, "secret_key")
	return p.user(name, "BACKEND_ENDPOINT="+p.endpoint(), "BACKEND_ACCESS_KEY="+access, "BACKEND_SECRET_KEY="+secret)
}

// find looks a key up anywhere in a JSON document.
func find(t testing.TB, document, key string) string {
	t.Helper()
	var root any
	if err := json.Unmarshal([]byte(document), &root); err != nil {
		t.Fatalf("%v in %q", err, document)
	}
	var walk func(any) (string, bool)
	walk = func(v any) (string, bool) {
		switch v := v.(type) {
		case map[string]any:
			if text, ok := v[key].(string); ok {
				return text, true
			}
			for _, child := range v {
				if text, ok := walk(child); ok {
					return text, true
				}
			}
		case []any:
			for _, child := range v {
				if text, ok := walk(child); ok {
					return text, true
				}
			}
		}
		return "", false
	}
	text, ok := walk(root)
	if !ok {
		t.Fatalf("no %q in %s", key, document)
	}
	return text
}

// user runs commands.
type user struct {
	home string
	env  []string
}

// result is how a command ended.
type result struct {
	out, errs string
	code      int
	took      time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.out, r.errs)
}

// run runs one of our commands.
func (u user) run(t testing.TB, args ...string) result {
	t.Helper()
	return u.exec(t, "", append([]string{program}, args...)...)
}

// exec runs any program in the user's environment and home.
func (u user) exec(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = u.env, u.home, strings.NewReader(stdin)
	return complete(t, cmd)
}

// complete runs a command to its end.
func complete(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("run %v: %v", cmd.Args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(start)}
}

// must runs one of our commands, which has to succeed, and gives its output.
func (u user) must(t testing.TB, args ...string) string {
	t.Helper()
	r := u.run(t, args...)
	if r.code != 0 {
		t.Fatalf("backend.ai %s: %v", strings.Join(args, " "), r)
	}
	return r.out
}

// start starts a session that ends with the test.
func (u user) start(t testing.TB, name, image string, options ...string) {
	t.Helper()
	r := u.run(t, append(append([]string{"start", "-t", name}, options...), image)...)
	t.Cleanup(func() { u.remove(t, name) })
	if r.code != 0 {
		t.Fatalf("start %s: %v\n%s", name, r, shared.logs.tail(3000))
	}
}

// remove removes a session if it is there.
func (u user) remove(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "rm", "-f", name)
	cmd.Env = u.env
	_ = cmd.Run() // the test may have removed it
}

// inside runs a shell command in a session, by SSH.
func (u user) inside(t testing.TB, session, command string) result {
	t.Helper()
	return u.run(t, "ssh", session, command)
}

// app opens an app and gives the local port; it closes with the test.
func (u user) app(t testing.TB, session, app string, options ...string) string {
	t.Helper()
	cmd := exec.Command(program, append(append([]string{"app", "-b", "0"}, options...), session, app)...)
	cmd.Env = u.env
	errs := &lockedBuffer{}
	read, write := io.Pipe()
	cmd.Stderr = io.MultiWriter(errs, write)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = write.Close()
		close(ended)
	}()
	t.Cleanup(func() {
		start := time.Now()
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("app took %s to end after Ctrl+C", took)
		}
	})
	line, ok := lineWith(read, "127.0.0.1:")
	if !ok {
		t.Fatalf("app %s %s opened no port: %s", session, app, errs.tail(2000))
	}
	_, port, _ := strings.Cut(line, "127.0.0.1:")
	return strings.TrimRight(strings.TrimSpace(port), "/")
}

// lineWith reads until a line has the text, and from then on in the background,
// so that the writer can go on.
func lineWith(r io.Reader, text string) (line string, ok bool) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if strings.Contains(lines.Text(), text) {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			return lines.Text(), true
		}
	}
	return "", false
}

// lockedBuffer collects what a process writes.
type lockedBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	grown chan struct{} // closed and renewed by each Write; nil when nobody waits
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.b.String()
	return text[max(0, len(text)-n):]
}

func (l *lockedBuffer) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

// wait returns when the text has come after the first from bytes.
func (l *lockedBuffer) wait(t testing.TB, from int, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		if strings.Contains(l.b.String()[from:], text) {
			l.mu.Unlock()
			return
		}
		if l.grown == nil {
			l.grown = make(chan struct{})
		}
		grown := l.grown
		l.mu.Unlock()
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("there came no %q: %s", text, l.tail(2000))
		}
	}
}
