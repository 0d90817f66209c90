package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"backendai/internal/testserver"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"backend.ai": main,
		"ask":        func() { os.Exit(told(ask(os.Args[1]))) },
		"type-in":    func() { os.Exit(told(typeIn(os.Args[1], os.Args[2], os.Args[3]))) },
	})
}

// told is the exit code of a program for scripts.
func told(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// helpTime bounds a program for scripts.
const helpTime = 20 * time.Second

// ask is a program for scripts: it asks an address over HTTP and prints the
// answer, or connects over TCP and prints the first line that comes.
func ask(target string) error {
	ctx, cancel := context.WithTimeout(context.Background(), helpTime)
	defer cancel()
	if address, ok := strings.CutPrefix(target, "tcp://"); ok {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Print(line)
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// typeIn is a program for scripts: it opens the web terminal of a name as a
// browser does, types a line, and leaves when what it prints has come.
func typeIn(base, name, line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), helpTime)
	defer cancel()
	c, _, err := websocket.Dial(ctx, base+"/ws?session="+name, &websocket.DialOptions{Subprotocols: []string{"tty"}})
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }()
	const mark = "typed"
	for _, message := range []string{`{"AuthToken":"","columns":80,"rows":24}`, "0" + line + "; echo " + mark[:1] + "''" + mark[1:] + "\n"} {
		if err := c.Write(ctx, websocket.MessageBinary, []byte(message)); err != nil {
			return err
		}
	}
	for shown := ""; !strings.Contains(shown, mark); {
		_, message, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("after %q: %w", shown, err)
		}
		if len(message) > 0 && message[0] == '0' {
			shown += string(message[1:])
		}
	}
	return nil
}

// scriptTime bounds one script: a command that hangs is killed, and the script
// tells which it was.
const scriptTime = 3 * time.Minute

// TestScripts runs each script of testdata/script as a user would, against a
// server of its own with the fake engine and 8 cores to give, an administrator, a user and a
// stranger. The commands of scripts beside testscript's own:
//
//	as USER          be admin, user, stranger or nobody from now on
//	exit N COMMAND…  run a command that ends with the exit code N
//	open NAME COMMAND…  start a command in the background, and set $NAME to the
//	                 address that it prints, and $NAME_PORT
//	close NAME       interrupt that command, which must end within a second
//	until COMMAND…   run a command again until it succeeds
//	stop-server, start-server
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			w := &scriptWorld{t: t, settings: map[string]string{"state-dir": t.TempDir(), "cpu": "8", "mem": "8g"}, opened: map[string]*opened{}}
			testscript.RunT(oneScript{t}, testscript.Params{
				Files: []string{file}, Setup: w.setup, RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
				Deadline: time.Now().Add(scriptTime),
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"as": w.as, "exit": w.exit, "open": w.open, "close": w.close, "until": w.until,
					"stop-server": w.stopServer, "start-server": w.startServer,
				},
			})
		})
	}
}

// oneScript runs a script in the test that has been made for it, so that its
// time begins when it does.
type oneScript struct{ *testing.T }

func (oneScript) Parallel() {}

func (t oneScript) Run(_ string, f func(testscript.T)) { f(t) }

func (oneScript) Verbose() bool { return testing.Verbose() }

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
	env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second to end
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
	for _, name := range []string{"PATH", "HOME", "GORACE", "BACKEND_ENDPOINT", "BACKEND_ACCESS_KEY", "BACKEND_SECRET_KEY"} {
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
	if took := time.Since(begun); took > 5*time.Second {
		ts.Fatalf("it took %s to end", took)
	}
	if code := o.cmd.ProcessState.ExitCode(); code != 130 {
		ts.Fatalf("exit code %d", code)
	}
	ts.Logf("[%s]\n%s", args[0], o.errors)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".messages"), []byte(o.errors.String()), 0o600))
}

// until needs no pause between two trials: each is a process.
func (w *scriptWorld) until(ts *testscript.TestScript, _ bool, args []string) {
	for begun := time.Now(); ts.Exec(args[0], args[1:]...) != nil; {
		if time.Since(begun) > scriptTime/3 {
			ts.Fatalf("%s never succeeds", strings.Join(args, " "))
		}
	}
}

// stopServer keeps the port of the server from the other scripts' servers: it
// is bound, but nothing listens there.
func (w *scriptWorld) stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(w.server.Stop())
	address, err := netip.ParseAddrPort(w.settings["listen"])
	ts.Check(err)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ts.Check(err)
	w.t.Cleanup(func() { _ = unix.Close(socket) })
	ts.Check(unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	ts.Check(unix.Bind(socket, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}))
}

func (w *scriptWorld) startServer(_ *testscript.TestScript, _ bool, _ []string) {
	w.server = testserver.Start(w.t, w.settings)
}
