//go:build integration && linux

package main_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/control"
)

// limit bounds every wait of these tests.
const limit = 30 * time.Second

// session is a runner that is PID 1 of a real PID namespace, as uid 1000.
type session struct {
	*control.Client
	unshare *exec.Cmd
	config  control.Config
	dir     string
	started time.Time
}

// binary builds the runner once.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runner")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// begin starts a session whose batch command is script, run by /bin/sh.
func begin(t *testing.T, program, script string) *session {
	t.Helper()
	dir, err := os.MkdirTemp("", "runner") //nolint:usetesting // uid 1000 must get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, home} {
		if err := os.Chown(p, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	s := &session{dir: dir, config: control.Config{
		SessionID: "one", Secret: []byte("secret"), Home: home,
		Loopback: fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(254), rand.IntN(256)),
		Env:      map[string]string{"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "ONLY": "this"},
		Batch:    &control.Batch{Command: script},
		SSH:      control.SSH{HostKeys: []string{hostKey(t)}},
	}}
	socket := filepath.Join(dir, "control")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	defer listener.Close()
	listenFile, err := listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(s.config)
	if err != nil {
		t.Fatal(err)
	}
	configPath := filepath.Join(dir, "config")
	if err := os.WriteFile(configPath, data, 0o600); err != nil {
		t.Fatal(err)
	}
	files := []*os.File{listenFile}
	for _, f := range []struct {
		name string
		flag int
	}{{"log", os.O_RDWR | os.O_CREATE | os.O_APPEND}, {"record", os.O_RDWR | os.O_CREATE}, {"config", os.O_RDONLY}} {
		file, err := os.OpenFile(filepath.Join(dir, f.name), f.flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	// The binary is where uid 1000 can execute it.
	runner := filepath.Join(dir, "runner")
	if out, err := exec.CommandContext(t.Context(), "cp", program, runner).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.unshare = exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc",
		"setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--",
		runner)
	s.unshare.ExtraFiles = files
	s.unshare.Stderr = os.Stderr
	s.unshare.Env = []string{"PATH=" + os.Getenv("PATH"), "LEAKED=yes"}
	s.started = time.Now()
	if err := s.unshare.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	t.Cleanup(func() {
		if s.unshare.ProcessState == nil {
			// Whoever changes its uid is no longer killed with its parent.
			_ = syscall.Kill(s.hostPID(t), syscall.SIGKILL)
			_ = s.unshare.Wait()
		}
	})
	s.Client = control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, s.config.Secret)
	t.Cleanup(s.Close)
	return s
}

// hostKey makes one for the session's sshd.
func hostKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

// until follows the log to a line and gives what came before it.
func (s *session) until(t *testing.T, ctx context.Context, last string) []string {
	t.Helper()
	logs, err := s.Logs(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var before []string
	scanner := bufio.NewScanner(logs)
	for scanner.Scan() {
		if scanner.Text() == last {
			return before
		}
		before = append(before, scanner.Text())
	}
	t.Fatalf("the log ended without %q: %v\n%s", last, scanner.Err(), strings.Join(before, "\n"))
	return nil
}

// hostPID is the runner's number on the host.
func (s *session) hostPID(t *testing.T) int {
	t.Helper()
	pid := s.unshare.Process.Pid
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func TestInit(t *testing.T) {
	program := binary(t)
	for _, c := range []struct {
		name   string
		script string
		check  func(t *testing.T, ctx context.Context, s *session, printed []string)
	}{
		{
			name: "survives every signal",
			script: `for i in $(seq 1 64); do kill -$i 1 2>&1; kill -$i 1 2>&1; done
python3 - <<'EOF'
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
info = (ctypes.c_int * 32)()
for sig in range(1, 65):
    if sig in (9, 19): continue
    info[0], info[2] = sig, -1   # SI_QUEUE: as if it were none of kill(2)
    libc.syscall(129, 1, sig, info)
EOF
echo done`,
			check: func(t *testing.T, ctx context.Context, s *session, _ []string) {
				if _, err := s.Health(ctx); err != nil {
					t.Error(err)
				}
			},
		},
		{
			name: "collects orphans and keeps exit codes",
			script: `for i in $(seq 100); do (sh -c 'exit 9' & exec true) ; done
while grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | grep -q .; do :; done
echo done
exit 7`,
			check: func(t *testing.T, ctx context.Context, s *session, _ []string) {
				err := s.Events(ctx, func(e control.Event) bool {
					if e.ExitCode != 7 {
						t.Errorf("event %+v, want exit code 7", e)
					}
					return false
				})
				if err != nil {
					t.Error(err)
				}
			},
		},
		{
			name:   "shows the user nothing of itself",
			script: `cat /proc/1/environ /proc/1/mem; ls /proc/1/fd /proc/1/cwd; ls -l /proc/self/fd | grep -c /control; echo done`,
			check: func(t *testing.T, _ context.Context, _ *session, printed []string) {
				for _, line := range printed {
					if line != "0" && !strings.Contains(line, "ermission denied") {
						t.Errorf("the user sees %q", line)
					}
				}
			},
		},
		{
			name:   "gives exactly its environment and no descriptor",
			script: `env | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL= | sort; ls /proc/self/fd | wc -l; id -u; pwd; echo done`,
			check: func(t *testing.T, _ context.Context, s *session, printed []string) {
				// Three streams, and the folder that ls reads.
				want := "ONLY=this,PATH=/usr/bin:/bin,SHELL=/bin/sh,4,1000," + s.config.Home
				if got := strings.Join(printed, ","); got != want {
					t.Errorf("printed %q, want %q", got, want)
				}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			s := begin(t, program, c.script)
			c.check(t, ctx, s, s.until(t, ctx, "done"))
		})
	}
}

func TestShutdownEndsAll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// One that hides in a session of its own, one that is stopped, one that will not hear.
	s := begin(t, binary(t), `setsid sleep 1000 & sleep 1001 & kill -STOP $!
(trap '' HUP; setsid sh -c 'trap "echo last words; exit" TERM; echo done; while :; do sleep 0.1; done') &
wait`)
	s.until(t, ctx, "done")
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.unshare.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	var record control.ExitRecord
	data, err := os.ReadFile(filepath.Join(s.dir, "record"))
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err != nil || record.Reason != backendai.ReasonUserRequested || record.ExitCode != 0 {
		t.Errorf("record %+v, %v", record, err)
	}
	log, err := os.Open(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if text, err := io.ReadAll(log); err != nil || !strings.Contains(string(text), "last words") {
		t.Errorf("log %q, %v", text, err)
	}
}

// TestIdleIsSmall holds the budgets: below 10 MiB resident, and an answer soon
// after the start.
func TestIdleIsSmall(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s := begin(t, binary(t), "exit 0")
	if _, err := s.Health(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("first answer after %s, unshare and setpriv included", time.Since(s.started).Round(100*time.Microsecond))
	if _, err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apps(ctx); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.hostPID(t)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("resident: %d KiB", kb)
			if kb > 10<<10 {
				t.Errorf("resident: %d KiB, more than 10 MiB", kb)
			}
		}
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "Threads") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
