//go:build linux

package sshd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"backendai/internal/control"
)

const (
	folderName     = ".ssh"
	authorizedName = "authorized_keys"
	// IdentityName is the file in the home with the session's private key.
	IdentityName = "id_container"

	maxAuthorized = 1 << 20 // bytes of an authorized_keys file
	maxRepaired   = 1000    // files in .ssh whose modes are looked at
)

// Keys says whose keys open a session. Made by PrepareKeys.
type Keys struct {
	// Own tells that the session's own key logs in and that ~/id_container
	// has it; else the user's authorized_keys decides alone.
	Own bool

	home string
	own  []byte
}

// PrepareKeys lays out the keys of a session at launch (API section 13.1):
//
//   - ~/.ssh/authorized_keys exists: it decides, its content stays as it is,
//     modes of the folder's files are repaired, and no id_container is made.
//   - else cfg.AuthorizedKeys log in, from memory, and cfg.PrivateKey is
//     written to ~/id_container with mode 0600; ~/.ssh is made with mode 0700
//     where it is absent, and nothing is written into it.
//
// An id_container that an earlier start of the session made keeps its key
// valid. A file or folder that is a symbolic link, belongs to someone else or
// is no regular file is not used, and log says so. Beside an error there are
// Keys all the same: those that need no file.
func PrepareKeys(home string, cfg control.SSH, log *slog.Logger) (*Keys, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keys{home: home}
	own := []byte(strings.Join(cfg.AuthorizedKeys, "\n") + "\n")
	root, err := os.OpenRoot(home)
	if err != nil {
		k.Own, k.own = true, own
		return k, fmt.Errorf("open home: %w", err)
	}
	defer func() { _ = root.Close() }()

	if err := root.Mkdir(folderName, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		log.Warn("make .ssh folder", "err", err)
	}
	repair(home, log)
	_, err = readAuthorized(home)
	if err == nil {
		if made, _ := readIdentity(root); made != "" && made == cfg.PrivateKey {
			k.Own, k.own = true, own
		}
		log.Info("ssh keys come from the user's authorized_keys", "own_key", k.Own)
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("authorized_keys is not used; the session's own key is", "err", err)
	}
	k.Own, k.own = true, own
	if cfg.PrivateKey == "" {
		return k, nil
	}
	if err := writeIdentity(root, cfg.PrivateKey); err != nil {
		return k, fmt.Errorf("write %s: %w", IdentityName, err)
	}
	return k, nil
}

// Authorized returns the lines that are valid now: the session's own key where
// it counts, and the user's file as it is at this moment.
func (k *Keys) Authorized() ([]byte, error) {
	lines, err := readAuthorized(k.home)
	if err != nil && k.Own {
		return k.own, nil // a broken file locks nobody out of the session's own key
	}
	if err != nil {
		return nil, err
	}
	if k.Own {
		lines = append(append([]byte{}, k.own...), lines...)
	}
	return lines, nil
}

func readIdentity(root *os.Root) (string, error) {
	info, err := root.Lstat(IdentityName)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxAuthorized {
		return "", err
	}
	text, err := root.ReadFile(IdentityName)
	return string(text), err
}

// writeIdentity replaces whatever has the name, a symbolic link too, by a new
// file. The name appears with its whole content.
func writeIdentity(root *os.Root, key string) error {
	const fresh = "." + IdentityName + ".new"
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, key)
	return errors.Join(err, f.Chmod(0o600), f.Close(), root.Rename(fresh, IdentityName))
}

// openFolder opens ~/.ssh itself, not where a link leads.
func openFolder(home string) (*os.File, error) {
	path := filepath.Join(home, folderName)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openEntry opens a regular file in folder that is ours or root's.
func openEntry(folder *os.File, name string) (*os.File, error) {
	path := filepath.Join(folder.Name(), name)
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", path, err), f.Close())
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", path), f.Close())
	}
	if !trusted(stat.Uid) {
		return nil, errors.Join(fmt.Errorf("%s belongs to user id %d", path, stat.Uid), f.Close())
	}
	return f, nil
}

// trusted tells whether what uid wrote may decide who logs in.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// readAuthorized reads the user's file. Its mode is repaired where that is
// possible and otherwise no reason to refuse it: a session has one user.
func readAuthorized(home string) ([]byte, error) {
	folder, err := openFolder(home)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("stat %s: %w", folder.Name(), err)
	}
	if !trusted(stat.Uid) {
		return nil, fmt.Errorf("%s belongs to user id %d", folder.Name(), stat.Uid)
	}
	f, err := openEntry(folder, authorizedName)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines, err := io.ReadAll(io.LimitReader(f, maxAuthorized+1))
	if err == nil && len(lines) > maxAuthorized {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), maxAuthorized)
	}
	return lines, err
}

// repair takes the group's and others' rights from ~/.ssh and the files in it,
// which ssh refuses to use otherwise. Public keys stay readable. What cannot be
// repaired, as on a read-only folder, is only logged.
func repair(home string, log *slog.Logger) {
	folder, err := openFolder(home)
	if err != nil {
		log.Warn("ssh folder is not used", "err", err)
		return
	}
	defer func() { _ = folder.Close() }()
	if err := narrow(folder, 0o077); err != nil {
		log.Warn("repair mode of .ssh", "err", err)
	}
	entries, err := folder.ReadDir(maxRepaired)
	if err != nil && !errors.Is(err, io.EOF) {
		log.Warn("list .ssh", "err", err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		mask := fs.FileMode(0o077)
		if strings.HasSuffix(entry.Name(), ".pub") {
			mask = 0o022
		}
		if err := narrowEntry(folder, entry.Name(), mask); err != nil {
			log.Warn("repair mode of a file in .ssh", "err", err)
		}
	}
}

func narrowEntry(folder *os.File, name string, mask fs.FileMode) error {
	f, err := openEntry(folder, name)
	if err != nil {
		return err
	}
	return errors.Join(narrow(f, mask), f.Close())
}

// narrow removes the bits of mask from f's mode where any is set.
func narrow(f *os.File, mask fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode()&mask == 0 {
		return err
	}
	return f.Chmod(info.Mode().Perm() &^ mask)
}
