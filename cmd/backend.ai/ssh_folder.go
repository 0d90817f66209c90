package main

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"backendai"
	"backendai/internal/client"
)

// sshFolder is the folder in which OpenSSH's programs find what they must know
// of sessions. It is readable by its owner alone, and a session's part of it is
// named after the session's id, which is never used again:
//
//	sessions/ID/known_hosts    the session's host key, under the alias ID
//	sessions/ID/id_container   the session's own key for logging in, if it has one
//	hosts/REF.conf             what "ssh REF.backend.ai" uses of them
//	config                     what ~/.ssh/config includes
//
// Every file is replaced as a whole. A host key that has been seen stays: a
// session that shows another one is refused.
type sshFolder struct {
	path string // absolute, with slashes
	root *os.Root
}

const (
	sshFolderName  = "ssh"
	identityFile   = "id_container"
	knownHostsFile = "known_hosts"
	hostKeyType    = "ssh-ed25519"
	hostSuffix     = ".backend.ai"
	maxIdentity    = 64 << 10 // bytes of a private key
)

// unfitRE finds what a path cannot have to stand in OpenSSH's configuration and
// between the quotes of a shell.
var unfitRE = regexp.MustCompile(`["'%$` + "`" + `\\\x00-\x1f\x7f]`)

// openSSHFolder opens the folder at dir, or where it is by default, and makes
// it if need be. The caller closes it.
func (e *env) openSSHFolder(dir string) (*sshFolder, error) {
	if dir == "" {
		state, err := client.StateDir(e.getenv)
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(state, sshFolderName)
	}
	path, err := configPath(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for keys: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder for keys: %w", err)
	}
	f := &sshFolder{path, root}
	if err := cmp.Or(root.Chmod(".", 0o700), root.MkdirAll("sessions", 0o700), root.MkdirAll("hosts", 0o700)); err != nil {
		return nil, errors.Join(fmt.Errorf("make folder for keys: %w", err), root.Close())
	}
	return f, nil
}

// configPath is a path as OpenSSH's configuration can have it.
func configPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find folder %q: %w", path, err)
	}
	abs = filepath.ToSlash(abs)
	if unfitRE.MatchString(abs) || runtime.GOOS == "windows" && strings.Contains(abs, " ") {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "the path %q has a character that the configuration of OpenSSH cannot have", abs).
			WithHint("XDG_STATE_HOME names another folder for what belongs to sessions; the program itself must be at a plain path too")
	}
	return abs, nil
}

// close gives the folder back; it has nothing that could be lost.
func (f *sshFolder) close() { _ = f.root.Close() }

// in is the path of a file in the folder, for OpenSSH.
func (f *sshFolder) in(elements ...string) string {
	return strings.Join(append([]string{f.path}, elements...), "/")
}

// sshSession is what an SSH client needs to know of a session.
type sshSession struct {
	id, name string
	own      bool // it has a key of its own for logging in
}

// sshAnswer is what the server says of a session's SSH.
type sshAnswer struct {
	session  sshSession
	hostKeys []string // in the form of authorized_keys
	identity []byte   // private key for logging in; nil when the session has none
}

// askSSH asks the server for the host keys and the login key of a session.
func askSSH(ctx context.Context, c *client.Client, ref string) (a sshAnswer, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var identityErr error
	var asking sync.WaitGroup
	asking.Go(func() { a.identity, identityErr = downloadIdentity(ctx, c, ref) })
	keys, err := c.HostKeys(ctx, ref)
	if err != nil {
		cancel()
	}
	asking.Wait()
	cancel()
	switch {
	case err != nil:
		return a, err
	case identityErr != nil:
		return a, identityErr
	case !uuidRE.MatchString(keys.ID) || backendai.ValidateSessionName(keys.Name) != nil:
		return a, backendai.Errorf(backendai.CodeInternal, "the server gives session %q the id %q and the name %q, which are none", ref, keys.ID, keys.Name)
	}
	a.session, a.hostKeys = sshSession{id: strings.ToLower(keys.ID), name: keys.Name, own: a.identity != nil}, keys.Keys
	return a, nil
}

// prepare asks for what belongs to a session and keeps it.
func (f *sshFolder) prepare(ctx context.Context, c *client.Client, ref string) (sshSession, error) {
	a, err := askSSH(ctx, c, ref)
	if err == nil {
		err = f.keep(a)
	}
	return a.session, err
}

// keep puts what the server has said into the folder.
func (f *sshFolder) keep(a sshAnswer) error {
	s := a.session
	if err := f.root.MkdirAll("sessions/"+s.id, 0o700); err != nil {
		return fmt.Errorf("make folder for keys: %w", err)
	}
	if err := f.pin(s, a.hostKeys); err != nil {
		return err
	}
	name := "sessions/" + s.id + "/" + identityFile
	if s.own {
		if err := f.write(name, a.identity); err != nil {
			return err
		}
	} else if err := f.remove(name); err != nil {
		return err
	}
	return f.lead(s.name, s)
}

// pin keeps the host key of a session, or checks that it is the one that was kept.
func (f *sshFolder) pin(s sshSession, keys []string) error {
	key := ""
	for _, text := range keys {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err == nil && public.Type() == hostKeyType {
			key = s.id + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + "\n"
		}
	}
	if key == "" {
		return backendai.Errorf(backendai.CodeInternal, "the server tells no host key of session %s of the kind %s", s.name, hostKeyType)
	}
	name := "sessions/" + s.id + "/" + knownHostsFile
	old, err := f.root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.write(name, []byte(key))
	case err != nil:
		return fmt.Errorf("read host key: %w", err)
	case string(old) != key:
		return backendai.Errorf(backendai.CodeAuthFailed, "the host key of session %s (%s) is not the one that it had before", s.name, s.id).
			WithHint("someone may stand between you and the server; if you know why it has changed, remove %s", f.in("sessions", s.id))
	}
	return nil
}

// downloadIdentity fetches a session's own key for logging in. A session that
// uses the user's .ssh folder has none. What is no private key is not taken:
// the file comes out of the session.
func downloadIdentity(ctx context.Context, c *client.Client, ref string) (key []byte, err error) {
	err = c.Download(ctx, ref, []string{identityFile}, func(_ string, archive io.Reader) error {
		r := tar.NewReader(io.LimitReader(archive, 2*maxIdentity))
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("read %s: %w", identityFile, err)
		}
		text, err := io.ReadAll(io.LimitReader(r, maxIdentity))
		if err != nil {
			return fmt.Errorf("read %s: %w", identityFile, err)
		}
		if _, err := ssh.ParsePrivateKey(text); err != nil || h.Typeflag != tar.TypeReg {
			return backendai.Errorf(backendai.CodeInvalidParams, "the file %s of session %s is not a private key", identityFile, ref)
		}
		key = text
		return nil
	})
	if code := backendai.CodeOf(err); code == backendai.CodeInvalidParams || code == backendai.CodeNotFound {
		return nil, nil // whether the session itself exists, the host keys tell
	}
	return key, err
}

// write replaces a file as a whole.
func (f *sshFolder) write(name string, content []byte) error {
	if old, err := f.root.ReadFile(name); err == nil && string(old) == string(content) {
		return nil
	}
	next := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	err := f.root.WriteFile(next, content, 0o600)
	if err == nil {
		err = f.root.Rename(next, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.in(name), errors.Join(err, f.remove(next)))
	}
	return nil
}

func (f *sshFolder) remove(name string) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", f.in(name), err)
	}
	return nil
}

// lead makes a host lead to a session. What belongs to the session that it led
// to before goes if no other host leads there.
func (f *sshFolder) lead(host string, s sshSession) error {
	before := f.idOf(host)
	if err := f.write("hosts/"+host+confSuffix, []byte(f.hostConfig(host, s))); err != nil {
		return err
	}
	if before == "" || before == s.id {
		return nil
	}
	others, err := f.hostsOf(before)
	if err != nil || len(others) > 0 {
		return err
	}
	return f.removeSession(before)
}

// forget removes all that belongs to a session, which is named by its id or by
// a host that leads to it.
func (f *sshFolder) forget(ref string) error {
	id := strings.ToLower(ref)
	if !uuidRE.MatchString(ref) {
		if !hostRE.MatchString(ref) {
			return nil
		}
		id = f.idOf(ref)
	}
	if id == "" {
		return nil
	}
	hosts, err := f.hostsOf(id)
	for _, h := range hosts {
		err = errors.Join(err, f.remove("hosts/"+h+confSuffix))
	}
	return errors.Join(err, f.removeSession(id))
}

func (f *sshFolder) removeSession(id string) error {
	if err := f.root.RemoveAll("sessions/" + id); err != nil {
		return fmt.Errorf("remove the keys of session %s: %w", id, err)
	}
	return nil
}

// hostsOf lists the hosts that lead to a session.
func (f *sshFolder) hostsOf(id string) (hosts []string, err error) {
	files, err := fs.ReadDir(f.root.FS(), "hosts")
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	for _, file := range files {
		if host, ok := strings.CutSuffix(file.Name(), confSuffix); ok && f.idOf(host) == id {
			hosts = append(hosts, host)
		}
	}
	return hosts, nil
}

// idOf is the id of the session that a host leads to; empty when there is none.
func (f *sshFolder) idOf(host string) string {
	text, err := f.root.ReadFile("hosts/" + host + confSuffix)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "HostKeyAlias ")
	id, _, _ := strings.Cut(rest, "\n")
	if !uuidRE.MatchString(id) {
		return ""
	}
	return id
}

// forgetSSH removes what is kept for the SSH of a session that is no more.
func (e *env) forgetSSH(ref string) error {
	state, err := client.StateDir(e.getenv)
	if err != nil {
		return nil // without a home nothing is kept
	}
	dir := filepath.Join(state, sshFolderName)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	folder, err := e.openSSHFolder(dir)
	if err != nil {
		return err
	}
	defer folder.close()
	return folder.forget(ref)
}
