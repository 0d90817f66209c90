package account_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"backendai"
)

// pair is a key in OpenSSH's forms.
func pair(t *testing.T, key crypto.Signer, passphrase string) (public, private string) {
	t.Helper()
	half, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(half))), string(pem.EncodeToMemory(block))
}

func ed25519Key(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestNewSSHKeypair(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	if public, private, err := w.SSHKeypair(t.Context(), alice); public != "" || private != "" || err != nil {
		t.Errorf("a new keypair has the SSH key %q, %v", public, err)
	}
	public, private, err := w.NewSSHKeypair(t.Context(), alice)
	if err != nil || !strings.HasPrefix(private, "-----BEGIN RSA PRIVATE KEY-----\n") {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	half := signer.PublicKey()
	if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(half))) != public || half.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey).N.BitLen() != 2048 {
		t.Errorf("%q is not the public half", public)
	}
	gotPublic, gotPrivate, err := w.SSHKeypair(t.Context(), alice)
	if err != nil || gotPublic != public || gotPrivate != private {
		t.Errorf("%q, %v", gotPublic, err)
	}
	if now := w.lookup(alice.Keypair.AccessKey); now.Keypair.SSHPublicKey != public {
		t.Errorf("%+v", now.Keypair.SSHPublicKey)
	}
	if public, _, err := w.SSHKeypair(t.Context(), w.admin); public != "" || err != nil {
		t.Errorf("another keypair has %q, %v", public, err)
	}
	again, _, err := w.NewSSHKeypair(t.Context(), alice)
	if err != nil || again == public {
		t.Errorf("the same again: %v", err)
	}

	// The real ssh-keygen takes it for what it is.
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("no ssh-keygen")
	}
	file := filepath.Join(t.TempDir(), "id_rsa")
	if err := os.WriteFile(file, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), keygen, "-y", "-f", file).Output()
	if err != nil || strings.TrimSpace(string(out)) != public {
		t.Errorf("%s, %v", out, err)
	}
}

func TestSetSSHKeypair(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ed25519": ed25519Key(t), "ecdsa": curve} {
		public, private := pair(t, key, "")
		if err := w.SetSSHKeypair(t.Context(), alice, " "+public+" me@home \r\n", private); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		gotPublic, gotPrivate, err := w.SSHKeypair(t.Context(), alice)
		if err != nil || gotPublic != public+" me@home" || gotPrivate != private {
			t.Errorf("%s: %q, %v", name, gotPublic, err)
		}
	}
}

func TestBadSSHKeypairs(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice", "")
	public, private := pair(t, ed25519Key(t), "")
	otherPublic, otherPrivate := pair(t, ed25519Key(t), "")
	locked := ed25519Key(t)
	lockedPublic, lockedPrivate := pair(t, locked, "secret")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakPublic, weakPrivate := pair(t, weak, "")
	for name, tt := range map[string]struct{ public, private, words string }{
		"not belonging":   {public, otherPrivate, "the private key is not usable: it does not belong to the public key"},
		"swapped":         {private, public, "the public key is not usable: it has more than one line"},
		"nothing":         {"", "", "it is not in the form of authorized_keys"},
		"no private key":  {public, "", "it is not in the form of OpenSSH or PEM"},
		"a public key":    {public, otherPublic, "it is not in the form of OpenSSH or PEM"},
		"passphrase":      {lockedPublic, lockedPrivate, "it has a passphrase"},
		"weak":            {weakPublic, weakPrivate, "an RSA key has 2048 to 8192 bits"},
		"options":         {`command="evil" ` + public, private, "it has options"},
		"two lines":       {public + "\n" + otherPublic, private, "it has more than one line"},
		"control":         {public + " \x1b[2J", private, "its comment has more than"},
		"long":            {public + strings.Repeat(" x", 4096), private, "it is too long"},
		"long private":    {public, private + strings.Repeat("x", 20<<10), "it is too long"},
		"old kind of key": {"ssh-dss AAAAB3NzaC1kc3MAAAAA", private, "it is not in the form"},
	} {
		err := w.SetSSHKeypair(t.Context(), alice, tt.public, tt.private)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v; want %s", name, err, tt.words)
		}
		if e, ok := errors.AsType[*backendai.Error](err); ok && len(tt.private) > 100 && strings.Contains(e.Title+e.Hint, tt.private[40:80]) {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
	if public, _, err := w.SSHKeypair(t.Context(), alice); public != "" || err != nil {
		t.Errorf("%q was kept, %v", public, err)
	}
}
