//go:build integration && linux

package sshd

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openssh runs OpenSSH's own server with the site's keys and home, and gives
// the options of a client for it.
func (s *site) openssh(b *testing.B) []string {
	b.Helper()
	dir := b.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close() // for sshd to take
	if out, err := exec.CommandContext(b.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/host").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	public, err := exec.CommandContext(b.Context(), "ssh-keygen", "-y", "-f", filepath.Join(s.client, "id")).Output()
	if err != nil {
		b.Fatal(err)
	}
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/keys\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp /usr/lib/openssh/sftp-server\n", port, dir, dir)
	for name, text := range map[string]string{"config": config, "keys": string(public)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", dir+"/config")
	if err := cmd.Start(); err != nil {
		b.Skip("there is no sshd to compare with:", err)
	}
	b.Cleanup(func() { cancel(); _ = cmd.Wait() })
	for { // it tells nobody when it is ready
		conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = conn.Close()
			break
		}
		if b.Context().Err() != nil {
			b.Fatal(err)
		}
	}
	return []string{"-P", fmt.Sprint(port), "-i", filepath.Join(s.client, "id"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@127.0.0.1"}
}

// BenchmarkSFTP moves a file by OpenSSH's sftp to and from this server and
// OpenSSH's own, in turns, and reports the ratio of their best times.
func BenchmarkSFTP(b *testing.B) {
	const size = 512 << 20
	dir, err := os.MkdirTemp("/dev/shm", "sftp") //nolint:usetesting // no disk is to be measured
	if err != nil {
		b.Skip("there is no filesystem in memory:", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := serve(b, func(o *Options) { o.Home = dir })
	write(b, filepath.Join(dir, "local"), size)
	theirs := s.openssh(b)
	ours := []string{"-F", filepath.Join(s.client, "config"), "sess"}
	const put, get = "put local remote", "get local back"
	for _, way := range []struct{ name, batch, ciphers string }{
		{"put", put, ""}, {"get", get, ""}, // as each negotiates
		{"put with the same cipher", put, "aes128-gcm@openssh.com"}, {"get with the same cipher", get, "aes128-gcm@openssh.com"},
	} {
		b.Run(way.name, func(b *testing.B) {
			best := map[bool]time.Duration{}
			for b.Loop() {
				for _, our := range []bool{true, false} {
					args := theirs
					if our {
						args = ours
					}
					options := []string{"-q", "-b", "-"}
					if way.ciphers != "" {
						options = append(options, "-o", "Ciphers="+way.ciphers)
					}
					cmd := exec.CommandContext(b.Context(), "sftp", append(options, args...)...)
					cmd.Dir, cmd.Stdin = dir, strings.NewReader("cd "+dir+"\n"+way.batch+"\n")
					began := time.Now()
					if out, err := cmd.CombinedOutput(); err != nil {
						b.Fatalf("%v\n%s", err, out)
					}
					took := time.Since(began)
					if best[our] == 0 || took < best[our] {
						best[our] = took
					}
				}
			}
			b.ReportMetric(size/1e6/best[true].Seconds(), "MB/s")
			b.ReportMetric(best[false].Seconds()/best[true].Seconds(), "x-openssh")
		})
	}
}
