//go:build linux

package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// fixedHostKey is an Ed25519 key of a seed of bytes 7.
func fixedHostKey(t *testing.T) (string, ed25519.PrivateKey) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	text, _ := keyPair(t, key)
	return text, key
}

// TestDerivedKeyIsStable holds the derivation: another result would be another
// host key for every session that a newer runner goes on with.
func TestDerivedKeyIsStable(t *testing.T) {
	_, key := fixedHostKey(t)
	began := time.Now()
	derived, err := deriveRSA(key.Seed())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it took %s", time.Since(began))
	if derived.N.BitLen() != 2048 {
		t.Errorf("the key has %d bits", derived.N.BitLen())
	}
	sum := sha256.Sum256(derived.N.Bytes())
	if got := hex.EncodeToString(sum[:8]); got != "a9b2e2a9f88c0768" {
		t.Errorf("the modulus has the sum %s", got)
	}
	other, err := deriveRSA(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	if err != nil || other.N.Cmp(derived.N) == 0 {
		t.Errorf("another seed: %v", err)
	}
}

// TestRSAHostKeyIsMadeOnDemand looks which handshakes compute the key.
func TestRSAHostKeyIsMadeOnDemand(t *testing.T) {
	text, private := fixedHostKey(t)
	derived, err := deriveRSA(private.Seed())
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512} {
		signers, err := parseHostKeys([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		made := 0
		config := &ssh.ServerConfig{NoClientAuth: true}
		for _, signer := range signers {
			if lazy, ok := signer.(*lazyRSA); ok {
				inner := lazy.signer
				lazy.signer = func() (ssh.MultiAlgorithmSigner, error) { made++; return inner() }
			}
			config.AddHostKey(signer)
		}
		var public ssh.PublicKey
		if algorithm == ssh.KeyAlgoED25519 {
			public, err = ssh.NewPublicKey(private.Public())
		} else {
			public, err = ssh.NewPublicKey(&derived.PublicKey)
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var ends sync.WaitGroup
		ends.Go(func() {
			defer l.Close()
			far, err := l.Accept()
			if err != nil {
				t.Errorf("%s: %v", algorithm, err)
				return
			}
			defer far.Close()
			conn, _, _, err := ssh.NewServerConn(far, config)
			if err != nil {
				t.Errorf("%s: %v", algorithm, err)
				return
			}
			_ = conn.Wait()
		})
		conn, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{
			HostKeyAlgorithms: []string{algorithm}, HostKeyCallback: ssh.FixedHostKey(public),
		})
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		_ = conn.Close()
		ends.Wait()
		if wanted := algorithm != ssh.KeyAlgoED25519; (made > 0) != wanted {
			t.Errorf("%s: the RSA key was asked for %d times", algorithm, made)
		}
	}
}

// OpenSSH's client with nothing but RSA, on a server that was given no such key.
func TestOpenSSHWithDerivedHostKey(t *testing.T) {
	text, private := fixedHostKey(t)
	s := serve(t, func(o *Options) { o.HostKeys = []string{text} })
	derived, err := deriveRSA(private.Seed())
	if err != nil {
		t.Fatal(err)
	}
	if s.hostKey, err = ssh.NewPublicKey(&derived.PublicKey); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.client, "id"))
	if err != nil {
		t.Fatal(err)
	}
	s.writeClient(t, string(key))
	for _, algorithm := range []string{"rsa-sha2-512", "rsa-sha2-256"} {
		if out := s.output(t, "ssh", "-o", "HostKeyAlgorithms="+algorithm, "sess", "echo fine"); out != "fine\n" {
			t.Errorf("%s: %q", algorithm, out)
		}
	}
}

// TestRSAIsForOldClients holds that whoever knows Ed25519 sees that key, also a
// client that would rather have RSA, and that old ones see the other.
func TestRSAIsForOldClients(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct {
		algorithms []string
		want       string
	}{
		{nil, ssh.KeyAlgoED25519}, // as Go has it, RSA first
		{[]string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoED25519}, ssh.KeyAlgoED25519},
		{[]string{ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA256}, ssh.KeyAlgoRSA},
	} {
		var got string
		conn, err := ssh.Dial("tcp", s.address, &ssh.ClientConfig{
			User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.signer)}, HostKeyAlgorithms: c.algorithms,
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error { got = key.Type(); return nil },
		})
		if err != nil {
			t.Fatalf("%v: %v", c.algorithms, err)
		}
		_ = conn.Close()
		if got != c.want {
			t.Errorf("%v: the host key is %s", c.algorithms, got)
		}
	}
}

// TestClientsThatWait are those which say what they know after the server did,
// or say it byte by byte.
func TestClientsThatWait(t *testing.T) {
	s := serve(t, nil)
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"byte by byte": func(c net.Conn) net.Conn { return trickle{c} },
		"server first": func(c net.Conn) net.Conn { return &patient{Conn: c} },
	} {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		client, channels, requests, err := ssh.NewClientConn(wrap(conn), s.address, &ssh.ClientConfig{
			User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := ssh.NewClient(client, channels, requests)
		if out, err := s.session(t, c).Output("echo fine"); err != nil || string(out) != "fine\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		_ = c.Close()
	}
}

// trickle sends single bytes.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// patient holds back what follows its version until the server's KEXINIT is there.
type patient struct {
	net.Conn
	mu      sync.Mutex
	started bool
	read    int
	held    [][]byte
}

func (c *patient) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started && c.read < 200 {
		c.held = append(c.held, bytes.Clone(p))
		return len(p), nil
	}
	c.started = true
	return c.Conn.Write(p)
}

func (c *patient) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read += n; c.read >= 200 {
		for _, held := range c.held {
			if _, err := c.Conn.Write(held); err != nil {
				return n, err
			}
		}
		c.held = nil
	}
	return n, err
}
