//go:build linux

package sftp

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of section 5 of the draft.
const (
	attrSize     = 0x00000001
	attrOwner    = 0x00000002
	attrMode     = 0x00000004
	attrTimes    = 0x00000008
	attrExtended = 0x80000000
)

// attributes are those that a request sets.
type attributes struct {
	flags    uint32
	size     uint64
	uid, gid uint32
	mode     uint32
	accessed uint32
	modified uint32
}

func (f *fields) attributes() attributes {
	a := attributes{flags: f.uint32()}
	if a.flags&attrSize != 0 {
		a.size = f.uint64()
	}
	if a.flags&attrOwner != 0 {
		a.uid, a.gid = f.uint32(), f.uint32()
	}
	if a.flags&attrMode != 0 {
		a.mode = f.uint32()
	}
	if a.flags&attrTimes != 0 {
		a.accessed, a.modified = f.uint32(), f.uint32()
	}
	if a.flags&attrExtended != 0 {
		for count := f.uint32(); count > 0 && !f.short; count-- {
			f.bytes()
			f.bytes()
		}
	}
	return a
}

// permissions is the mode to make a file with.
func (a attributes) permissions(otherwise uint32) uint32 {
	if a.flags&attrMode == 0 {
		return otherwise
	}
	return a.mode & 0o7777
}

// target is where attributes go: a file by name, or by descriptor when fd is
// set, itself or what it points to.
type target struct {
	path string
	fd   int // -1 for a path
	link bool
}

// apply sets what the flags name, as far as it can, and returns what failed.
// Size goes first, since it changes the times.
func (a attributes) apply(t target) error {
	var failed []error
	if a.flags&attrSize != 0 {
		failed = append(failed, t.truncate(a.size))
	}
	if a.flags&attrMode != 0 {
		failed = append(failed, t.chmod(a.mode&0o7777))
	}
	if a.flags&attrTimes != 0 {
		failed = append(failed, t.touch(a.accessed, a.modified))
	}
	if a.flags&attrOwner != 0 {
		failed = append(failed, t.chown(int(a.uid), int(a.gid)))
	}
	return errors.Join(failed...)
}

func (t target) truncate(size uint64) error {
	switch {
	case size > 1<<63-1:
		return unix.EFBIG
	case t.link:
		return errUnsupported
	case t.fd >= 0:
		return unix.Ftruncate(t.fd, int64(size))
	}
	return unix.Truncate(t.path, int64(size))
}

func (t target) chmod(mode uint32) error {
	switch {
	case t.fd >= 0:
		return unix.Fchmod(t.fd, mode)
	case t.link:
		return unix.Fchmodat(unix.AT_FDCWD, t.path, mode, unix.AT_SYMLINK_NOFOLLOW)
	}
	return unix.Chmod(t.path, mode)
}

func (t target) touch(accessed, modified uint32) error {
	times := []unix.Timespec{{Sec: int64(accessed)}, {Sec: int64(modified)}}
	if t.fd >= 0 {
		path := "/proc/self/fd/" + strconv.Itoa(t.fd)
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0)
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, t.path, times, t.flags())
}

func (t target) chown(uid, gid int) error {
	if t.fd >= 0 {
		return unix.Fchown(t.fd, uid, gid)
	}
	return unix.Fchownat(unix.AT_FDCWD, t.path, uid, gid, t.flags())
}

func (t target) flags() int {
	if t.link {
		return unix.AT_SYMLINK_NOFOLLOW
	}
	return 0
}

// attributes writes a file's attributes.
func (s *server) attributes(stat *unix.Stat_t) {
	s.uint32(attrSize | attrOwner | attrMode | attrTimes)
	s.uint64(uint64(stat.Size))
	s.uint32(stat.Uid)
	s.uint32(stat.Gid)
	s.uint32(stat.Mode)
	s.uint32(uint32(stat.Atim.Sec))
	s.uint32(uint32(stat.Mtim.Sec))
}

// longName is a line as of "ls -l", which is what clients show of version 3.
func (s *server) longName(name string, stat *unix.Stat_t, now time.Time) string {
	owner, group := s.userName(stat.Uid), s.groupName(stat.Gid)
	if owner == "" {
		owner = strconv.FormatUint(uint64(stat.Uid), 10)
	}
	if group == "" {
		group = strconv.FormatUint(uint64(stat.Gid), 10)
	}
	modified := time.Unix(stat.Mtim.Sec, 0)
	when := modified.Format("Jan _2 15:04")
	if age := now.Sub(modified); age < 0 || age > 365*24*time.Hour/2 {
		when = modified.Format("Jan _2  2006")
	}
	return fmt.Sprintf("%s %3d %-8s %-8s %8d %s %s", modeString(stat.Mode), stat.Nlink, owner, group, stat.Size, when, name)
}

// modeString is the first column of "ls -l".
func modeString(mode uint32) string {
	const kinds = "?pc?d?b?-?l?s???"
	text := []byte("?rwxrwxrwx")
	text[0] = kinds[mode>>12&15]
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			text[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		char byte
	}{{unix.S_ISUID, 3, 's'}, {unix.S_ISGID, 6, 's'}, {unix.S_ISVTX, 9, 't'}} {
		if mode&special.bit == 0 {
			continue
		}
		if text[special.at] == '-' {
			special.char -= 'a' - 'A'
		}
		text[special.at] = special.char
	}
	return string(text)
}

// statFile is stat(2) of an open file.
func statFile(f *os.File) (*unix.Stat_t, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return nil, err
	}
	return &stat, nil
}
