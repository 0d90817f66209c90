package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backendai/internal/testserver"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"backend.ai": main,
		"ask":        func() { os.Exit(ask(os.Args[1:])) },
	})
}

// ask is a program for scripts: it asks an address over HTTP and prints the
// answer, or says hello over TCP and prints the first line that comes.
func ask(args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	target := args[0]
	if address, ok := strings.CutPrefix(target, "tcp://"); ok {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Print(line)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	_, _ = io.Copy(os.Stdout, resp.Body)
	return 0
}

// scriptTime bounds one script: a command that hangs is killed, and the script
// tells which it was.
const scriptTime = 90 * time.Second

// TestScripts runs each script of testdata/script as a user would, against a
// server of its own with the fake engine and 8 cores to give, an administrator, a user and a
// stranger. The commands of scripts beside testscript's own:
//
//	as USER          be admin, user, stranger or nobody from now on
//	exit N COMMAND…  run a command that ends with the exit code N
//	open NAME COMMAND…  start a command in the background, and set $NAME to the
//	                 address that it prints, and $NAME_PORT
//	close NAME       interrupt that command, which must end within a second
//	stop-server, start-server
func TestScripts(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the server runs on Linux")
	}
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			w := &scriptWorld{t: t, settings: map[string]string{"state-dir": t.TempDir(), "cpu": "8", "mem": "8g"}, opened: map[string]*opened{}}
			testscript.Run(t, testscript.Params{
				Files: []string{file}, Setup: w.setup, RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
				Deadline: time.Now().Add(scriptTime),
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"as": w.as, "exit": w.exit, "open": w.open, "close": w.close,
					"stop-server": w.stopServer, "start-server": w.startServer,
				},
			})
		})
	}
}

// scriptWorld is what one script runs in.
type scriptWorld struct {
	t        *testing.T
	settings map[string]string
	server   *testserver.Server
	accounts map[string]testserver.Account
	opened   map[string]*opened
}

type opened struct {
	cmd    *exec.Cmd
	errors *strings.Builder
	read   chan struct{} // closed when its messages have been read to the end
}

func (w *scriptWorld) setup(env *testscript.Env) error {
	w.server = testserver.Start(w.t, w.settings)
	w.settings["listen"] = strings.TrimPrefix(w.server.Endpoint, "http://")
	w.accounts = map[string]testserver.Account{
		"admin": w.server.Admin, "user": w.server.AddUser(w.t, "user@example.com"), "stranger": w.server.AddUser(w.t, "stranger@example.com"),
		"nobody": {},
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	for _, pair := range w.server.Env(w.accounts["user"]) {
		name, value, _ := strings.Cut(pair, "=")
		env.Setenv(name, value)
	}
	return nil
}

func (w *scriptWorld) as(ts *testscript.TestScript, _ bool, args []string) {
	account, ok := w.accounts[args[0]]
	if !ok {
		ts.Fatalf("there is no %s", args[0])
	}
	for _, pair := range w.server.Env(account) {
		name, value, _ := strings.Cut(pair, "=")
		ts.Setenv(name, value)
	}
}

func (w *scriptWorld) exit(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with the exit code %d, not %d:\n%s%s", strings.Join(args[1:], " "), got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

var addressRE = regexp.MustCompile(`[a-z]+://[0-9a-z.]+:(\d+)`)

func (w *scriptWorld) open(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.CommandContext(w.t.Context(), args[1], args[2:]...)
	program, err := exec.LookPath(args[1])
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), ":") {
		if p := filepath.Join(dir, args[1]); err != nil && executable(p) {
			program, err = p, nil
		}
	}
	ts.Check(err)
	cmd.Path, cmd.Err, cmd.Dir = program, nil, ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "BACKEND_ENDPOINT", "BACKEND_ACCESS_KEY", "BACKEND_SECRET_KEY"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	messages, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	o := &opened{cmd: cmd, errors: &strings.Builder{}, read: make(chan struct{})}
	w.opened[args[0]] = o
	found := make(chan []string, 1)
	go func() {
		defer close(o.read)
		defer close(found)
		lines := bufio.NewScanner(messages)
		for told := false; lines.Scan(); {
			o.errors.WriteString(lines.Text() + "\n")
			if m := addressRE.FindStringSubmatch(lines.Text()); m != nil && !told {
				told = true
				found <- m
			}
		}
	}()
	address, ok := <-found
	if !ok {
		ts.Fatalf("%s tells no address: %v\n%s", strings.Join(args[1:], " "), cmd.Wait(), o.errors)
	}
	ts.Setenv(args[0], address[0])
	ts.Setenv(args[0]+"_PORT", address[1])
	ts.Defer(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			<-o.read
			_ = cmd.Wait()
		}
	})
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
}

func (w *scriptWorld) close(ts *testscript.TestScript, _ bool, args []string) {
	o := w.opened[args[0]]
	ts.Check(o.cmd.Process.Signal(os.Interrupt))
	begun := time.Now()
	<-o.read
	_ = o.cmd.Wait()
	if took := time.Since(begun); took > time.Second {
		ts.Fatalf("it took %s to end", took)
	}
	if code := o.cmd.ProcessState.ExitCode(); code != 130 {
		ts.Fatalf("exit code %d", code)
	}
	ts.Logf("[%s]\n%s", args[0], o.errors)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".messages"), []byte(o.errors.String()), 0o600))
}

func (w *scriptWorld) stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(w.server.Stop())
}

func (w *scriptWorld) startServer(_ *testscript.TestScript, _ bool, _ []string) {
	w.server = testserver.Start(w.t, w.settings)
}
