package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"backendai"
)

// The bounds of passwords, in characters.
const (
	minPassword = 8
	maxPassword = 128
)

func checkPassword(password string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > maxPassword || !utf8.ValidString(password) {
		return backendai.Errorf(backendai.CodeInvalidParams, "a password has %d to %d characters", minPassword, maxPassword)
	}
	return nil
}

// The cost of one try at a password: 19 MiB and some 30 ms, as OWASP advises.
const (
	hashTime    = 2
	hashMemory  = 19 << 10 // KiB
	hashThreads = 1
	hashSize    = 32 // bytes
	saltSize    = 16 // bytes
)

// hash makes what is kept of a password, in the form that other programs know too.
func (s *Service) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	sum, err := s.argon(ctx, password, salt)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding.EncodeToString
	return hashPrefix() + b64(salt) + "$" + b64(sum), nil
}

func hashPrefix() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashTime, hashThreads)
}

func (s *Service) argon(ctx context.Context, password string, salt []byte) ([]byte, error) {
	done, err := s.takeHeavy(ctx)
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}
	defer done()
	return argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashThreads, hashSize), nil
}

// Authenticate finds the active user with the e-mail address and the password;
// CodeAuthFailed when there is none. It takes as long whether there is such a
// user or not.
func (s *Service) Authenticate(ctx context.Context, email, password string) (*backendai.User, error) {
	refused := backendai.Errorf(backendai.CodeAuthFailed, "the e-mail address or the password is wrong")
	if utf8.RuneCountInString(password) > maxPassword {
		return nil, refused
	}
	u, err := s.store.UserByEmail(ctx, strings.ToLower(email))
	if err != nil && backendai.CodeOf(err) != backendai.CodeNotFound {
		return nil, fmt.Errorf("find user: %w", err)
	}
	kept := ""
	if u != nil && u.Active {
		if kept, err = s.store.PasswordHash(ctx, u.ID); err != nil {
			return nil, fmt.Errorf("find password: %w", err)
		}
	}
	rest, known := strings.CutPrefix(kept, hashPrefix())
	text, want, _ := strings.Cut(rest, "$")
	salt, err := base64.RawStdEncoding.DecodeString(text)
	known = known && err == nil && len(salt) == saltSize
	if !known {
		salt = make([]byte, saltSize)
	}
	sum, err := s.argon(ctx, password, salt)
	if err != nil {
		return nil, err
	}
	same := subtle.ConstantTimeCompare([]byte(base64.RawStdEncoding.EncodeToString(sum)), []byte(want)) == 1
	if !known || !same {
		return nil, refused
	}
	return u, nil
}
