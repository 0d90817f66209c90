package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"backendai"
)

const (
	someID  = "11111111-2222-4333-8444-555555555555"
	otherID = "99999999-2222-4333-8444-555555555555"
)

func TestToolArguments(t *testing.T) {
	tools := map[string]sshTool{
		"ssh": {name: "ssh", valued: "BbcDEeFIiJLlmOopPQRSWw"}, "scp": {name: "scp", valued: "cDFiJloPSX"}, "sftp": {name: "sftp", valued: "BbcDFiJloPRSsX"},
	}
	for _, c := range []struct{ tool, line, before, session, after string }{
		{"ssh", "mysession", "", "mysession", ""},
		{"ssh", "-v mysession ls -la", "-v", "mysession", "ls -la"},
		{"ssh", "-p 9922 mysession", "-p 9922", "mysession", ""},
		{"ssh", "-p9922 mysession -N", "-p9922", "mysession", "-N"},
		{"ssh", "-vNL 8000:h:80 work@mysession.backend.ai -- x", "-vNL 8000:h:80", "mysession", "-- x"},
		{"ssh", "-o A=b -l x mysession", "-o A=b -l x", "mysession", ""},
		{"ssh", "-- mysession -x", "", "mysession", "-x"},
		{"scp", "-r mysession a :b", "-r", "mysession", "a :b"},
		{"scp", "-P 1 -pl 5 mysession a :b", "-P 1 -pl 5", "mysession", "a :b"},
		{"sftp", "-b - mysession", "-b -", "mysession", ""},
	} {
		before, session, after, err := tools[c.tool].split(strings.Fields(c.line))
		if err != nil || strings.Join(before, " ") != c.before || session != c.session || strings.Join(after, " ") != c.after {
			t.Errorf("%s %s: %q %q %q %v", c.tool, c.line, before, session, after, err)
		}
	}
	for _, line := range []string{"", "-v", "-p", "-o A=b"} {
		if _, session, _, err := tools["ssh"].split(strings.Fields(line)); err == nil {
			t.Errorf("ssh %s: session %q", line, session)
		}
	}
}

func TestPlacesOfCopies(t *testing.T) {
	tool := sshTool{name: "scp", valued: "cDFiJloPSX"}
	for line, want := range map[string]string{
		"a :":                       "-- a h.backend.ai:",
		":a .":                      "-- h.backend.ai:a .",
		"a b :c -r":                 "-r -- a b h.backend.ai:c",
		"--recursive a sess:b":      "-r -- a h.backend.ai:b",
		"work@localhost:a b":        "-- h.backend.ai:a b",
		"work@h.backend.ai:a b":     "-- h.backend.ai:a b",
		"-l 5 a :b --port 9922":     "-l 5 -- a h.backend.ai:b",
		"a :b -o X=y:z":             "-o X=y:z -- a h.backend.ai:b",
		"-- -a :b":                  "-- -a h.backend.ai:b",
		":a :b":                     "-- h.backend.ai:a h.backend.ai:b",
		"a:b :c":                    "-- a:b h.backend.ai:c", // another host's, which scp knows to ask
		"-p 9922 a :b":              "-p -- a h.backend.ai:b",
		"--port=9922 -r a :b -p 80": "-r -p -- a h.backend.ai:b",
	} {
		got, err := placeSCP(tool, "h.backend.ai", "sess", strings.Fields(line))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("scp %s: %q, %v; want %s", line, got, err, want)
		}
	}
	for _, line := range []string{"", "a", ":a", "a b", "-r"} {
		if got, err := placeSCP(tool, "h.backend.ai", "sess", strings.Fields(line)); err == nil {
			t.Errorf("scp %s: %q", line, got)
		}
	}
}

func hostKeyOf(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

func newFolder(t *testing.T) *sshFolder {
	t.Helper()
	e := newEnv(nil, nil, nil, noEnv)
	f, err := e.openSSHFolder(filepath.Join(t.TempDir(), "state", "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	for _, id := range []string{someID, otherID} {
		if err := f.root.MkdirAll("sessions/"+id, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestHostKeysStay shows a host key once and another one after it.
func TestHostKeysStay(t *testing.T) {
	f := newFolder(t)
	s := sshSession{id: someID, name: "mysession"}
	first := hostKeyOf(t)
	for range 2 {
		if err := f.pin(s, []string{"ssh-rsa nonsense", first}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := f.root.ReadFile("sessions/" + someID + "/known_hosts")
	if want := someID + " " + first; err != nil || string(text) != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
	err = f.pin(s, []string{hostKeyOf(t)})
	if backendai.CodeOf(err) != backendai.CodeAuthFailed {
		t.Errorf("another key: %v", err)
	}
	if err := f.pin(s, []string{"ssh-rsa AAAA"}); err == nil {
		t.Error("a session without a fit key has been taken")
	}
}

func TestHostsLeadToSessions(t *testing.T) {
	f := newFolder(t)
	lead := func(host, id string) {
		t.Helper()
		if err := f.lead(host, sshSession{id: id, name: host, own: true}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(id string) bool {
		_, err := f.root.Stat("sessions/" + id)
		return err == nil
	}
	lead("mysession", someID)
	lead("mys", someID)
	if got := f.idOf("mysession"); got != someID {
		t.Errorf("mysession leads to %q", got)
	}
	lead("mysession", otherID)
	if !has(someID) {
		t.Error("what another host leads to is gone")
	}
	lead("mys", otherID)
	if has(someID) {
		t.Error("what no host leads to is left")
	}
	if err := f.forget("mysession"); err != nil {
		t.Fatal(err)
	}
	if hosts, err := f.hostsOf(otherID); len(hosts) > 0 || err != nil || has(otherID) {
		t.Errorf("after it is forgotten: %q, %v", hosts, err)
	}
	for _, ref := range []string{"nothing", otherID, "../x", ""} {
		if err := f.forget(ref); err != nil {
			t.Errorf("forget %q: %v", ref, err)
		}
	}
}

func TestFolderIsPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	f := newFolder(t)
	if err := f.root.Chmod(".", 0o755); err != nil {
		t.Fatal(err)
	}
	again, err := newEnv(nil, nil, nil, noEnv).openSSHFolder(f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if err := again.write("hosts/x.conf", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, "hosts": 0o700, "sessions": 0o700, "hosts/x.conf": 0o600} {
		if info, err := f.root.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if left, err := filepath.Glob(f.path + "/hosts/*.new"); err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
}

// TestUnfitPaths has folders whose names would end a quote.
func TestUnfitPaths(t *testing.T) {
	for _, name := range []string{`a"b`, "a'b", "a%b", "a$b", "a`b", "a\nb"} {
		if _, err := newEnv(nil, nil, nil, noEnv).openSSHFolder(filepath.Join(t.TempDir(), name)); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestIncludeLine(t *testing.T) {
	const line = `Include "/x/config"`
	for text, want := range map[string]bool{
		"":                                 false,
		line:                               true,
		"# mine\n  " + line + "  \nHost a": true,
		"Host a\n" + line:                  false,
		"match all\n" + line:               false,
		"HostKeyAlgorithms x\n" + line:     true,
	} {
		if got := includes(text, line); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestWriteInclude(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links are not those of Windows")
	}
	home := t.TempDir()
	var out strings.Builder
	e := newEnv(nil, &out, &out, func(name string) string { return map[string]string{"HOME": home}[name] })
	config := filepath.Join(home, ".ssh", "config")
	check := func(want string, mode os.FileMode) {
		t.Helper()
		if err := e.includeSSHConfig("/x/config"); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(config)
		if diff := cmp.Diff(want, string(text)); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
		if info, err := os.Stat(config); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	const line = "Include \"/x/config\"\n"
	check(line, 0o600)
	check(line, 0o600)
	if info, err := os.Stat(filepath.Dir(config)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	const mine = "# mine\nHost *\n\tForwardAgent no"
	real := filepath.Join(home, "dotfiles")
	if err := os.WriteFile(real, []byte(mine), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, config); err != nil {
		t.Fatal(err)
	}
	check(line+mine, 0o640)
	check(line+mine, 0o640)
	if info, err := os.Lstat(config); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(home, ".*")); err != nil || len(left) != 1 {
		t.Errorf("left over: %q, %v", left, err)
	}
}
