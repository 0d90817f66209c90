//go:build linux

package sshd

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
)

// parseHostKeys parses private keys. Where there is an Ed25519 key but no RSA
// key, one is added for old clients.
func parseHostKeys(texts []string) ([]ssh.Signer, error) {
	if len(texts) == 0 {
		return nil, errors.New("make ssh server: no host key")
	}
	var signers []ssh.Signer
	var seed []byte
	hasRSA := false
	for i, text := range texts {
		key, err := ssh.ParseRawPrivateKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("parse host key %d: %w", i, err)
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return nil, fmt.Errorf("parse host key %d: %w", i, err)
		}
		if key, ok := key.(*ed25519.PrivateKey); ok {
			seed = key.Seed()
		}
		if signer.PublicKey().Type() == ssh.KeyAlgoRSA {
			hasRSA = true
			if signer, err = sha2Signer(signer); err != nil {
				return nil, fmt.Errorf("parse host key %d: %w", i, err)
			}
		}
		signers = append(signers, signer)
	}
	if seed != nil && !hasRSA {
		signers = append(signers, newLazyRSA(seed))
	}
	return signers, nil
}

// rsaAlgorithms are those that RSA keys sign with: SHA-2 only (RFC 8332).
var rsaAlgorithms = []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}

func sha2Signer(signer ssh.Signer) (ssh.MultiAlgorithmSigner, error) {
	algorithms, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("the RSA key cannot choose its hash")
	}
	return ssh.NewSignerWithAlgorithms(algorithms, rsaAlgorithms)
}

// lazyRSA is an RSA host key that is computed when the first client asks for
// it: that takes a good part of a second, and few clients do. It comes from the
// seed of the session's Ed25519 key, so that it stays the same over restarts.
type lazyRSA struct {
	signer func() (ssh.MultiAlgorithmSigner, error)
}

func newLazyRSA(seed []byte) *lazyRSA {
	return &lazyRSA{sync.OnceValues(func() (ssh.MultiAlgorithmSigner, error) {
		key, err := deriveRSA(seed)
		if err != nil {
			return nil, err
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return nil, err
		}
		return sha2Signer(signer)
	})}
}

func (l *lazyRSA) Algorithms() []string { return rsaAlgorithms }

func (l *lazyRSA) PublicKey() ssh.PublicKey { return lazyPublic{l} }

func (l *lazyRSA) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return l.SignWithAlgorithm(random, data, ssh.KeyAlgoRSASHA256)
}

func (l *lazyRSA) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := l.signer()
	if err != nil {
		return nil, err
	}
	return signer.SignWithAlgorithm(random, data, algorithm)
}

// lazyPublic is the public half. Offering it in a negotiation takes its type
// alone.
type lazyPublic struct{ key *lazyRSA }

func (p lazyPublic) Type() string { return ssh.KeyAlgoRSA }

// Marshal is empty when the key cannot be made: the client then ends the
// connection, and signing tells why.
func (p lazyPublic) Marshal() []byte {
	signer, err := p.key.signer()
	if err != nil {
		return nil
	}
	return signer.PublicKey().Marshal()
}

func (p lazyPublic) Verify(data []byte, sig *ssh.Signature) error {
	signer, err := p.key.signer()
	if err != nil {
		return err
	}
	return signer.PublicKey().Verify(data, sig)
}

const (
	rsaBits     = 2048
	rsaExponent = 65537
	primeRounds = 20 // beside the Baillie-PSW test
)

// deriveRSA computes a key from a secret seed, always the same. The generators
// of crypto/rsa and crypto/rand give no such promise.
func deriveRSA(seed []byte) (*rsa.PrivateKey, error) {
	var primes []*big.Int
	for i := range 2 {
		p, err := derivePrime(seed, "backend.ai ssh host key rsa-2048 prime "+strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		primes = append(primes, p)
	}
	one := big.NewInt(1)
	n := new(big.Int).Mul(primes[0], primes[1])
	phi := new(big.Int).Mul(new(big.Int).Sub(primes[0], one), new(big.Int).Sub(primes[1], one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n, E: rsaExponent},
		D:         new(big.Int).ModInverse(big.NewInt(rsaExponent), phi),
		Primes:    primes,
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("derive RSA host key: %w", err)
	}
	return key, nil
}

// derivePrime is the first fitting prime from a number that seed and label give.
func derivePrime(seed []byte, label string) (*big.Int, error) {
	start, err := hkdf.Key(sha256.New, seed, nil, label, rsaBits/16)
	if err != nil {
		return nil, fmt.Errorf("derive RSA host key: %w", err)
	}
	start[0] |= 0xc0 // the product of two such numbers has all its bits
	start[len(start)-1] |= 1
	p, two := new(big.Int).SetBytes(start), big.NewInt(2)
	exponent := big.NewInt(rsaExponent)
	for ; p.BitLen() == rsaBits/2; p.Add(p, two) {
		// p-1 must have no factor in common with the exponent, which is prime.
		if new(big.Int).Mod(p, exponent).Cmp(big.NewInt(1)) != 0 && p.ProbablyPrime(0) && p.ProbablyPrime(primeRounds) {
			return p, nil
		}
	}
	return nil, errors.New("derive RSA host key: there is no prime") // does not happen in the life of the universe
}
