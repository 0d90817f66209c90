package runner

import (
	"crypto/ed25519"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"backendai/internal/control"
)

// TestOddHomes starts sessions whose home is of no use: they can be reached all
// the same, and say what is wrong.
func TestOddHomes(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, home := range map[string]string{"cannot be made": "/proc/none/home", "is a file": file, "is read-only": "/proc/self"} {
		t.Run(name, func(t *testing.T) {
			var loopback string
			client, _ := startWith(t, func(c *control.Config) {
				c.Home, loopback = home, c.Loopback
				c.SSH = control.SSH{
					HostKeys:       []string{string(pem.EncodeToMemory(block))},
					AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(signer.PublicKey()))}, PrivateKey: "PRIVATE\n",
				}
			})
			if _, err := client.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			conn, err := ssh.Dial("tcp", net.JoinHostPort(loopback, "2200"), &ssh.ClientConfig{
				User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(signer.PublicKey()),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			session, err := conn.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if out, err := session.Output("echo $((6*7))"); err != nil || string(out) != "42\n" {
				t.Errorf("%q, %v", out, err)
			}
			log, err := client.Logs(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if text, err := io.ReadAll(log); err != nil || !strings.Contains(string(text), "[backend.ai] ") {
				t.Errorf("the log is %q, %v", text, err)
			}
		})
	}
}
