//go:build linux

package sshd

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"backendai/internal/control"
)

var sessionKeys = control.SSH{AuthorizedKeys: []string{"session-key"}, PrivateKey: "PRIVATE\n"}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// prepare lays out a home, prepares its keys, and returns what is authorized.
func prepare(t *testing.T, layout func(home string)) (home, lines, log string, keys *Keys) {
	t.Helper()
	home = t.TempDir()
	layout(home)
	var text bytes.Buffer
	keys, err := PrepareKeys(home, sessionKeys, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := keys.Authorized()
	if err != nil {
		t.Fatal(err)
	}
	return home, string(got), text.String(), keys
}

func TestKeysWithoutFolder(t *testing.T) {
	home, lines, _, keys := prepare(t, func(string) {})
	if !keys.Own || lines != "session-key\n" {
		t.Errorf("%v %q", keys.Own, lines)
	}
	if m := mode(t, filepath.Join(home, "id_container")); m != 0o600 {
		t.Errorf("id_container has mode %v", m)
	}
	if m := mode(t, filepath.Join(home, ".ssh")); m != 0o700 {
		t.Errorf(".ssh has mode %v", m)
	}
	// A file that comes later counts at once, beside the session's key.
	put(t, filepath.Join(home, ".ssh", "authorized_keys"), "later\n", 0o600)
	got, err := keys.Authorized()
	if err != nil || string(got) != "session-key\nlater\n" {
		t.Errorf("%q %v", got, err)
	}
	// Also over a restart of the session, whose id_container is still there.
	again, err := PrepareKeys(home, sessionKeys, nil)
	if err != nil || !again.Own {
		t.Errorf("after a restart: %+v %v", again, err)
	}
}

func TestKeysOfTheUser(t *testing.T) {
	home, lines, _, keys := prepare(t, func(home string) {
		dir := filepath.Join(home, ".ssh")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "authorized_keys"), "mine", 0o666)
		put(t, filepath.Join(dir, "id_ed25519"), "x", 0o644)
		put(t, filepath.Join(dir, "id_ed25519.pub"), "x", 0o664)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	})
	if keys.Own || lines != "mine" {
		t.Errorf("%v %q", keys.Own, lines)
	}
	if _, err := os.Lstat(filepath.Join(home, "id_container")); err == nil {
		t.Error("id_container was made")
	}
	for name, want := range map[string]os.FileMode{".ssh": 0o700, ".ssh/authorized_keys": 0o600, ".ssh/id_ed25519": 0o600, ".ssh/id_ed25519.pub": 0o644} {
		if got := mode(t, filepath.Join(home, name)); got != want {
			t.Errorf("%s has mode %v", name, got)
		}
	}
	put(t, filepath.Join(home, ".ssh", "authorized_keys"), "changed", 0o600)
	if got, err := keys.Authorized(); string(got) != "changed" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestKeysBehindLinksAreNotUsed(t *testing.T) {
	outside := t.TempDir()
	put(t, filepath.Join(outside, "authorized_keys"), "evil", 0o644)
	for name, layout := range map[string]func(home string) error{
		"folder": func(home string) error { return os.Symlink(outside, filepath.Join(home, ".ssh")) },
		"file": func(home string) error {
			if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(outside, "authorized_keys"), filepath.Join(home, ".ssh", "authorized_keys"))
		},
		"a folder for a file": func(home string) error {
			return os.MkdirAll(filepath.Join(home, ".ssh", "authorized_keys"), 0o700)
		},
		"id_container": func(home string) error {
			return os.Symlink(filepath.Join(outside, "authorized_keys"), filepath.Join(home, "id_container"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			home, lines, log, keys := prepare(t, func(home string) {
				if err := layout(home); err != nil {
					t.Fatal(err)
				}
			})
			if !keys.Own || lines != "session-key\n" {
				t.Errorf("%v %q", keys.Own, lines)
			}
			if name != "id_container" && !strings.Contains(log, "not used") {
				t.Errorf("the log says nothing of it: %s", log)
			}
			if info, err := os.Lstat(filepath.Join(home, "id_container")); err != nil || !info.Mode().IsRegular() {
				t.Errorf("id_container: %v %v", info, err)
			}
			if mode(t, filepath.Join(outside, "authorized_keys")) != 0o644 {
				t.Error("what the link leads to was changed")
			}
			wantFile(t, filepath.Join(outside, "authorized_keys"), []byte("evil"))
		})
	}
}

func TestOptionsOfAKey(t *testing.T) {
	for options, want := range map[string]string{
		``: "shell", `no-pty`: "no-pty", `restrict,pty`: "shell",
		`command="echo forced $SSH_ORIGINAL_COMMAND"`:   "forced echo shell",
		`command="echo \"two words\""`:                  "two words",
		`restrict,command="internal-sftp"`:              "",
		`cert-authority`:                                "refused",
		`verify-required`:                               "refused",
		`brand-new-option`:                              "refused",
		`brand-new-option="x"`:                          "refused",
		`command=unquoted`:                              "refused",
		`from="10.0.0.0/8"`:                             "refused",
		`from="127.0.0.*"`:                              "shell",
		`from="127.0.0.0/8,!127.0.0.1"`:                 "refused",
		`expiry-time="20200101"`:                        "refused",
		`expiry-time="29990101Z"`:                       "shell",
		`expiry-time="never"`:                           "refused",
		`environment="LD_PRELOAD=x",no-user-rc`:         "shell",
		`permitopen="127.0.0.1:1"`:                      "shell",
		`permitopen="nonsense"`:                         "refused",
		`command="echo a",command="echo b"`:             "refused",
		`Command="echo forced $SSH_ORIGINAL_COMMAND"`:   "forced echo shell",
		`no-touch-required,restrict,command="echo one"`: "one",
	} {
		t.Run(options, func(t *testing.T) {
			s := serve(t, nil)
			line := string(ssh.MarshalAuthorizedKey(s.signer.PublicKey()))
			put(t, filepath.Join(s.home, ".ssh", "authorized_keys"), strings.TrimSpace(options+" "+line)+"\n", 0o600)
			s.keys.Own = false // from here on the file decides alone
			client, err := s.tryDial("work", s.signer)
			if (err != nil) != (want == "refused") {
				t.Fatalf("login: %v", err)
			}
			if err != nil {
				return
			}
			defer func() { _ = client.Close() }()
			session := s.session(t, client)
			if want == "no-pty" {
				if err := session.RequestPty("xterm", 1, 1, nil); err == nil {
					t.Error("a terminal was given")
				}
				return
			}
			if strings.Contains(options, "internal-sftp") {
				if out, _ := session.Output("echo shell"); strings.Contains(string(out), "shell\n") {
					t.Errorf("%q", out)
				}
				return
			}
			out, err := session.Output("echo shell")
			if err != nil || strings.TrimSpace(string(out)) != want {
				t.Errorf("%q %v", out, err)
			}
		})
	}
}

func TestRestrictedForwarding(t *testing.T) {
	g, err := parseGrant([]string{`permitopen="localhost:80"`, `permitopen="*:443"`, `permitlisten="8080"`})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]bool{
		"open": g.mayOpen("localhost", 80), "any host": g.mayOpen("example.org", 443), "listen": g.mayListen("127.0.0.1", 8080),
		"!other port": !g.mayOpen("localhost", 81), "!listen": !g.mayListen("", 0), "!sockets": !g.mayUseSockets(),
	} {
		if !got {
			t.Errorf("%s is wrong", name)
		}
	}
	restricted, err := parseGrant([]string{"restrict"})
	if err != nil {
		t.Fatal(err)
	}
	if restricted.mayOpen("localhost", 80) || restricted.mayListen("", 0) || restricted.mayUseSockets() || !restricted.noAgent || !restricted.noX11 || !restricted.noPTY {
		t.Errorf("%+v", restricted)
	}
}

func TestMatchAddress(t *testing.T) {
	for pattern, want := range map[string]bool{"*": true, "127.0.0.1": true, "127.0.0.?": true, "::1": false, "127.0.0.0/30": true, "!127.0.0.1,*": false, "[0-9]*": false, "": false} {
		if got := matchAddress(pattern, netip.MustParseAddr("127.0.0.1")); got != want {
			t.Errorf("%q: %v", pattern, got)
		}
	}
}

func TestExpiry(t *testing.T) {
	at, err := parseExpiry("20300102030405Z")
	if err != nil || !at.Equal(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("%v %v", at, err)
	}
}
