//go:build integration && linux

package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// program runs a client in the site's folder, with a home of its own, and
// returns what it printed. It must succeed.
func (s *site) program(t *testing.T, name string, args ...string) string {
	t.Helper()
	return s.fed(t, "", name, args...)
}

// fed is program with standard input.
func (s *site) fed(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = s.client
	cmd.Env = append(os.Environ(), "HOME="+s.client, "GIT_SSH_COMMAND="+s.ssh(), "RSYNC_RSH="+s.ssh(), "GIT_CONFIG_NOSYSTEM=1")
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is not installed: run `make test-packages`", name)
	}
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (s *site) ssh() string { return "ssh -F " + filepath.Join(s.client, "config") }

// sameTrees compares two folders as diff does.
func sameTrees(t *testing.T, one, other string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "diff", "-r", "--no-dereference", one, other).CombinedOutput(); err != nil {
		t.Errorf("%s and %s: %v\n%s", one, other, err, out)
	}
}

// sampleTree makes a folder of odd names, sizes and links in the client's.
func (s *site) sampleTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(s.client, "sample")
	for name, size := range map[string]int{
		"large": 5_000_000, "empty": 0, "with space": 1, "ümläut/你好": 70_000, "deep/er/and/deeper": 32768,
	} {
		write(t, filepath.Join(dir, name), size)
	}
	if err := os.Symlink("large", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRsync(t *testing.T) {
	s := serve(t, nil)
	dir := s.sampleTree(t)
	s.program(t, "rsync", "-a", "--checksum", dir+"/", "sess:up/")
	sameTrees(t, dir, filepath.Join(s.home, "up"))
	write(t, filepath.Join(dir, "more"), 1000)
	if err := os.Remove(filepath.Join(dir, "empty")); err != nil {
		t.Fatal(err)
	}
	out := s.program(t, "rsync", "-a", "--delete", "--itemize-changes", dir+"/", "sess:up/")
	if !strings.Contains(out, "more") || strings.Contains(out, "large") {
		t.Errorf("the second run sent %s", out)
	}
	s.program(t, "rsync", "-az", "sess:up/", filepath.Join(s.client, "down"))
	sameTrees(t, dir, filepath.Join(s.client, "down"))
}

func TestGit(t *testing.T) {
	s := serve(t, nil)
	s.program(t, "git", "init", "-q", "-b", "main", "repo")
	write(t, filepath.Join(s.client, "repo", "file"), 2_000_000)
	git := func(args ...string) {
		t.Helper()
		s.program(t, "git", append([]string{"-C", "repo", "-c", "user.name=n", "-c", "user.email=e@example.org"}, args...)...)
	}
	git("add", ".")
	git("commit", "-q", "-m", "first")
	s.output(t, "ssh", "sess", "git init -q --bare -b main bare.git")
	git("push", "-q", "sess:bare.git", "main")
	s.program(t, "git", "clone", "-q", "ssh://sess/"+s.home+"/bare.git", "again")
	sameTrees(t, filepath.Join(s.client, "repo", "file"), filepath.Join(s.client, "again", "file"))
}

const paramiko = `
import hashlib, os, stat, sys, time, paramiko
host, port, keyfile, home = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
c = paramiko.SSHClient()
c.load_host_keys(sys.argv[5])
c.connect(host, port, 'work', key_filename=keyfile, allow_agent=False, look_for_keys=False,
          disabled_algorithms={'keys': sys.argv[6:]})
i, o, e = c.exec_command('cat; echo err >&2; exit 9')
i.write(b'x' * 300000); i.channel.shutdown_write()
assert o.read() == b'x' * 300000 and e.read() == b'err\n' and o.channel.recv_exit_status() == 9
s = c.open_sftp()
data = os.urandom(3 << 20)
with s.open('a', 'wb') as f:
    f.set_pipelined(True)
    f.write(data[:2 << 20])
with s.open('a', 'ab') as f: f.write(data[2 << 20:])
assert s.stat('a').st_size == 3 << 20
with s.open('a', 'rb') as f:
    f.prefetch()
    assert f.read() == data
    f.seek(1 << 20); assert f.read(5) == data[1 << 20:(1 << 20) + 5]
s.truncate('a', 1000); assert s.stat('a').st_size == 1000
s.chmod('a', 0o600); assert stat.S_IMODE(s.stat('a').st_mode) == 0o600
s.utime('a', (1e9, 1e9 + 1)); st = s.stat('a'); assert (st.st_atime, st.st_mtime) == (1e9, 1e9 + 1)
s.symlink('a', 'l'); assert s.readlink('l') == 'a' and stat.S_ISLNK(s.lstat('l').st_mode)
s.mkdir('d', 0o750); s.rename('a', 'd/a'); s.posix_rename('d/a', 'd/b')
try:
    s.open('none'); raise SystemExit('opened what is not there')
except FileNotFoundError: pass
try:
    s.rmdir('d'); raise SystemExit('removed what is not empty')
except IOError: pass
assert sorted(s.listdir('d')) == ['b'] and s.normalize('.') == home
assert [a.filename for a in s.listdir_iter('d')] == ['b']
s.remove('d/b'); s.rmdir('d'); s.remove('l')
s.putfo(open('/bin/bash', 'rb'), 'bash')
chan = c.get_transport().open_session()
chan.get_pty('xterm', 100, 40); chan.invoke_shell()
chan.send('stty size; exit 5\n')
out = b''
while True:
    b = chan.recv(4096)
    if not b: break
    out += b
assert b'40 100' in out and chan.recv_exit_status() == 5, out
print('done')
`

func TestParamiko(t *testing.T) {
	s := serve(t, nil)
	for _, name := range []string{"ed25519", "rsa"} {
		hosts, without := filepath.Join(s.client, "known_hosts"), "ssh-rsa"
		if name == "rsa" { // a client that knows the RSA key only
			key, err := rsaKey()
			if err != nil {
				t.Fatal(err)
			}
			_, signer := keyPair(t, key)
			without = ssh.KeyAlgoED25519
			hosts = filepath.Join(s.client, "known_rsa")
			line := fmt.Sprintf("[%s]:%s %s", s.host, s.port, ssh.MarshalAuthorizedKey(signer.PublicKey()))
			if err := os.WriteFile(hosts, []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out := s.program(t, "/usr/bin/python3", "-c", paramiko, s.host, s.port, filepath.Join(s.client, "id"), s.home, hosts, without)
		if !strings.Contains(out, "done") {
			t.Errorf("%s: %s", name, out)
		}
	}
}

func TestPuTTY(t *testing.T) {
	s := serve(t, nil)
	s.program(t, "puttygen", "id", "-o", "id.ppk", "-O", "private", "--new-passphrase", "/dev/null")
	options := []string{"-batch", "-i", "id.ppk", "-P", s.port, "-hostkey", ssh.FingerprintSHA256(s.hostKey)}
	data := write(t, filepath.Join(s.client, "file"), 3_000_000)
	plink := exec.CommandContext(t.Context(), "plink", append(options, "work@"+s.host, "cat; exit 12")...)
	plink.Dir, plink.Env = s.client, append(os.Environ(), "HOME="+s.client)
	plink.Stdin = bytes.NewReader(data)
	out, err := plink.Output()
	if exitCode(err) != 12 || !bytes.Equal(out, data) {
		t.Errorf("plink: %v, %d bytes", err, len(out))
	}
	s.fed(t, "put file up\nmkdir d\nmv up d/moved\nget d/moved back\nls d\nchmod 600 d/moved\nquit\n", "psftp", append(options, "work@"+s.host)...)
	wantFile(t, filepath.Join(s.client, "back"), data)
	for _, protocol := range []string{"-sftp", "-scp"} {
		args := append([]string{protocol}, options...)
		s.program(t, "pscp", append(args, "file", "work@"+s.host+":by"+protocol)...)
		s.program(t, "pscp", append(args, "work@"+s.host+":by"+protocol, "back"+protocol)...)
		wantFile(t, filepath.Join(s.client, "back"+protocol), data)
	}
}

func TestLftp(t *testing.T) {
	s := serve(t, nil)
	dir := s.sampleTree(t)
	s.program(t, "lftp", "-c", fmt.Sprintf(`set sftp:connect-program "%s -a -x"; set cmd:fail-exit yes; set net:max-retries 1
		open sftp://work:@sess; mirror -R sample up; mirror up down; cd up; put -c sample/large -o large; ls; cls -l`, s.ssh()))
	sameTrees(t, dir, filepath.Join(s.home, "up"))
	sameTrees(t, dir, filepath.Join(s.client, "down"))
}

func TestRclone(t *testing.T) {
	s := serve(t, nil)
	dir := s.sampleTree(t)
	remote := fmt.Sprintf(":sftp,host=%s,port=%s,user=work,key_file=%s,known_hosts_file=%s:", s.host, s.port,
		filepath.Join(s.client, "id"), filepath.Join(s.client, "known_hosts"))
	// It follows no links here, and checks sums by running sha1sum in the session.
	s.program(t, "rclone", "copy", "--config", "", "--skip-links", dir, remote+"up")
	s.program(t, "rclone", "check", "--config", "", "--skip-links", dir, remote+"up")
	s.program(t, "rclone", "copy", "--config", "", remote+"up", filepath.Join(s.client, "down"))
	if err := os.Remove(filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	sameTrees(t, dir, filepath.Join(s.client, "down"))
	if out := s.program(t, "rclone", "about", "--config", "", remote); !strings.Contains(out, "Free:") {
		t.Errorf("rclone about: %s", out)
	}
}

func TestAnsible(t *testing.T) {
	s := serve(t, nil)
	write(t, filepath.Join(s.client, "file"), 100_000)
	const play = `
- hosts: all
  tasks:
    - copy: {src: file, dest: "~/copied", mode: "0640"}
    - template: {src: text.j2, dest: "~/text"}
    - command: sha256sum copied
      register: sum
    - fetch: {src: "~/copied", dest: back, flat: true}
    - shell: "cat; exit 3"
      args: {stdin: hello}
      register: failed
      failed_when: failed.rc != 3 or failed.stdout != "hello"
`
	for name, text := range map[string]string{"play.yml": play, "text.j2": "{{ ansible_user_id }} at home {{ ansible_env.HOME }}\n"} {
		if err := os.WriteFile(filepath.Join(s.client, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, pipelining := range []string{"True", "False"} {
		t.Setenv("ANSIBLE_PIPELINING", pipelining)
		t.Setenv("ANSIBLE_SSH_ARGS", "-F "+filepath.Join(s.client, "config")+" -o ControlMaster=auto -o ControlPersist=5")
		s.program(t, "ansible-playbook", "-i", "sess,", "play.yml")
		s.output(t, "ssh", "sess", "rm copied text")
	}
	sameTrees(t, filepath.Join(s.client, "file"), filepath.Join(s.client, "back"))
}

func TestSSHFS(t *testing.T) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no FUSE here:", err)
	}
	f.Close()
	s := serve(t, nil)
	dir := s.sampleTree(t)
	mount := filepath.Join(s.client, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	s.program(t, "sshfs", "-F", filepath.Join(s.client, "config"), "-o", "reconnect", "sess:", mount)
	t.Cleanup(func() {
		if out, err := exec.Command("fusermount3", "-u", "-z", mount).CombinedOutput(); err != nil { // the test's context has ended
			t.Errorf("unmount: %v\n%s", err, out)
		}
	})
	s.program(t, "cp", "-a", dir, filepath.Join(mount, "up"))
	sameTrees(t, dir, filepath.Join(s.home, "up"))
	file := filepath.Join(mount, "up", "large")
	for _, err := range []error{
		os.Truncate(file, 1000), os.Chmod(file, 0o600), os.Chtimes(file, time.Unix(1e9, 0), time.Unix(1e9, 0)),
		os.Rename(file, filepath.Join(mount, "renamed")), os.Link(filepath.Join(mount, "renamed"), filepath.Join(mount, "hard")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(filepath.Join(s.home, "renamed"))
	if err != nil || info.Size() != 1000 || info.Mode().Perm() != 0o600 || info.ModTime().Unix() != 1e9 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(mount, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	if out := s.program(t, "df", mount); !strings.Contains(out, "sess:") {
		t.Errorf("df: %s", out)
	}
}

// TestStartOfVSCode does what Remote-SSH does first: a shell without terminal
// that is fed a script, and then forwardings over the same connection.
func TestStartOfVSCode(t *testing.T) {
	s := serve(t, nil)
	script := "echo 'start of script'; uname -s; id -un >/dev/null; mkdir -p ~/.vscode-server; cat > ~/.vscode-server/x <<'EOF'\nserver\nEOF\n" +
		"nohup sleep 30 >/dev/null 2>&1 & echo pid $!; echo 'end of script'\n"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close() // for the client to take
	cmd := s.command(t, "ssh", "-T", "-D", port, "-o", "ConnectTimeout=15", "sess", "bash")
	cmd.Stdin = strings.NewReader(script)
	began := time.Now()
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "end of script") || !strings.Contains(string(out), "Linux") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s: %s", err, time.Since(began), out)
	}
	if _, pid, ok := strings.Cut(string(out), "pid "); ok {
		_ = exec.CommandContext(t.Context(), "kill", strings.Fields(pid)[0]).Run() // it may have ended
	}
	if text, err := os.ReadFile(filepath.Join(s.home, ".vscode-server/x")); string(text) != "server\n" {
		t.Errorf("%q, %v", text, err)
	}
}
