//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// shellForward is "ssh -L" with OpenSSH's own server, which runs on this machine
// and in the network of a session: what people use in place of a tunnel.
type shellForward struct {
	port   string
	cipher string

	dir      string
	sshd     string
	network  string // file of the network namespace that it leads into
	listener net.Listener
	client   *exec.Cmd
}

// newShellForward leads to the app of a session with the fastest cipher that there is.
func newShellForward(ctx context.Context, dir, network string) (_ *shellForward, err error) {
	f := &shellForward{dir: dir, network: network}
	if f.sshd, err = exec.LookPath("/usr/sbin/sshd"); err != nil {
		return nil, fmt.Errorf("find OpenSSH's server: %w", err)
	}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	var best time.Duration
	var fastest string
	for _, cipher := range []string{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"} {
		if err := f.open(ctx, cipher); err != nil {
			return nil, err
		}
		took, err := fetch(ctx, f.port, 256<<20)
		if err != nil {
			return nil, err
		}
		if best == 0 || took < best {
			best, fastest = took, cipher
		}
		f.hangUp()
	}
	return f, f.open(ctx, fastest)
}

// prepare makes temporary keys and listens; sshd gets each connection as a
// descriptor, so that no port is chosen beforehand and we are in no one's way.
func (f *shellForward) prepare(ctx context.Context) error {
	if err := errors.Join(os.RemoveAll(f.dir), os.MkdirAll(f.dir, 0o700), os.MkdirAll("/run/sshd", 0o755)); err != nil {
		return fmt.Errorf("prepare sshd: %w", err)
	}
	for _, name := range []string{"host", "user"} {
		if _, err := timed(exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(f.dir, name))); err != nil {
			return err
		}
	}
	config := fmt.Sprintf("HostKey %[1]s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n", f.dir)
	if err := os.WriteFile(filepath.Join(f.dir, "config"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("prepare sshd: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	f.listener = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			if err := f.serve(ctx, c); err != nil {
				fmt.Fprintln(os.Stderr, "bench: sshd:", err)
			}
		}
	}()
	return nil
}

// serve gives a connection to an sshd of its own.
func (f *shellForward) serve(ctx context.Context, c net.Conn) error {
	defer c.Close()
	socket, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	cmd := exec.CommandContext(ctx, f.sshd, "-i", "-f", filepath.Join(f.dir, "config"))
	cmd.Stdin, cmd.Stdout = socket, socket
	if err := inNetwork(f.network, cmd.Start); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it ends with its connection
	return nil
}

// open starts the client with a cipher and returns when its port leads through.
func (f *shellForward) open(ctx context.Context, cipher string) error {
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	_, f.port, _ = net.SplitHostPort(free.Addr().String())
	if err := free.Close(); err != nil { // ssh cannot choose one by itself
		return fmt.Errorf("find a free port: %w", err)
	}
	f.cipher, _, _ = strings.Cut(cipher, "@")
	_, port, _ := net.SplitHostPort(f.listener.Addr().String())
	options := append(key(filepath.Join(f.dir, "user")).options("root", port),
		"-N", "-o", "ExitOnForwardFailure=yes", "-c", cipher, "-L", fmt.Sprintf("%s:127.0.0.1:%d", f.port, appPort))
	f.client = exec.CommandContext(ctx, "ssh", options...)
	said := new(tail)
	f.client.Stderr = said
	if err := f.client.Start(); err != nil {
		return fmt.Errorf("start ssh: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for {
		if err := echo(ctx, f.port, 1, new(series)); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("ssh -L with %s does not lead through: %w: %s", cipher, err, said.text())
		}
		<-pace.C
	}
}

// copy is scp of a directory, whose far side is written as root@127.0.0.1:PATH.
func (f *shellForward) copy(ctx context.Context, p *platform, from, to string) *exec.Cmd {
	_, port, _ := net.SplitHostPort(f.listener.Addr().String())
	options := key(filepath.Join(f.dir, "user")).options("root", port)
	return p.exec(ctx, append(append([]string{"scp", "-r", "-q"}, options[:len(options)-1]...), from, to)...)
}

func (f *shellForward) hangUp() {
	if f.client == nil {
		return
	}
	_ = f.client.Process.Kill()
	_ = f.client.Wait() // it was killed
	f.client = nil
}

func (f *shellForward) close() {
	f.hangUp()
	_ = f.listener.Close()
	_ = os.RemoveAll(f.dir)
}

// writeCertificate makes a certificate for 127.0.0.1 that signs itself.
func writeCertificate(cert, key string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	return errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}
