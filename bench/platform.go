//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"backendai/internal/client"
)

// patience is how long a server or an app may take to be ready or to end.
const patience = 30 * time.Second

// imageName is the image of all sessions here.
const imageName = "localhost/bench:1"

// recipe makes it: a shell, and OpenSSH's server as a baseline.
const recipe = `
name     = "bench"
tag      = "1"
packages = ["bash", "openssh-server", "openssh-sftp-server"]

[labels]
"ai.backend.resource.min.cpu" = "1"
"ai.backend.resource.min.mem" = "64m"

[env]
LANG = "C.UTF-8"
`

// platform is a server with its own state, and a client's environment.
type platform struct {
	program string
	dir     string
	env     []string
	address string // taken at the first boot, kept after
	log     *os.File
	server  *exec.Cmd
	ended   chan struct{} // closed when the server has ended
	api     *client.Client

	mu       sync.Mutex
	sessions map[string]bool // that were started and not removed
}

func newPlatform(ctx context.Context, program, dir string) (_ *platform, err error) {
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("make home: %w", err)
	}
	// The address may be another one than at the last run.
	if err := os.RemoveAll(filepath.Join(home, ".config")); err != nil {
		return nil, fmt.Errorf("clear home: %w", err)
	}
	p := &platform{program: program, dir: dir, address: "127.0.0.1:0", sessions: map[string]bool{}, env: []string{
		"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "TERM=xterm-256color",
	}}
	if p.log, err = os.Create(filepath.Join(dir, "server.log")); err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	if err := p.boot(ctx); err != nil {
		return nil, errors.Join(err, p.log.Close())
	}
	return p, nil
}

// boot starts the server and returns when it answers. More sessions are allowed
// than the machine has room for by their slots: idle ones need none.
func (p *platform) boot(ctx context.Context, flags ...string) error {
	args := append([]string{
		"server", "--state-dir", filepath.Join(p.dir, "server"), "--listen", p.address, "--cpu", "1000", "--mem", "1000g",
	}, flags...)
	cmd := exec.Command(p.program, args...) //nolint:noctx // it is stopped by a signal, and waited for
	cmd.Env, cmd.Stderr = p.env, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl+C is for us: the server ends last
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	ended := make(chan struct{})
	p.server, p.ended = cmd, ended
	line, readErr := bufio.NewReader(out).ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // its end is asked for
		close(ended)
	}()
	_, rest, found := strings.Cut(line, "://")
	if readErr != nil || !found {
		p.stop()
		return fmt.Errorf("the server did not start, see %s: %q", p.log.Name(), line)
	}
	p.address, _, _ = strings.Cut(rest, " ")
	if p.api != nil {
		return nil
	}
	return p.connect(ctx)
}

// connect makes the Go client of the user whom the server wrote a profile for.
func (p *platform) connect(ctx context.Context) error {
	getenv := func(name string) string {
		for _, pair := range p.env {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return ""
	}
	path, err := client.ProfilePath(getenv)
	if err != nil {
		return err
	}
	config, err := client.LoadConfig(getenv, path)
	if err != nil {
		return err
	}
	if p.api, err = client.New(config, client.Options{UserAgent: "bench"}); err != nil {
		return err
	}
	_, err = p.api.Greet(ctx)
	return err
}

// stop ends the server; sessions go on.
func (p *platform) stop() {
	_ = p.server.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.server.Process.Kill()
		<-p.ended
	}
}

// restart ends the server and starts it with other options.
func (p *platform) restart(ctx context.Context, flags ...string) error {
	p.stop()
	p.api.Close()
	return p.boot(ctx, flags...)
}

// close removes the sessions that are left and ends the server.
func (p *platform) close(ctx context.Context) error {
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.sessions))
	p.mu.Unlock()
	var failed error
	for _, name := range names {
		failed = errors.Join(failed, p.remove(ctx, name))
	}
	p.api.Close()
	p.stop()
	return errors.Join(failed, p.log.Close())
}

// command is one of the product's, in the client's environment.
func (p *platform) command(ctx context.Context, args ...string) *exec.Cmd {
	return p.exec(ctx, append([]string{p.program}, args...)...)
}

// exec is any program in the client's environment.
func (p *platform) exec(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = p.env, p.dir, patience
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

// timed runs a command, which has to succeed, and tells how long its process took.
func timed(cmd *exec.Cmd) (time.Duration, error) {
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return took, nil
}

// session starts a session, which is removed at the end at the latest.
func (p *platform) session(ctx context.Context, name string, options ...string) (time.Duration, error) {
	p.mu.Lock()
	p.sessions[name] = true
	p.mu.Unlock()
	return timed(p.command(ctx, append(append([]string{"start", "-t", name}, options...), imageName)...))
}

// id is that of the session with a name.
func (p *platform) id(ctx context.Context, name string) (string, error) {
	match, err := p.api.MatchSessions(ctx, name)
	if err == nil && len(match) != 1 {
		err = fmt.Errorf("%d sessions have the name", len(match))
	}
	if err != nil {
		return "", fmt.Errorf("find session %s: %w", name, err)
	}
	return match[0].ID, nil
}

func (p *platform) remove(ctx context.Context, name string) error {
	_, err := timed(p.command(ctx, "rm", "-f", name))
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, name)
	return err
}

// forward is an app that is open at a local port.
type forward struct {
	port string
	cmd  *exec.Cmd
	log  *tail
}

// app opens an app of a session; the caller closes it.
func (p *platform) app(ctx context.Context, session, app string, env ...string) (*forward, error) {
	f := &forward{cmd: p.command(ctx, "app", "-b", "0", session, app), log: new(tail)}
	f.cmd.Env = append(slices.Clip(p.env), env...)
	ready := make(chan string, 1)
	read, write := io.Pipe()
	f.cmd.Stderr = io.MultiWriter(f.log, write)
	if err := f.cmd.Start(); err != nil {
		return nil, fmt.Errorf("open app %s: %w", app, err)
	}
	go func() {
		lines := bufio.NewScanner(read)
		for lines.Scan() {
			if _, after, ok := strings.Cut(lines.Text(), "127.0.0.1:"); ok {
				ready <- strings.TrimRight(strings.TrimSpace(after), "/")
			}
		}
		_, _ = io.Copy(io.Discard, read)
	}()
	select {
	case f.port = <-ready:
		return f, nil
	case <-time.After(patience):
	case <-ctx.Done():
	}
	f.close()
	return nil, fmt.Errorf("the app %s of %s opened no port: %s", app, session, f.log.text())
}

// close ends it as Ctrl+C would.
func (f *forward) close() {
	_ = f.cmd.Process.Signal(os.Interrupt) // it may have ended
	_ = f.cmd.Wait()                       // by the signal
}

// tail keeps the end of what a process writes.
type tail struct {
	mu  sync.Mutex
	end []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	t.end = t.end[max(0, len(t.end)-2000):]
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}

// image makes the image unless an earlier run on the same state did.
func (b *bench) image(ctx context.Context) error {
	images, err := b.platform.api.Images(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(images, func(i client.Image) bool { return i.Ref == imageName }) {
		return nil
	}
	b.say("making the image %s", imageName)
	var last string
	_, err = b.platform.api.BuildImage(ctx, recipe, func(s client.ImageStep) { last = s.Line })
	if err != nil {
		return fmt.Errorf("%w (last line: %q)", err, last)
	}
	return nil
}

// runner is PID 1 of the session with this id, by its number on this machine.
func runner(id string) (int, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, dir := range folders {
		groups, err := os.ReadFile(dir + "/cgroup")
		if err != nil || !strings.Contains(string(groups), id) {
			continue // it may have ended
		}
		if numbers := strings.Fields(field(dir, "NSpid")); len(numbers) == 2 && numbers[1] == "1" {
			return strconv.Atoi(numbers[0])
		}
	}
	return 0, fmt.Errorf("find PID 1 of session %s: %w", id, fs.ErrNotExist)
}

// field is a line of a process's status; "" when it is gone.
func field(dir, name string) string {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// resident is the resident memory of a process in bytes.
func resident(pid int) (float64, error) { return memoryField(pid, "VmRSS") }

// memoryField is a line of a process's status that tells kilobytes, in bytes.
func memoryField(pid int, name string) (float64, error) {
	value, _, _ := strings.Cut(field(fmt.Sprintf("/proc/%d", pid), name), " ")
	kib, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return kib * 1024, nil
}

// clockTick is the unit of processor times in /proc.
const clockTick = 10 * time.Millisecond

// processorTime is what a process and those of its children that have ended used.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	const first, last = 11, 14 // utime, stime, cutime, cstime after the name
	var ticks time.Duration
	for _, f := range fields[first : last+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * clockTick, nil
}
