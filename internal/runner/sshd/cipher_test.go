//go:build linux

package sshd

import (
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// TestFastestCipherWins connects as clients do that know GCM but like others
// more, and as those do that know none.
func TestFastestCipherWins(t *testing.T) {
	if !cpu.X86.HasAES && !cpu.ARM64.HasAES {
		t.Skip("this processor has no AES: the client's choice wins")
	}
	s := serve(t, nil)
	const chacha, ctr, gcm = ssh.CipherChaCha20Poly1305, ssh.CipherAES256CTR, ssh.CipherAES128GCM
	for name, test := range map[string]struct {
		known []string
		want  string
	}{
		"OpenSSH":        {[]string{chacha, ctr, gcm}, gcm},
		"without GCM":    {[]string{chacha, ctr}, ctr},
		"GCM of 256 bit": {[]string{ctr, ssh.CipherAES256GCM}, ssh.CipherAES256GCM},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ssh.Dial("tcp", s.address, &ssh.ClientConfig{
				Config: ssh.Config{Ciphers: test.known}, User: "work", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.signer)},
				HostKeyCallback: ssh.FixedHostKey(s.hostKey), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			used := c.Conn.(ssh.AlgorithmsConnMetadata).Algorithms()
			if used.Read.Cipher != test.want || used.Write.Cipher != test.want {
				t.Errorf("the ciphers are %s and %s; want %s", used.Read.Cipher, used.Write.Cipher, test.want)
			}
		})
	}
}
