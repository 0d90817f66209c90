package session

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"strings"

	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/control"
)

// What secrets are derived for. They are not stored: a session has the same
// ones after every restart of it and of the server.
const (
	purposeControl = "control"
	purposeSSHHost = "ssh-host"
	purposeSSHUser = "ssh-user"
)

// keys are the key material of a session's sshd: its own host and user keys,
// and the owner's account-wide key if there is one.
func (s *Service) keys(one *backendai.Session) control.SSH {
	comment := userName + "@" + one.Name
	host := ed25519.NewKeyFromSeed(s.opts.Derive(purposeSSHHost, one.ID))
	user := ed25519.NewKeyFromSeed(s.opts.Derive(purposeSSHUser, one.ID))
	keys := control.SSH{
		HostKeys:       []string{privatePEM(host, one.ID)},
		AuthorizedKeys: []string{publicLine(user) + " " + comment},
		PrivateKey:     privatePEM(user, comment),
	}
	if own := strings.TrimSpace(one.SSHPublicKey); own != "" && !strings.ContainsAny(own, "\r\n") {
		keys.AuthorizedKeys = append(keys.AuthorizedKeys, own)
	}
	return keys
}

// publicLine is the public half of a key in authorized_keys form, without a comment.
func publicLine(key ed25519.PrivateKey) string {
	return ssh.KeyAlgoED25519 + " " + base64.StdEncoding.EncodeToString(publicBlob(key))
}

// publicBlob is the public half in SSH's wire form (RFC 8709).
func publicBlob(key ed25519.PrivateKey) []byte {
	return ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, key.Public().(ed25519.PublicKey)})
}

// privatePEM is a key in OpenSSH's own form (PROTOCOL.key). Package ssh writes
// it with random check numbers; here the same key always gives the same text,
// by which the runner knows a key that it laid out before.
func privatePEM(key ed25519.PrivateKey, comment string) string {
	sum := sha256.Sum256(append([]byte("check"), key...))
	check := binary.BigEndian.Uint32(sum[:])
	private := ssh.Marshal(struct {
		Check1, Check2 uint32
		Type           string
		Public         []byte
		Private        []byte
		Comment        string
	}{check, check, ssh.KeyAlgoED25519, key.Public().(ed25519.PublicKey), key, comment})
	for pad := byte(1); len(private)%8 != 0; pad++ {
		private = append(private, pad)
	}
	blob := ssh.Marshal(struct {
		Cipher, KDF, Options string
		Keys                 uint32
		Public, Private      []byte
	}{"none", "none", "", 1, publicBlob(key), private})
	return string(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: append([]byte("openssh-key-v1\x00"), blob...)}))
}

// HostKeys implements API.
func (s *Service) HostKeys(ctx context.Context, caller backendai.Caller, ref string) ([]string, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	l, err := s.resolve(caller, ref)
	if err != nil {
		return nil, err
	}
	return []string{publicLine(ed25519.NewKeyFromSeed(s.opts.Derive(purposeSSHHost, l.id)))}, nil
}
