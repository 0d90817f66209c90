//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestTwoServers runs a second server on the same machine: each has its own
// sessions, even of one name, and neither notices the other's crashes and end.
func TestTwoServers(t *testing.T) {
	first := shared.addUser(t, "first")
	other := newPlatform(t.TempDir())
	other.run(t)
	other.load(t, busybox(t), "localhost/busybox:1")
	second := other.admin
	first.start(t, "same-name", "python")
	second.must(t, "start", "-t", "same-name", "busybox")
	first.inside(t, "same-name", "echo first > who")
	second.inside(t, "same-name", "echo second > who")
	// Not even what a session opens to everyone can be reached from one of the other server.
	first.inside(t, "same-name", "setsid python3 -m http.server 8000 >/dev/null 2>&1 &")
	reach := "python3 -c 'import socket; socket.create_connection((\"%s\", 8000), 1)' && echo CONNECTED"
	address := strings.TrimSpace(first.inside(t, "same-name", "hostname -I").out)
	for first.inside(t, "same-name", fmt.Sprintf(reach, address)).code != 0 { // until it listens
	}
	if r := second.inside(t, "same-name", "nc -z -w 1 "+address+" 8000 && echo CONNECTED"); strings.Contains(r.out, "CONNECTED") {
		t.Errorf("a session of the second server reached %s of the first", address)
	}
	other.restart(t)
	shared.restart(t)
	for u, want := range map[*user]string{&first: "first\n", &second: "second\n"} {
		if r := u.inside(t, "same-name", "cat who"); r.out != want {
			t.Errorf("it should be the %s: %v", want, r)
		}
	}
	first.must(t, "rm", "same-name")
	if r := second.inside(t, "same-name", "cat who"); r.out != "second\n" {
		t.Errorf("after the end of the first: %v", r)
	}
	second.must(t, "rm", "same-name")
	shared.nothingLeft(t)
	other.nothingLeft(t)
}

// TestOtherRuntime runs sessions by runc.
func TestOtherRuntime(t *testing.T) {
	p := newPlatform(t.TempDir(), "--runtime", "runc")
	p.run(t)
	p.load(t, busybox(t), "localhost/busybox:1")
	p.admin.must(t, "start", "-t", "by-runc", "busybox")
	p.restart(t)
	if r := p.admin.inside(t, "by-runc", "id -un"); r.out != "work\n" {
		t.Errorf("inside: %v", r)
	}
	p.admin.must(t, "rm", "by-runc")
	p.nothingLeft(t)
}

// TestTLS serves under a certificate of its own making.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := dir+"/cert.pem", dir+"/key.pem"
	r := shared.admin.exec(t, "", "openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=localhost",
		"-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert)
	if r.code != 0 {
		t.Fatalf("make certificate: %v", r)
	}
	p := newPlatform(dir, "--tls-cert", cert, "--tls-key", key)
	careless := p.admin
	p.admin.env = append(p.admin.env, "SSL_CERT_FILE="+cert)
	p.run(t)
	p.load(t, busybox(t), "localhost/busybox:1")
	u := p.admin
	u.start(t, "safe-one", "busybox")
	if r := u.inside(t, "safe-one", "id -un"); r.out != "work\n" {
		t.Errorf("inside: %v", r)
	}
	want := sample(t, u.home+"/sample")
	u.must(t, "scp", "safe-one", "-r", "sample", ":there")
	if r := u.inside(t, "safe-one", "cd there && find . -type f -print0 | sort -z | xargs -0 sha256sum"); r.out != want {
		t.Errorf("in the session there is %v", r)
	}
	refused(t, careless.run(t, "ps"), 1, p.address) // nobody vouches for the certificate
	if r := careless.run(t, "--skip-sslcert-validation", "ps", "--name-only"); r.out != "safe-one\n" {
		t.Errorf("without asking: %v", r)
	}
	u.must(t, "rm", "safe-one")
}
