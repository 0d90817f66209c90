package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"backendai"
)

// The bounds of SSH keys.
const (
	newRSABits    = 2048
	minRSABits    = 2048
	maxRSABits    = 8192
	maxPublicKey  = 4 << 10  // bytes
	maxPrivateKey = 12 << 10 // bytes
)

// SSHKeypair implements API.
func (s *Service) SSHKeypair(ctx context.Context, caller backendai.Caller) (public, private string, err error) {
	return s.store.SSHKeypair(ctx, caller.Keypair.AccessKey)
}

// NewSSHKeypair implements API.
func (s *Service) NewSSHKeypair(ctx context.Context, caller backendai.Caller) (public, private string, err error) {
	done, err := s.takeHeavy(ctx)
	if err != nil {
		return "", "", fmt.Errorf("make SSH key: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, newRSABits)
	done()
	if err != nil {
		return "", "", fmt.Errorf("make SSH key: %w", err)
	}
	half, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		return "", "", fmt.Errorf("make SSH key: %w", err)
	}
	public = authorized(half, "")
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return public, private, s.keepSSHKeypair(ctx, caller, public, private)
}

// SetSSHKeypair implements API.
func (s *Service) SetSSHKeypair(ctx context.Context, caller backendai.Caller, public, private string) error {
	half, comment, err := readPublicKey(public)
	if err != nil {
		return err
	}
	done, err := s.takeHeavy(ctx)
	if err != nil {
		return fmt.Errorf("read SSH key: %w", err)
	}
	err = belongs(half, private)
	done()
	if err != nil {
		return err
	}
	return s.keepSSHKeypair(ctx, caller, authorized(half, comment), strings.TrimSpace(private)+"\n")
}

func (s *Service) keepSSHKeypair(ctx context.Context, caller backendai.Caller, public, private string) error {
	defer s.lock()()
	if err := s.store.SetSSHKeypair(ctx, caller.Keypair.AccessKey, public, private); err != nil {
		return err
	}
	s.changed(ctx)
	return nil
}

// authorized is a public key as a line of authorized_keys, without its end.
func authorized(key ssh.PublicKey, comment string) string {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	return strings.TrimSpace(line + " " + comment)
}

// readPublicKey reads one line of authorized_keys that is a key and nothing else.
func readPublicKey(text string) (ssh.PublicKey, string, error) {
	invalid := func(why string) (ssh.PublicKey, string, error) {
		return nil, "", backendai.Errorf(backendai.CodeInvalidParams, "the public key is not usable: %s", why).
			WithHint("send the content of a file such as id_ed25519.pub").WithData(map[string]string{"pubkey": why})
	}
	text = strings.TrimSpace(text)
	if len(text) > maxPublicKey {
		return invalid("it is too long")
	}
	if strings.ContainsAny(text, "\n\r") {
		return invalid("it has more than one line")
	}
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return invalid("it is not in the form of authorized_keys")
	}
	if len(options) > 0 {
		return invalid("it has options")
	}
	if !printable(comment, maxFullName) {
		return invalid("its comment has more than letters, digits and signs")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoRSA:
		if bits := key.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey).N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return invalid(fmt.Sprintf("an RSA key has %d to %d bits", minRSABits, maxRSABits))
		}
	default:
		return invalid("it is of the kind " + key.Type())
	}
	return key, comment, nil
}

// belongs tells whether a private key is the other half of a public one. What
// is wrong with a secret is told without the secret.
func belongs(public ssh.PublicKey, private string) error {
	invalid := func(why string) error {
		return backendai.Errorf(backendai.CodeInvalidParams, "the private key is not usable: %s", why).
			WithHint("send the content of a file such as id_ed25519").WithData(map[string]string{"privkey": why})
	}
	if len(private) > maxPrivateKey {
		return invalid("it is too long")
	}
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return invalid("it has a passphrase, which nobody could type when a session starts")
	}
	if err != nil {
		return invalid("it is not in the form of OpenSSH or PEM")
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		return invalid("it does not belong to the public key")
	}
	return nil
}
