//go:build linux

package sshd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestOpenSSHExitCodes(t *testing.T) {
	s := serve(t, nil)
	for command, want := range map[string]int{
		"true": 0, "false": 1, "exit 42": 42, "exit 255": 255, "no-such-command": 127,
		"kill -TERM $$": 255, // OpenSSH's client says 255 of any signal
	} {
		t.Run(command, func(t *testing.T) {
			if got := exitCode(s.command(t, "ssh", "sess", command).Run()); got != want {
				t.Errorf("exit code %d, want %d", got, want)
			}
		})
	}
}

func TestOpenSSHStreams(t *testing.T) {
	s := serve(t, nil)
	cmd := s.command(t, "ssh", "sess", "cat; echo oops >&2; exit 3")
	input := write(t, filepath.Join(s.client, "in"), 5<<20)
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if code := exitCode(cmd.Run()); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if !bytes.Equal(stdout.Bytes(), input) || stderr.String() != "oops\n" {
		t.Errorf("%d of %d bytes came back, stderr %q", stdout.Len(), len(input), stderr.String())
	}
}

// A hundred megabytes and their checksum, which a background process says last.
func TestOpenSSHLosesNoOutput(t *testing.T) {
	s := serve(t, nil)
	for range 3 {
		cmd := s.command(t, "ssh", "sess", "head -c 100M /dev/urandom | tee >(sha256sum >&2)")
		sum := sha256.New()
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = sum, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Fields(stderr.String()), fmt.Sprintf("%x", sum.Sum(nil)); len(got) == 0 || got[0] != want {
			t.Errorf("the sum is %s, the program said %q", want, stderr.String())
		}
	}
}

// What a program writes right before it ends comes, with a slow reader too.
func TestOpenSSHSlowReader(t *testing.T) {
	s := serve(t, nil)
	cmd := s.command(t, "ssh", "sess", "head -c 3000000 /dev/zero")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var total int
	buffer := make([]byte, 4096)
	for {
		n, err := out.Read(buffer)
		total += n
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil || total != 3000000 {
		t.Errorf("%d bytes, %v", total, err)
	}
}

func TestOpenSSHBackgroundChildKeepsNobody(t *testing.T) {
	s := serve(t, nil)
	for _, args := range [][]string{{"sess"}, {"-tt", "sess"}} {
		began := time.Now()
		out := s.output(t, "ssh", append(args, "sleep 300 & echo $!")...)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%v: the client was kept for %v", args, took)
		}
		if pid := strings.TrimSpace(out); pid == "" {
			t.Errorf("%v: no process number in %q", args, out)
		} else {
			_ = exec.CommandContext(t.Context(), "kill", "-9", pid).Run() // the terminal's hangup may have ended it
		}
	}
}

func TestOpenSSHTerminal(t *testing.T) {
	s := serve(t, nil)
	out := s.output(t, "ssh", "-tt", "sess", "tty; echo $TERM; stty -a")
	if !strings.Contains(out, "/dev/pts/") {
		t.Errorf("no terminal: %q", out)
	}
	// A terminal's output is complete too.
	for range 20 {
		out = s.output(t, "ssh", "-tt", "sess", "head -c 60000 /dev/zero | tr '\\0' x; echo END")
		if len(out) != 60005 || !strings.HasSuffix(out, "END\r\n") {
			t.Fatalf("%d bytes of 60005", len(out))
		}
	}
}

func TestOpenSSHLoginShell(t *testing.T) {
	s := serve(t, nil)
	if err := os.WriteFile(filepath.Join(s.home, ".bash_profile"), []byte("echo profile-ran; shopt -q login_shell && echo is-login\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func() string {
		cmd := s.command(t, "ssh", "-tt", "sess")
		cmd.Stdin = strings.NewReader("echo $0 $BACKENDAI_SESSION_NAME; exit 7\n")
		out, err := cmd.Output()
		if exitCode(err) != 7 {
			t.Errorf("exit %v", err)
		}
		return string(out)
	}
	out := login()
	for _, want := range []string{"Welcome to the session\r\n", "profile-ran", "is-login", "-bash mysession"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("%q is not once in %q", want, out)
		}
	}
	if out := s.output(t, "ssh", "sess", "echo ran"); out != "ran\n" {
		t.Errorf("a command says %q", out)
	}
	if err := os.WriteFile(filepath.Join(s.home, ".hushlogin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := login(); strings.Contains(out, "Welcome") {
		t.Errorf("a hushed login says %q", out)
	}
}

func TestOpenSSHEnvironment(t *testing.T) {
	s := serve(t, nil)
	if err := os.WriteFile(filepath.Join(s.home, ".ssh", "environment"), []byte("EVIL=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.output(t, "ssh", "-o", "SetEnv=LC_TEST=yes LD_PRELOAD=/evil.so COLORTERM=truecolor", "sess", "env; pwd")
	for _, want := range []string{"LC_TEST=yes", "COLORTERM=truecolor", "USER=work", "LOGNAME=work", "HOME=" + s.home, "SHELL=/bin/bash", "SSH_CONNECTION=127.0.0.1 ", "SSH_CLIENT=127.0.0.1 ", "BACKENDAI_SESSION_NAME=mysession", "\n" + s.home + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	for _, unwanted := range []string{"LD_PRELOAD", "EVIL", "MAIL=", "SSH_TTY"} {
		if strings.Contains(out, unwanted) {
			t.Errorf("%q is in %s", unwanted, out)
		}
	}
}

func TestOpenSSHCopies(t *testing.T) {
	for _, native := range []bool{true, false} {
		t.Run(fmt.Sprintf("own scp %v", native), func(t *testing.T) {
			s := serve(t, func(o *Options) {
				if native {
					o.Env["PATH"] = "/nowhere"
				}
			})
			for _, flags := range [][]string{nil, {"-O"}} {
				if !native && flags != nil {
					if _, err := exec.LookPath("scp"); err != nil {
						t.Fatal(err)
					}
				}
				copyBothWays(t, s, flags)
			}
		})
	}
}

func copyBothWays(t *testing.T, s *site, flags []string) {
	t.Helper()
	tree := filepath.Join(s.client, "tree")
	a := write(t, filepath.Join(tree, "a b.txt"), 300_000)
	b := write(t, filepath.Join(tree, "deep", "er", "b"), 7)
	empty := write(t, filepath.Join(tree, "empty"), 0)
	when := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(filepath.Join(tree, "a b.txt"), when, when); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(tree, "a b.txt"), 0o640); err != nil {
		t.Fatal(err)
	}
	scp := func(args ...string) { t.Helper(); s.output(t, "scp", append(flags, args...)...) }
	scp("-rp", tree, "sess:up")
	wantFile(t, filepath.Join(s.home, "up", "a b.txt"), a)
	wantFile(t, filepath.Join(s.home, "up", "deep", "er", "b"), b)
	wantFile(t, filepath.Join(s.home, "up", "empty"), empty)
	info, err := os.Stat(filepath.Join(s.home, "up", "a b.txt"))
	if err != nil || !info.ModTime().Equal(when) || info.Mode().Perm() != 0o640 {
		t.Errorf("the copy has %v %v, %v", info.ModTime(), info.Mode(), err)
	}
	down := filepath.Join(s.client, "down")
	scp("-rp", "sess:up", down)
	wantFile(t, filepath.Join(down, "a b.txt"), a)
	wantFile(t, filepath.Join(down, "deep", "er", "b"), b)
	scp("sess:up/e*", filepath.Join(down, "deep")) // a pattern that the remote side expands
	wantFile(t, filepath.Join(down, "deep", "empty"), empty)
	if code := exitCode(s.command(t, "scp", append(flags, "sess:nothing-here", down)...).Run()); code != 1 {
		t.Errorf("a missing file gives exit code %d", code)
	}
	for _, dir := range []string{down, filepath.Join(s.home, "up")} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSSHSFTP(t *testing.T) {
	s := serve(t, nil)
	data := write(t, filepath.Join(s.client, "data"), 3<<20)
	if err := os.WriteFile(filepath.Join(s.home, "part"), data[:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	// A start-up file that talks breaks sftp servers that a shell starts.
	if err := os.WriteFile(filepath.Join(s.home, ".bashrc"), []byte("echo hello from bashrc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	batch := strings.Join([]string{
		"pwd", "put -f data whole", "reput data part", "ln -s whole soft", "ln whole hard", "mkdir d", "rename soft d/soft",
		"chmod 600 hard", "df -h .", "ls -la", "get whole back", "reget whole back", "rm part",
	}, "\n")
	cmd := s.command(t, "sftp", "-b", "-", "sess")
	cmd.Stdin = strings.NewReader(batch)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "Remote working directory: "+s.home) {
		t.Errorf("not at home: %s", out)
	}
	wantFile(t, filepath.Join(s.home, "whole"), data)
	wantFile(t, filepath.Join(s.home, "hard"), data)
	wantFile(t, filepath.Join(s.client, "back"), data)
	if to, err := os.Readlink(filepath.Join(s.home, "d", "soft")); to != "whole" || err != nil {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestOpenSSHControlMaster(t *testing.T) {
	s := serve(t, nil)
	socket := filepath.Join(s.client, "mux")
	master := s.command(t, "ssh", "-M", "-N", "-o", "ControlPath="+socket, "-o", "ExitOnForwardFailure=yes", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo up", "sess")
	out, err := master.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			cmd := s.command(t, "ssh", "-o", "ControlPath="+socket, "sess", fmt.Sprintf("head -c 200000 /dev/zero; exit %d", i))
			out, err := cmd.Output()
			if len(out) != 200000 || exitCode(err) != i {
				t.Errorf("channel %d: %d bytes, %v", i, len(out), err)
			}
		})
	}
	wg.Wait()
	s.output(t, "ssh", "-o", "ControlPath="+socket, "-O", "exit", "sess")
	_, _ = io.Copy(io.Discard, out)
	_ = master.Wait()
}

func TestOpenSSHRekey(t *testing.T) {
	s := serve(t, nil)
	out := s.output(t, "ssh", "-o", "RekeyLimit=1M", "sess", "head -c 20M /dev/zero")
	if len(out) != 20<<20 {
		t.Errorf("%d bytes", len(out))
	}
}

func TestOpenSSHCompressionIsRefusedCleanly(t *testing.T) {
	s := serve(t, nil)
	if out := s.output(t, "ssh", "-C", "sess", "echo fine"); out != "fine\n" {
		t.Errorf("%q", out)
	}
}

func TestOpenSSHRefusals(t *testing.T) {
	s := serve(t, nil)
	cmd := s.command(t, "ssh", "-o", "LogLevel=INFO", "-l", "root", "sess", "true")
	if out, err := cmd.CombinedOutput(); exitCode(err) != 255 || !strings.Contains(string(out), "use work@") {
		t.Errorf("root: %v %s", err, out)
	}
	if !strings.Contains(s.log.String(), "log in as work") {
		t.Errorf("the log has no hint: %s", s.log)
	}
	text, _ := ed25519Key(t)
	if err := os.WriteFile(filepath.Join(s.client, "id"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(s.command(t, "ssh", "sess", "true").Run()); code != 255 {
		t.Errorf("another key: exit code %d", code)
	}
}

// Old clients know RSA host keys only.
func TestOpenSSHWithRSAHostKey(t *testing.T) {
	s := serve(t, nil)
	key, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	_, signer := keyPair(t, key)
	s.hostKey = signer.PublicKey()
	text, err := os.ReadFile(filepath.Join(s.client, "id"))
	if err != nil {
		t.Fatal(err)
	}
	s.writeClient(t, string(text))
	for _, algorithm := range []string{"rsa-sha2-256", "rsa-sha2-512"} {
		if out := s.output(t, "ssh", "-o", "HostKeyAlgorithms="+algorithm, "sess", "echo fine"); out != "fine\n" {
			t.Errorf("%s: %q", algorithm, out)
		}
	}
}
