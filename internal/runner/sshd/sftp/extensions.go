//go:build linux

package sftp

import (
	"encoding/binary"
	"errors"
	"io"
	"os/user"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// extensions are announced in this order.
var extensions = []struct {
	name, version string
	serve         func(s *server, id uint32, b *fields) error
}{
	{"posix-rename@openssh.com", "1", func(s *server, id uint32, b *fields) error { return s.done(id, s.posixRename(b)) }},
	{"statvfs@openssh.com", "2", (*server).statvfs},
	{"fstatvfs@openssh.com", "2", (*server).fstatvfs},
	{"hardlink@openssh.com", "1", func(s *server, id uint32, b *fields) error { return s.done(id, s.hardlink(b)) }},
	{"fsync@openssh.com", "1", func(s *server, id uint32, b *fields) error { return s.done(id, s.fsync(b)) }},
	{"lsetstat@openssh.com", "1", func(s *server, id uint32, b *fields) error { return s.done(id, s.setstat(b, false)) }},
	{"limits@openssh.com", "1", (*server).limits},
	{"expand-path@openssh.com", "1", (*server).expandPath},
	{"copy-data", "1", func(s *server, id uint32, b *fields) error { return s.done(id, s.copyData(b)) }},
	{"home-directory", "1", (*server).homeDirectory},
	{"users-groups-by-id@openssh.com", "1", (*server).usersGroups},
}

func (s *server) extended(id uint32, b *fields) error {
	name := b.string()
	for _, e := range extensions {
		if e.name == name {
			return e.serve(s, id, b)
		}
	}
	return errUnsupported
}

func (s *server) posixRename(b *fields) error {
	from, to, err := s.twoPaths(b)
	if err != nil {
		return err
	}
	return unix.Rename(from, to)
}

func (s *server) hardlink(b *fields) error {
	from, to, err := s.twoPaths(b)
	if err != nil {
		return err
	}
	return unix.Link(from, to)
}

func (s *server) fsync(b *fields) error {
	h, err := s.handleOf(b)
	if err != nil {
		return err
	}
	return h.file.Sync()
}

func (s *server) statvfs(id uint32, b *fields) error {
	path, err := s.path(b)
	if err != nil {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return err
	}
	s.sendStatvfs(id, &stat)
	return nil
}

func (s *server) fstatvfs(id uint32, b *fields) error {
	h, err := s.handleOf(b)
	if err != nil {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(h.file.Fd()), &stat); err != nil {
		return err
	}
	s.sendStatvfs(id, &stat)
	return nil
}

// Flags of statvfs@openssh.com.
const (
	statvfsReadOnly = 1
	statvfsNoSetuid = 2
)

func (s *server) sendStatvfs(id uint32, stat *unix.Statfs_t) {
	var flags uint64
	if stat.Flags&unix.ST_RDONLY != 0 {
		flags |= statvfsReadOnly
	}
	if stat.Flags&unix.ST_NOSUID != 0 {
		flags |= statvfsNoSetuid
	}
	fragment := uint64(stat.Frsize)
	if fragment == 0 {
		fragment = uint64(stat.Bsize)
	}
	at := s.begin(typeExtendedReply, id)
	for _, value := range []uint64{
		uint64(stat.Bsize), fragment, stat.Blocks, stat.Bfree, stat.Bavail, stat.Files, stat.Ffree, stat.Ffree,
		uint64(uint32(stat.Fsid.Val[0])) | uint64(uint32(stat.Fsid.Val[1]))<<32, flags, uint64(stat.Namelen),
	} {
		s.uint64(value)
	}
	s.end(at)
}

func (s *server) limits(id uint32, _ *fields) error {
	at := s.begin(typeExtendedReply, id)
	for _, value := range []uint64{maxPacket, maxData, maxData, maxHandles} {
		s.uint64(value)
	}
	s.end(at)
	return nil
}

// expandPath is realpath that knows "~".
func (s *server) expandPath(id uint32, b *fields) error {
	text := b.string()
	if b.short || strings.Contains(text, "\x00") {
		return errNoPath
	}
	if name, found := strings.CutPrefix(text, "~"); found {
		name, rest, _ := strings.Cut(name, "/")
		home := s.home
		if name != "" {
			u, err := user.Lookup(name)
			if err != nil {
				return unix.ENOENT
			}
			home = u.HomeDir
		}
		text = home + "/" + rest
	}
	resolved, err := resolve(s.absolute(text))
	if err == nil {
		s.sendName(id, resolved)
	}
	return err
}

func (s *server) homeDirectory(id uint32, b *fields) error {
	name := b.string()
	home := s.home
	if name != "" && name != s.userName(uint32(unix.Geteuid())) {
		u, err := user.Lookup(name)
		if err != nil {
			return unix.ENOENT
		}
		home = u.HomeDir
	}
	s.sendName(id, home)
	return nil
}

// copyData copies within the server. Nothing else is answered meanwhile, as
// with OpenSSH.
func (s *server) copyData(b *fields) error {
	from, err := s.handleOf(b)
	fromOffset, length := b.uint64(), b.uint64()
	if err != nil {
		return err
	}
	to, err := s.handleOf(b)
	toOffset := b.uint64()
	if err != nil || b.short {
		return errors.Join(err, shortError(b))
	}
	if from.folder || to.folder || max(fromOffset, toOffset) > 1<<62 || length > 1<<62 {
		return unix.EINVAL
	}
	if stat, err := statFile(from.file); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL // a device has no end
	}
	if from == to && (length == 0 || fromOffset < toOffset+length && toOffset < fromOffset+length) {
		return unix.EINVAL // it overlaps itself
	}
	if length == 0 {
		length = 1 << 62 // to the end
	}
	src := io.NewSectionReader(from.file, int64(fromOffset), int64(length))
	n, err := io.Copy(io.NewOffsetWriter(to.file, int64(toOffset)), src)
	if err == nil && uint64(n) < length && length != 1<<62 {
		return io.EOF
	}
	return err
}

// usersGroups answers with the names of ids, empty where there is none.
func (s *server) usersGroups(id uint32, b *fields) error {
	users, groups := b.bytes(), b.bytes()
	if b.short || len(users)%4 != 0 || len(groups)%4 != 0 {
		return errMalformed
	}
	at := s.begin(typeExtendedReply, id)
	s.sendNames(users, s.userName)
	s.sendNames(groups, s.groupName)
	s.end(at)
	return nil
}

func (s *server) sendNames(ids []byte, find func(uint32) string) {
	at := len(s.reply)
	s.uint32(0)
	for group := range slices.Chunk(ids, 4) {
		s.string(find(binary.BigEndian.Uint32(group)))
	}
	putUint32(s.reply[at:], uint32(len(s.reply)-at-4))
}

// grow makes room for n more bytes, which have no defined content.
func grow(b []byte, n int) []byte { return slices.Grow(b, n)[:len(b)+n] }

func putUint32(b []byte, n uint32) { binary.BigEndian.PutUint32(b, n) }
