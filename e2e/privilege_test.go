//go:build integration

package e2e

import (
	_ "embed"
	"fmt"
	"net"
	"strings"
	"testing"
)

//go:embed testdata/escapes.sh
var escapes string

// TestEscapes runs a list of known ways out in a real session: each must be
// refused, and the session must go on working.
func TestEscapes(t *testing.T) {
	u := shared.addUser(t, "hostile")
	u.start(t, "fortress", "python")
	r := u.exec(t, escapes, program, "ssh", "fortress", "sh -s")
	attempts := 0
	for line := range strings.Lines(r.out) {
		if attempts++; strings.HasPrefix(line, "ESCAPED") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if r.code != 0 || attempts < 150 || !strings.HasSuffix(r.out, "\ndone\n") {
		t.Errorf("%d attempts: %v", attempts, r)
	}
	// The server itself, by every address of the machine.
	_, port, err := net.SplitHostPort(shared.address)
	if err != nil {
		t.Fatal(err)
	}
	gateway := strings.TrimSpace(u.inside(t, "fortress", `python3 -c 'print(*[".".join(str(b) for b in reversed(bytes.fromhex(l.split()[2]))) for l in list(open("/proc/net/route"))[1:] if l.split()[1] == "00000000"])'`).out)
	for _, address := range append(hostAddresses(t), "127.0.0.1", gateway) {
		if r := u.inside(t, "fortress", fmt.Sprintf("python3 -c 'import socket; socket.create_connection((\"%s\", %s), 0.5)'", address, port)); r.code == 0 {
			t.Errorf("a session reaches the server at %s", address)
		}
	}
	goesOn(t, u, "fortress")
}

// TestPID1Survives sends everything to everyone.
func TestPID1Survives(t *testing.T) {
	u := shared.addUser(t, "destructive")
	u.start(t, "fortress", "python")
	port := u.app(t, "fortress", "jupyter")
	jupyterStart(t, port)
	u.inside(t, "fortress", "kill -9 -1") // ends the shell that says it, too
	goesOn(t, u, "fortress")
	jupyterStart(t, port) // a new one: the next connection starts it
	// More memory than there is, by one process and by a crowd of small ones.
	if r := u.inside(t, "fortress", "python3 -c 'x = [bytearray(1 << 20) for _ in range(1 << 20)]'"); r.code == 0 {
		t.Errorf("there is no limit of memory: %v", r)
	}
	goesOn(t, u, "fortress")
	u.inside(t, "fortress", "for i in $(seq 60); do python3 -c 'import time; x = bytearray(1 << 23); time.sleep(1)' & done; wait")
	goesOn(t, u, "fortress")
}

// goesOn wants a session that answers by all its own ways.
func goesOn(t *testing.T, u user, session string) {
	t.Helper()
	if r := u.inside(t, session, "id -u; cat /proc/1/comm"); r.out != "1000\nrunner\n" {
		t.Fatalf("ssh: %v", r)
	}
	if r := u.exec(t, "ls -a\n", program, "sftp", session, "-b", "-"); r.code != 0 {
		t.Errorf("sftp: %v", r)
	}
	if r := u.run(t, "ps", "-f", "name,status", "--plain"); !strings.Contains(r.out, "RUNNING") {
		t.Errorf("ps: %v", r)
	}
}
