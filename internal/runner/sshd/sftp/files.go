//go:build linux

package sftp

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of OPEN, section 6.3 of the draft.
const (
	openRead   = 0x01
	openWrite  = 0x02
	openAppend = 0x04
	openCreate = 0x08
	openTrunc  = 0x10
	openExcl   = 0x20
)

// path reads a path; a relative one starts at the home.
func (s *server) path(b *fields) (string, error) {
	text := b.string()
	if b.short {
		return "", errMalformed
	}
	if strings.Contains(text, "\x00") {
		return "", errNoPath
	}
	return s.absolute(text), nil
}

// absolute keeps a final slash and dots: they mean something to the system.
func (s *server) absolute(text string) string {
	switch {
	case text == "":
		return s.home
	case strings.HasPrefix(text, "/"):
		return text
	}
	return s.home + "/" + text
}

func (s *server) open(id uint32, b *fields) error {
	path, err := s.path(b)
	asked, attrs := b.uint32(), b.attributes()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	if len(s.handles) >= maxHandles {
		return errTooMany
	}
	flags := unix.O_RDONLY
	switch {
	case asked&openRead != 0 && asked&openWrite != 0:
		flags = unix.O_RDWR
	case asked&openWrite != 0:
		flags = unix.O_WRONLY
	}
	for ask, flag := range map[uint32]int{openAppend: unix.O_APPEND, openCreate: unix.O_CREAT, openTrunc: unix.O_TRUNC, openExcl: unix.O_EXCL} {
		if asked&ask != 0 {
			flags |= flag
		}
	}
	// Without O_NONBLOCK, opening a pipe that nobody writes would block all else.
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, attrs.permissions(0o666))
	})
	if err != nil {
		return err
	}
	s.keep(id, &handle{file: os.NewFile(uintptr(fd), path), append: asked&openAppend != 0})
	return nil
}

func shortError(b *fields) error {
	if b.short {
		return errMalformed
	}
	return nil
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (s *server) close(b *fields) error {
	name := b.string()
	h := s.handles[name]
	if h == nil {
		return errHandle
	}
	delete(s.handles, name)
	return h.file.Close()
}

// read appends the data to the answers directly.
func (s *server) read(id uint32, b *fields) error {
	h, err := s.handleOf(b)
	offset, length := b.uint64(), b.uint32()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	if h.folder || offset > 1<<63-1 {
		return unix.EINVAL
	}
	at := s.begin(typeData, id)
	s.uint32(0)
	header := len(s.reply)
	want := int(min(length, maxData))
	s.reply = grow(s.reply, want)
	n, err := ignoringEINTR(func() (int, error) {
		return unix.Pread(int(h.file.Fd()), s.reply[header:header+want], int64(offset))
	})
	if err != nil {
		return err
	}
	if n == 0 && want > 0 {
		return io.EOF
	}
	s.reply = s.reply[:header+n]
	putUint32(s.reply[header-4:], uint32(n))
	s.end(at)
	return nil
}

func (s *server) write(b *fields) error {
	h, err := s.handleOf(b)
	offset, data := b.uint64(), b.bytes()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	if h.folder || offset > 1<<63-1 {
		return unix.EINVAL
	}
	for len(data) > 0 {
		n, err := ignoringEINTR(func() (int, error) {
			if h.append { // the end is where it is now; the offset means nothing
				return unix.Write(int(h.file.Fd()), data)
			}
			return unix.Pwrite(int(h.file.Fd()), data, int64(offset))
		})
		if err != nil {
			return err
		}
		data, offset = data[n:], offset+uint64(n)
	}
	return nil
}

func (s *server) sendAttributes(id uint32, stat *unix.Stat_t) {
	at := s.begin(typeAttrs, id)
	s.attributes(stat)
	s.end(at)
}

func (s *server) stat(id uint32, b *fields, link bool) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if link {
		err = unix.Lstat(path, &stat)
	} else {
		err = unix.Stat(path, &stat)
	}
	if err == nil {
		s.sendAttributes(id, &stat)
	}
	return err
}

func (s *server) fstat(id uint32, b *fields) error {
	h, err := s.handleOf(b)
	if err != nil {
		return err
	}
	stat, err := statFile(h.file)
	if err == nil {
		s.sendAttributes(id, stat)
	}
	return err
}

// setstat is SETSTAT, or lsetstat@openssh.com when it does not follow links.
func (s *server) setstat(b *fields, follow bool) error {
	path, err := s.path(b)
	attrs := b.attributes()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	return attrs.apply(target{path: path, fd: -1, link: !follow})
}

func (s *server) fsetstat(b *fields) error {
	h, err := s.handleOf(b)
	attrs := b.attributes()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	return attrs.apply(target{fd: int(h.file.Fd())})
}

func (s *server) opendir(id uint32, b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	if len(s.handles) >= maxHandles {
		return errTooMany
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	h := &handle{file: os.NewFile(uintptr(fd), path), folder: true}
	s.keep(id, h)
	return nil
}

// Of one READDIR: so many names, and no more bytes than leave room for another.
const (
	maxNames     = 256
	maxNameBytes = 64 << 10
)

// readdir sends the next names. What was read from the folder and does not fit
// stays for the next request, so that memory is flat.
func (s *server) readdir(id uint32, b *fields) error {
	h, err := s.handleOf(b)
	if err != nil {
		return err
	}
	if !h.folder {
		return unix.ENOTDIR
	}
	at := s.begin(typeName, id)
	counter := len(s.reply)
	s.uint32(0)
	var count uint32
	now := time.Now()
	if h.pending == nil && !h.ended {
		for _, name := range []string{".", ".."} {
			count += s.entry(h, name, now)
		}
	}
	for count < maxNames && len(s.reply)-at < maxNameBytes && !h.ended {
		if len(h.pending) == 0 {
			h.pending, err = h.file.ReadDir(maxNames)
			if len(h.pending) == 0 {
				h.ended = true
				if err != nil && !errors.Is(err, io.EOF) && count == 0 {
					return err
				}
				break
			}
		}
		count += s.entry(h, h.pending[0].Name(), now)
		h.pending = h.pending[1:]
	}
	if count == 0 {
		return io.EOF
	}
	putUint32(s.reply[counter:], count)
	s.end(at)
	return nil
}

// entry adds a name to a listing and returns how many it added: a file that is
// gone by now is none.
func (s *server) entry(h *handle, name string, now time.Time) uint32 {
	var stat unix.Stat_t
	if err := unix.Fstatat(int(h.file.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0
	}
	s.string(name)
	s.string(s.longName(name, &stat, now))
	s.attributes(&stat)
	return 1
}

func (s *server) remove(b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	return unix.Unlink(path)
}

func (s *server) mkdir(b *fields) error {
	path, err := s.path(b)
	attrs := b.attributes()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	return unix.Mkdir(path, attrs.permissions(0o777))
}

func (s *server) rmdir(b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	return unix.Rmdir(path)
}

// sendName answers with one name and no attributes.
func (s *server) sendName(id uint32, name string) {
	at := s.begin(typeName, id)
	s.uint32(1)
	s.string(name)
	s.string(name)
	s.uint32(0)
	s.end(at)
}

// realpath makes a path absolute and free of links. As with OpenSSH, the last
// part need not exist.
func (s *server) realpath(id uint32, b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	resolved, err := resolve(path)
	if err == nil {
		s.sendName(id, resolved)
	}
	return err
}

func resolve(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	path = strings.TrimRight(path, "/")
	dir, last := filepath.Split(path)
	if last == "" || last == "." || last == ".." {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, last), nil
}

// rename does not replace: section 6.5 of the draft. posix-rename@openssh.com does.
func (s *server) rename(b *fields) error {
	from, to, err := s.twoPaths(b)
	if err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// The file system cannot do it in one step.
	var stat unix.Stat_t
	if unix.Lstat(to, &stat) == nil {
		return unix.EEXIST
	}
	return unix.Rename(from, to)
}

func (s *server) twoPaths(b *fields) (first, second string, err error) {
	first, err = s.path(b)
	if err != nil {
		return "", "", err
	}
	second, err = s.path(b)
	return first, second, err
}

func (s *server) readlink(id uint32, b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	to, err := os.Readlink(path)
	if err == nil {
		s.sendName(id, to)
	}
	return err
}

// symlink has its arguments the way OpenSSH has them, and so everyone: what the
// link says first, against the draft (PROTOCOL section 4.1).
func (s *server) symlink(b *fields) error {
	to := b.string()
	link, err := s.path(b)
	if err != nil {
		return err
	}
	if to == "" || strings.Contains(to, "\x00") {
		return errNoPath
	}
	return unix.Symlink(to, link)
}
