package store

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"backendai"
)

const keySize = 32 // bytes

// masterKey reads the key file of the state directory. It is made when there is
// none, unless there are secrets already that it would have to open.
func masterKey(dir string, database bool) ([]byte, error) {
	path := filepath.Join(dir, KeyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if database {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the key file %s is missing, without which the database cannot be used", path).
			WithHint("bring it back from a backup; a new state directory starts from nothing")
	}
	return makeKey(dir, path)
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the key file %s cannot be read: %w", path, err).
			WithHint("run the server as the user who owns the state directory")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the key file %s has mode %04o: others than its owner may read it", path, mode).
			WithHint("if nobody has read it, run: chmod 600 %s", path)
	}
	text := make([]byte, 2*keySize+2)
	n, _ := f.Read(text) // a short file is no key, which is told below
	key, err := hex.DecodeString(string(bytes.TrimSpace(text[:n])))
	if err != nil || len(key) != keySize {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the key file %s does not hold a key of %d hexadecimal digits", path, 2*keySize).
			WithHint("bring it back from a backup; a new state directory starts from nothing")
	}
	return key, nil
}

// makeKey makes the key file, whole or not at all, and has it on the disk
// before anything is sealed with it.
func makeKey(dir, path string) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	fail := func(err error) ([]byte, error) {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the key file %s cannot be made: %w", path, err).
			WithHint("the state directory must exist, be writable and have room")
	}
	next, err := os.CreateTemp(dir, KeyFile+".*") // mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(next.Name())
	_, err = next.WriteString(hex.EncodeToString(key) + "\n")
	err = errors.Join(err, next.Sync(), next.Close())
	if err != nil {
		return fail(err)
	}
	// A link, unlike a rename, never replaces the key of another process.
	switch err := os.Link(next.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return readKey(path)
	case err != nil:
		return fail(err)
	}
	if err := syncFolder(dir); err != nil {
		return fail(err)
	}
	return key, nil
}

func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // has no such thing
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newAEAD makes the cipher that seals secrets.
func newAEAD(master []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, master, nil, "backend.ai seal", keySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return aead, nil
}

// Derive gives 32 secret bytes that are always the same for the purpose and the
// id, and tell nothing of any others or of the key that they come from.
func (s *Store) Derive(purpose, id string) []byte {
	// The length keeps ("ab", "c") and ("a", "bc") apart.
	key, err := hkdf.Key(sha256.New, s.key, nil, "backend.ai derive "+strconv.Itoa(len(purpose))+" "+purpose+" "+id, keySize)
	if err != nil {
		panic(err) // the length is right for the hash
	}
	return key
}

// seal encrypts a secret for its place in the database: it opens nowhere else.
func (s *Store) seal(secret, place string) []byte {
	return s.aead.Seal(nil, nil, []byte(secret), []byte(place))
}

func (s *Store) open(sealed []byte, place string) (string, error) {
	secret, err := s.aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return "", backendai.Errorf(backendai.CodeInternal, "a secret in the database does not open with the key of this server: %w", err)
	}
	return string(secret), nil
}

// sealText is what is sealed to know the key again.
const sealText = "backend.ai"

// checkSeal tells whether the key file is the one that sealed this database.
func (s *Store) checkSeal(ctx context.Context) error {
	var sealed []byte
	err := s.writer.QueryRowContext(ctx, "SELECT sealed FROM seal").Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = s.writer.ExecContext(ctx, "INSERT INTO seal (id, sealed) VALUES (1, ?) ON CONFLICT DO NOTHING", s.seal(sealText, "seal"))
		if err != nil {
			return s.unusable(err)
		}
		err = s.writer.QueryRowContext(ctx, "SELECT sealed FROM seal").Scan(&sealed)
	}
	if err != nil {
		return s.unusable(err)
	}
	if text, err := s.open(sealed, "seal"); err != nil || text != sealText {
		return backendai.Errorf(backendai.CodeUnavailable, "the key file %s is not the one of the database %s", filepath.Join(filepath.Dir(s.path), KeyFile), s.path).
			WithHint("bring back the two from the same backup")
	}
	return nil
}
