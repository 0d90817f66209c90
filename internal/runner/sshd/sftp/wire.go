//go:build linux

package sftp

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// Status codes of section 7 of the draft.
const (
	statusOK          = 0
	statusEOF         = 1
	statusNoFile      = 2
	statusDenied      = 3
	statusFailure     = 4
	statusBadMessage  = 5
	statusUnsupported = 8
)

var (
	errUnsupported = errors.New("operation unsupported")
	errMalformed   = errors.New("bad message")
	errHandle      = errors.New("no such handle")
	errTooMany     = errors.New("too many open files")
	errNoPath      = errors.New("bad path")
)

// code is the status that tells err. Version 3 has few.
func code(err error) uint32 {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, io.EOF):
		return statusEOF
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return statusNoFile
	case errors.Is(err, fs.ErrPermission):
		return statusDenied
	case errors.Is(err, errMalformed):
		return statusBadMessage
	case errors.Is(err, errUnsupported), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
		return statusUnsupported
	default:
		return statusFailure
	}
}

// message is what people read: the system's own words, without our path.
func message(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return "Success"
	case errors.Is(err, io.EOF):
		return "End of file"
	case errors.As(err, &number):
		return number.Error()
	default:
		return err.Error()
	}
}

// fields reads the fields of a packet in order. A field that is not there is
// empty and sets short.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) take(n uint64) []byte {
	if uint64(len(f.rest)) < n {
		f.short, f.rest = true, nil
		return nil
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) uint32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (f *fields) bytes() []byte { return f.take(uint64(f.uint32())) }

func (f *fields) string() string { return string(f.bytes()) }

// begin starts an answer and returns where; end writes its length there.
func (s *server) begin(kind byte, id uint32) int {
	at := len(s.reply)
	s.reply = append(s.reply, 0, 0, 0, 0, kind)
	s.uint32(id)
	return at
}

func (s *server) end(at int) {
	binary.BigEndian.PutUint32(s.reply[at:], uint32(len(s.reply)-at-4))
}

func (s *server) uint32(n uint32) { s.reply = binary.BigEndian.AppendUint32(s.reply, n) }
func (s *server) uint64(n uint64) { s.reply = binary.BigEndian.AppendUint64(s.reply, n) }

func (s *server) string(text string) {
	s.uint32(uint32(len(text)))
	s.reply = append(s.reply, text...)
}

func (s *server) status(id uint32, err error) {
	at := s.begin(typeStatus, id)
	s.uint32(code(err))
	s.string(message(err))
	s.string("en")
	s.end(at)
}

// version answers INIT with what is spoken here.
func (s *server) version() {
	at := s.begin(typeVersion, 3) // the version stands where others have their id
	for _, e := range extensions {
		s.string(e.name)
		s.string(e.version)
	}
	s.end(at)
}
