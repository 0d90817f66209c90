//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
)

// sshSession is the session whose SSH servers are compared.
const sshSession = "bench-ssh"

// opensshPort is where OpenSSH's server listens in it.
const opensshPort = 2222

// ssh compares the session's SSH server with OpenSSH's.
func (b *bench) ssh(ctx context.Context) error {
	p := b.platform
	room := fmt.Sprintf("%dm", 2*(b.size>>20)+256)
	if _, err := p.session(ctx, sshSession, "-r", "cpu=2", "-r", "mem=8g", "--resource-opts", "shmem="+room); err != nil {
		return err
	}
	key, err := b.key(ctx, sshSession)
	if err != nil {
		return err
	}
	ours, err := p.app(ctx, sshSession, "sshd")
	if err != nil {
		return err
	}
	defer ours.close()
	if err := b.openssh(ctx, key, ours.port); err != nil {
		return fmt.Errorf("start OpenSSH's server in the session: %w", err)
	}
	theirs, err := p.app(ctx, sshSession, strconv.Itoa(opensshPort))
	if err != nil {
		return err
	}
	defer theirs.close()
	ends := [2]end{{p, key, ours.port}, {p, key, theirs.port}}
	if err := b.prompts(ctx, ends); err != nil {
		return err
	}
	if err := b.transfers(ctx, ends); err != nil {
		return err
	}
	if err := b.manySessions(ctx, key, ours.port); err != nil {
		return err
	}
	return p.remove(ctx, sshSession)
}

// end is an SSH server at a local port.
type end struct {
	platform *platform
	key      key
	port     string
}

// shell is a command of the ssh client, with what comes after the host.
func (e end) shell(ctx context.Context, args ...string) *exec.Cmd {
	return e.platform.exec(ctx, append(append([]string{"ssh"}, e.key.options("work", e.port)...), args...)...)
}

// files is sftp with one command.
func (e end) files(ctx context.Context, command string) *exec.Cmd {
	cmd := e.platform.exec(ctx, append([]string{"sftp", "-q", "-b", "-"}, e.key.options("work", e.port)...)...)
	cmd.Stdin = strings.NewReader(command + "\n")
	return cmd
}

// key is a file with a private key.
type key string

// options are those that ssh, scp and sftp know alike, and the host. The server
// is the other end of our own tunnel: nobody else can be there.
func (k key) options(user, port string) []string {
	return []string{
		"-F", "/dev/null", "-i", string(k), "-o", "Port=" + port, "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", user + "@127.0.0.1",
	}
}

// key fetches the key of a session as users do.
func (b *bench) key(ctx context.Context, session string) (key, error) {
	dir := filepath.Join(b.dir, "key-"+session)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	if _, err := timed(b.platform.command(ctx, "download", session, "id_container", "--dest", dir)); err != nil {
		return "", err
	}
	return key(filepath.Join(dir, "id_container")), nil
}

// opensshSetup is run in the session; its input is the public key.
const opensshSetup = `
set -e
mkdir -p openssh && cd openssh
cat >keys
rm -f host host.pub
ssh-keygen -q -t ed25519 -N '' -f host
cat >config <<END
Port %d
ListenAddress 127.0.0.1
HostKey $PWD/host
AuthorizedKeysFile $PWD/keys
PidFile none
StrictModes no
UsePAM no
Subsystem sftp /usr/lib/openssh/sftp-server
END
/usr/sbin/sshd -f config </dev/null >log 2>&1
head -c %d /dev/urandom >/dev/shm/big
`

// openssh starts OpenSSH's server in the session, and makes the file that is
// transferred.
func (b *bench) openssh(ctx context.Context, k key, port string) error {
	public, err := b.platform.exec(ctx, "ssh-keygen", "-y", "-f", string(k)).Output()
	if err != nil {
		return fmt.Errorf("make public key: %w", err)
	}
	cmd := end{b.platform, k, port}.shell(ctx, fmt.Sprintf(opensshSetup, opensshPort, b.size))
	cmd.Stdin = bytes.NewReader(public)
	_, err = timed(cmd)
	return err
}

// prompts measures from the start of ssh until the shell asks for a command.
func (b *bench) prompts(ctx context.Context, ends [2]end) error {
	var times [2]series
	for range b.rounds(15) {
		for i, e := range ends {
			took, err := e.prompt(ctx)
			if err != nil {
				return err
			}
			times[i].add(took)
		}
	}
	b.table.add(row{"ssh: process until prompt", times[0], milliseconds, "OpenSSH", times[1], budget{atMost, 0.150}})
	return nil
}

func (e end) prompt(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := e.shell(ctx)
	began := time.Now()
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		return 0, fmt.Errorf("start ssh: %w", err)
	}
	defer terminal.Close()
	var said []byte
	piece := make([]byte, 4096)
	for !bytes.HasSuffix(said, []byte("$ ")) {
		n, err := terminal.Read(piece)
		said = append(said, piece[:n]...)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("wait for the prompt: %w: %q", err, said), cmd.Wait())
		}
	}
	took := time.Since(began)
	if _, err := io.WriteString(terminal, "exit\n"); err != nil {
		return 0, fmt.Errorf("end the shell: %w", err)
	}
	_, _ = io.Copy(io.Discard, terminal) // a terminal ends with an error
	return took, cmd.Wait()
}

// transfers moves a file by ssh and by sftp, both ways.
func (b *bench) transfers(ctx context.Context, ends [2]end) error {
	big, err := b.bigFile()
	if err != nil {
		return err
	}
	defer os.Remove(big)
	kinds := []struct {
		what string
		move func(e end) (*exec.Cmd, func(), error)
	}{
		{"ssh cat, from the session", func(e end) (*exec.Cmd, func(), error) {
			return e.shell(ctx, "cat /dev/shm/big"), func() {}, nil // to nowhere
		}},
		{"ssh cat, into the session", func(e end) (*exec.Cmd, func(), error) {
			f, err := os.Open(big)
			cmd := e.shell(ctx, "cat >/dev/null")
			cmd.Stdin = f
			return cmd, func() { _ = f.Close() }, err
		}},
		{"sftp get", func(e end) (*exec.Cmd, func(), error) {
			return e.files(ctx, "get /dev/shm/big /dev/null"), func() {}, nil
		}},
		{"sftp put", func(e end) (*exec.Cmd, func(), error) {
			return e.files(ctx, "put "+big+" /dev/shm/put"), func() {}, nil
		}},
	}
	for _, k := range kinds {
		var rates [2]series
		for range b.rounds(5) {
			for i, e := range ends {
				cmd, done, err := k.move(e)
				if err != nil {
					return fmt.Errorf("%s: %w", k.what, err)
				}
				took, err := timed(cmd)
				done()
				if err != nil {
					return fmt.Errorf("%s: %w", k.what, err)
				}
				rates[i].rate(b.size, took)
			}
		}
		b.table.add(row{k.what, rates[0], megabytes, "OpenSSH", rates[1], budget{ratioAtLeast, 1}})
	}
	return nil
}

// bigFile is in memory, so that no disk is measured.
func (b *bench) bigFile() (string, error) {
	f, err := os.CreateTemp("/dev/shm", "backend.ai-bench-")
	if err != nil {
		return "", fmt.Errorf("make file: %w", err)
	}
	_, err = io.CopyN(f, rand.Reader, b.size)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("make file: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// manySessions has 200 open at once, each of which answers twice: when it is
// open, and when all are.
func (b *bench) manySessions(ctx context.Context, k key, port string) error {
	const sessions = 200
	text, err := os.ReadFile(string(k))
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	config := &ssh.ClientConfig{
		User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, Timeout: patience,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the other end of our own tunnel
	}
	var all, answer, silent series
	for range b.rounds(3) {
		open := make([]*dialogue, sessions)
		began := time.Now()
		faults := inParallel(sessions, func(i int) (err error) {
			open[i], err = newDialogue(ctx, config, port)
			return err
		})
		all.add(time.Since(began))
		var mu sync.Mutex
		late := inParallel(sessions, func(i int) error {
			if open[i] == nil {
				return nil
			}
			began := time.Now()
			err := open[i].ask()
			mu.Lock()
			defer mu.Unlock()
			answer.add(time.Since(began))
			return err
		})
		silent = append(silent, float64(len(faults)+len(late)))
		for _, err := range append(faults, late...) {
			b.table.note("of 200 SSH sessions one did not answer: %v", err)
			break
		}
		inParallel(sessions, func(i int) error {
			if open[i] != nil {
				open[i].close()
			}
			return nil
		})
	}
	b.table.add(row{"200 SSH sessions at once: until all are open", all, milliseconds, "", nil, budget{}})
	b.table.add(row{"200 SSH sessions at once: an answer of each at once", answer, milliseconds, "", nil, budget{}})
	b.table.add(row{"200 SSH sessions at once: without answer", silent, number, "", nil, budget{atMost, 0}})
	return nil
}

// dialogue is an SSH session that repeats what it gets.
type dialogue struct {
	client *ssh.Client
	in     io.WriteCloser
	out    io.Reader
}

func newDialogue(ctx context.Context, config *ssh.ClientConfig, port string) (*dialogue, error) {
	tcp, err := connect(ctx, port)
	if err != nil {
		return nil, err
	}
	conn, channels, requests, err := ssh.NewClientConn(tcp, "127.0.0.1:"+port, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open SSH connection: %w", err), tcp.Close())
	}
	d := &dialogue{client: ssh.NewClient(conn, channels, requests)}
	session, err := d.client.NewSession()
	if err == nil {
		d.in, err = session.StdinPipe()
	}
	if err == nil {
		d.out, err = session.StdoutPipe()
	}
	if err == nil {
		err = session.Start("cat")
	}
	if err == nil {
		err = d.ask()
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("open SSH session: %w", err)
	}
	return d, nil
}

func (d *dialogue) ask() error {
	const question = "are you there?\n"
	if _, err := io.WriteString(d.in, question); err != nil {
		return err
	}
	answer := make([]byte, len(question))
	if _, err := io.ReadFull(d.out, answer); err != nil {
		return err
	}
	if string(answer) != question {
		return fmt.Errorf("the session answered %q", answer)
	}
	return nil
}

func (d *dialogue) close() { _ = d.client.Close() }
