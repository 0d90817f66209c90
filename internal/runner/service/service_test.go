package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/process"
	"backendai/internal/runner/service"
)

// limit bounds every wait of these tests.
const limit = 20 * time.Second

// modeVar makes this test binary a service instead.
const modeVar = "SERVICE_MODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeVar); mode != "" {
		os.Exit(serve(mode, os.Args[1:]))
	}
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines waits for all but this one to end and gives what does not.
func leftGoroutines() string {
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > 1 {
		select {
		case <-tick.C:
		case <-deadline:
			buf := make([]byte, 64<<10)
			return string(buf[:runtime.Stack(buf, true)])
		}
	}
	return ""
}

// serve is a service: its arguments are addresses to listen on.
func serve(mode string, args []string) int {
	fmt.Println("service in mode", mode)
	if file := os.Getenv("STARTS"); file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return 1
		}
		fmt.Fprintln(f, os.Getpid(), strings.Join(args, " "), os.Getenv("CHOSEN"))
		f.Close()
	}
	switch mode {
	case "fail":
		fmt.Fprintln(os.Stderr, "ImportError: no module named torch")
		return 3
	case "deaf":
		<-time.After(time.Hour)
	case "parent": // the child listens, and outlives a parent that is asked to end
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = []string{modeVar + "=stubborn", "STARTS=" + os.Getenv("STARTS")}
		if cmd.Start() != nil {
			return 1
		}
		<-time.After(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	accepted := make(chan net.Conn)
	for _, address := range args {
		if !strings.Contains(address, ":") {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- conn
			}
		}()
	}
	for conn := range accepted {
		buf := make([]byte, 1)
		if n, _ := conn.Read(buf); n == 1 { // a byte is the exit code; a mere look is none
			return int(buf[0])
		}
		conn.Close()
	}
	return 0
}

// place is a session's services, its definitions and what they did.
type place struct {
	*service.Services
	loopback string
	home     string
	log      *buffer
	events   chan control.Event
}

// buffer is a log that several may write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type object = map[string]any

// newPlace makes services with the label and definitions; change may alter the
// options.
func newPlace(t *testing.T, label string, definitions map[string]object, change func(*service.Options)) *place {
	t.Helper()
	dir := t.TempDir()
	for name, d := range definitions {
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &place{
		loopback: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)),
		home:     t.TempDir(), log: &buffer{}, events: make(chan control.Event, 64),
	}
	table := process.NewTable(false)
	o := service.Options{
		Config: control.Config{
			Home: p.home, Loopback: p.loopback, ServicePorts: label,
			Env: map[string]string{"PATH": os.Getenv("PATH"), "FIXED": "yes"},
		},
		Definitions: dir, Table: table, Log: p.log,
		Publish: func(e control.Event) { p.events <- e },
		Builtin: []backendai.App{{Name: "sshd", Protocol: backendai.ProtocolTCP, Ports: []int{2200}}},
	}
	if change != nil {
		change(&o)
	}
	p.Services = service.New(o)
	t.Cleanup(func() {
		p.Drain()
		table.SignalAll(syscall.SIGKILL)
		p.Close()
	})
	return p
}

// listening is a definition of this binary as a service on all its ports.
func listening(t *testing.T, mode string, ports int) object {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := []string{self}
	for i := range ports {
		command = append(command, "{loopback}:{ports["+strconv.Itoa(i)+"]}")
	}
	return object{"command": command, "env": object{modeVar: mode, "STARTS": "starts"}}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// starts are the lines that the service wrote, one each time it began.
func (p *place) starts(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.home, "starts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

func TestFirstUseStartsOnce(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "listen", 1)}, nil)
	ctx := bounded(t)
	const callers = 20
	replies := make(chan control.StartReply, callers)
	for range callers {
		go func() {
			reply, err := p.Start(ctx, "web", control.StartRequest{})
			if err != nil {
				t.Error(err)
			}
			replies <- reply
		}()
	}
	statuses := map[string]int{}
	for range callers {
		reply := <-replies
		statuses[reply.Status]++
		if reply.Port != 8080 {
			t.Errorf("reply %+v", reply)
		}
	}
	if diff := cmp.Diff(map[string]int{"started": 1, "running": callers - 1}, statuses); diff != "" {
		t.Error(diff)
	}
	if starts := p.starts(t); len(starts) != 1 {
		t.Errorf("it started %d times", len(starts))
	}
}

func TestFailedStartTellsWhy(t *testing.T) {
	slow := func(o *service.Options) { o.StartTimeout, o.StopGrace = 300*time.Millisecond, 100*time.Millisecond }
	never := make(chan struct{})
	for _, c := range []struct {
		name       string
		definition object
		change     func(*service.Options)
		title      string
		hint       string
		data       string
	}{
		{"its own fault", listening(t, "fail", 1), nil, `app "web" did not start: it ended with exit code 3`,
			"it last printed: ImportError: no module named torch", "service in mode fail\nImportError: no module named torch"},
		{"never listens", listening(t, "deaf", 1), slow, `app "web" did not start: opening the service port timed out`,
			"it last printed: service in mode deaf", "service in mode deaf"},
		{"no such program", object{"command": []string{"frobnicate"}}, nil,
			`app "web" did not start: program "frobnicate" is not in the session's PATH`, "", ""},
		{"undefined variable", object{"command": []string{"x", "{nothing}"}}, nil, `there is no variable "nothing"`, "", ""},
		{"faulty action", object{"command": []string{"x"}, "prestart": []object{{"action": "mkdir", "args": object{"path": "/proc/x/y"}}}}, nil,
			`app "web" did not start: prestart action 1: mkdir`, "", ""},
		{"action without end", object{"command": []string{"x"}, "prestart": []object{{"action": "run_command", "args": object{"command": []string{"sleep", "1000"}}}}}, slow,
			"sleep took too long", "", ""},
		{"misspelt key", object{"comand": []string{"x"}}, nil, `the image's definition of app "web" is faulty`, "", ""},
		{"bootstrap without end", listening(t, "listen", 1), func(o *service.Options) { slow(o); o.Prepared = never },
			"the session's bootstrap script has not finished", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, "web:http:8080", map[string]object{"web": c.definition}, c.change)
			_, err := p.Start(bounded(t), "web", control.StartRequest{})
			e, ok := errors.AsType[*backendai.Error](err)
			if !ok || e.Code != backendai.CodeInternal || !strings.Contains(e.Title, c.title) || !strings.Contains(e.Hint, c.hint) {
				t.Fatalf("error %#v", err)
			}
			if data, _ := e.Data.(string); data != c.data {
				t.Errorf("last output %q, want %q", data, c.data)
			}
			for _, start := range p.starts(t) {
				pid, _ := strconv.Atoi(strings.Fields(start)[0])
				if syscall.Kill(pid, 0) == nil {
					t.Errorf("process %d is left", pid)
				}
			}
		})
	}
}

func TestDeadServiceStartsAgain(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "listen", 1)}, nil)
	ctx := bounded(t)
	for round := range 2 {
		reply, err := p.Start(ctx, "web", control.StartRequest{})
		if err != nil || reply.Status != control.StatusStarted {
			t.Fatalf("start: %+v, %v", reply, err)
		}
		if e := <-p.events; e.Type != control.EventServiceStarted || e.App != "web" {
			t.Errorf("event %+v", e)
		}
		conn, err := net.Dial("tcp", p.loopback+":8080")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte{9}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		want := control.Event{Type: control.EventServiceExited, App: "web", ExitCode: 9, Detail: "it ended with exit code 9"}
		if diff := cmp.Diff(want, <-p.events); diff != "" {
			t.Error(diff)
		}
		if n := len(p.starts(t)); n != round+1 {
			t.Errorf("%d starts after round %d", n, round)
		}
	}
}

func TestArgumentsAndVariables(t *testing.T) {
	definition := listening(t, "listen", 1)
	definition["allowed_arguments"] = []string{"--dir"}
	definition["default_arguments"] = object{"--dir": "/default"}
	definition["allowed_envs"] = []string{"CHOSEN", "FIXED"}
	for _, c := range []struct {
		name  string
		req   control.StartRequest
		want  string // among the service's own line
		fault string
	}{
		{"default", control.StartRequest{}, "--dir /default", ""},
		{"chosen", control.StartRequest{Arguments: map[string][]string{"--dir": {"/mine"}}, Envs: map[string]string{"CHOSEN": "red"}}, "--dir /mine red", ""},
		{"argument not allowed", control.StartRequest{Arguments: map[string][]string{"--root": nil}}, "", `does not take the argument "--root"`},
		{"variable not allowed", control.StartRequest{Envs: map[string]string{"LD_PRELOAD": "x"}}, "", `does not take the environment variable "LD_PRELOAD"`},
		{"variable of the session", control.StartRequest{Envs: map[string]string{"FIXED": "no"}}, "", `"FIXED" is already set`},
		{"port of another", control.StartRequest{Port: 9999}, "", `app "web" has no port 9999`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, "web:http:8080", map[string]object{"web": definition}, nil)
			_, err := p.Start(bounded(t), "web", c.req)
			if c.fault != "" {
				if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("error %v, want %q", err, c.fault)
				}
				if n := len(p.starts(t)); n != 0 {
					t.Errorf("it was started %d times all the same", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if starts := p.starts(t); len(starts) != 1 || !strings.HasSuffix(strings.TrimSpace(starts[0]), c.want) {
				t.Errorf("started with %q, want %q", starts, c.want)
			}
		})
	}
}

func TestPrestartActions(t *testing.T) {
	definition := listening(t, "listen", 1)
	definition["command"] = append(definition["command"].([]string), "{cfg}", "{said[out]}")
	definition["prestart"] = []object{
		{"action": "mkdir", "args": object{"path": "a/b"}},
		{"action": "write_file", "args": object{"filename": "a/b/file", "body": []string{"port {ports[0]}", "second"}, "mode": "640"}},
		{"action": "write_file", "args": object{"filename": "a/b/file", "body": []string{"third"}, "append": true, "mode": "640"}},
		{"action": "write_tempfile", "args": object{"body": []string{"temporary"}, "mode": "600"}, "ref": "cfg"},
		{"action": "run_command", "args": object{"command": []string{"printf", "hello"}}, "ref": "said"},
		{"action": "log", "args": object{"message": "about to start on {ports[0]}"}},
	}
	temp := t.TempDir()
	p := newPlace(t, "web:http:8080", map[string]object{"web": definition}, func(o *service.Options) { o.Config.Env["TMPDIR"] = temp })
	if _, err := p.Start(bounded(t), "web", control.StartRequest{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.home, "a/b/file")
	if data, err := os.ReadFile(file); err != nil || string(data) != "port 8080\nsecond\nthird\n" {
		t.Errorf("file %q, %v", data, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info, err)
	}
	arguments := strings.Fields(p.starts(t)[0])
	if n := len(arguments); arguments[n-1] != "hello" || filepath.Dir(arguments[n-2]) != temp {
		t.Errorf("started with %q", arguments)
	}
	if !strings.Contains(p.log.String(), "about to start on 8080\n") {
		t.Errorf("log %q", p.log)
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "parent", 1)}, nil)
	ctx := bounded(t)
	if _, err := p.Start(ctx, "web", control.StartRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", p.loopback+":8080"); err == nil {
		conn.Close()
		t.Error("the service's child still listens")
	}
	if err := p.Stop(ctx, "web"); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
	if err := p.Stop(ctx, "sshd"); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("stopping sshd: %v", err)
	}
	if err := p.Stop(ctx, "nothing"); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("stopping what is not there: %v", err)
	}
}

func TestStopForcesTheStubborn(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "stubborn", 1)},
		func(o *service.Options) { o.StopGrace = 50 * time.Millisecond })
	ctx := bounded(t)
	if _, err := p.Start(ctx, "web", control.StartRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	<-p.events
	if e := <-p.events; e.ExitCode != 137 || e.Detail != "it was stopped" || e.OOM {
		t.Errorf("event %+v", e)
	}
}

func TestStopEndsAStartUnderWay(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "deaf", 1)},
		func(o *service.Options) { o.StopGrace = 50 * time.Millisecond })
	ctx := bounded(t)
	failed := make(chan error, 1)
	go func() {
		_, err := p.Start(ctx, "web", control.StartRequest{})
		failed <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.log.String(), "deaf") {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it never began")
		}
	}
	if err := p.Stop(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "it was stopped") {
		t.Errorf("start: %v", err)
	}
}

func TestSecondPort(t *testing.T) {
	p := newPlace(t, "web:http:[8080,8081]", map[string]object{"web": listening(t, "listen", 2)}, nil)
	for _, port := range []int{8081, 8080} {
		reply, err := p.Start(bounded(t), "web", control.StartRequest{Port: port})
		if err != nil || reply.Port != port {
			t.Errorf("start: %+v, %v", reply, err)
		}
		conn, err := net.Dial("tcp", net.JoinHostPort(p.loopback, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

func TestNothingToStart(t *testing.T) {
	p := newPlace(t, "vnc:preopen:5901,noop:tcp:5902,silent:tcp:5903", map[string]object{"noop": {"noop": true}},
		func(o *service.Options) { o.Config.Preopen = []int{9000} })
	for name, port := range map[string]int{"sshd": 2200, "9000": 9000, "1234": 1234, "vnc": 5901, "noop": 5902} {
		reply, err := p.Start(bounded(t), name, control.StartRequest{})
		if want := (control.StartReply{Status: control.StatusRunning, Port: port}); err != nil || reply != want {
			t.Errorf("%s: %+v, %v; want %+v", name, reply, err, want)
		}
	}
	_, err := p.Start(bounded(t), "silent", control.StartRequest{})
	if e, ok := errors.AsType[*backendai.Error](err); !ok || !strings.Contains(e.Hint, "silent.json") {
		t.Errorf("app without a definition: %#v", err)
	}
	for _, name := range []string{"0", "70000", "none", "../x"} {
		_, err := p.Start(bounded(t), name, control.StartRequest{})
		if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Code != backendai.CodeNotFound || !strings.Contains(e.Hint, "sshd, 9000, vnc, noop") {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestWhatTheUserStartedHimselfIsUsed(t *testing.T) {
	p := newPlace(t, "web:http:8080", map[string]object{"web": listening(t, "listen", 1)}, nil)
	l, err := net.Listen("tcp", p.loopback+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reply, err := p.Start(bounded(t), "web", control.StartRequest{})
	if err != nil || reply.Status != control.StatusRunning || len(p.starts(t)) != 0 {
		t.Errorf("start: %+v, %v, %q", reply, err, p.starts(t))
	}
}

func TestWellKnownAppsAreFound(t *testing.T) {
	bin := t.TempDir()
	p := newPlace(t, "jupyter:http:8080", nil, func(o *service.Options) { o.Config.Env["PATH"] = "relative:" + bin })
	names := func() (names []string) {
		for _, a := range p.Apps() {
			names = append(names, a.Name)
		}
		return names
	}
	if diff := cmp.Diff([]string{"sshd", "jupyter"}, names()); diff != "" {
		t.Error(diff)
	}
	// Installed while the session runs.
	if err := os.WriteFile(filepath.Join(bin, "tensorboard"), []byte("#!/bin/sh\necho broken; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sshd", "jupyter", "tensorboard"}, names()); diff != "" {
		t.Error(diff)
	}
	_, err := p.Start(bounded(t), "tensorboard", control.StartRequest{})
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Data != "broken" {
		t.Errorf("start: %#v", err)
	}
}

func TestFaultyLabelLeavesTheRest(t *testing.T) {
	p := newPlace(t, "web:http", nil, func(o *service.Options) { o.Config.Env["PATH"] = "" })
	if apps := p.Apps(); len(apps) != 1 || apps[0].Name != "sshd" {
		t.Errorf("apps %+v", apps)
	}
	if !strings.Contains(p.log.String(), "web:http") {
		t.Errorf("log %q", p.log)
	}
}
