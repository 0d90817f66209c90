//go:build linux

package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
)

// Bounds, told to clients through limits@openssh.com. They are those of
// OpenSSH's sftp-server, so that clients which only know that one fit too.
const (
	maxPacket  = 256 << 10
	maxData    = maxPacket - maxHeader // of one READ or WRITE
	maxHandles = 1024

	maxHeader   = 1 << 10   // of what is not data in a packet
	firstBuffer = 128 << 10 // until a client sends packets that need more
)

// Packet types of section 3 of the draft.
const (
	typeInit          = 1
	typeVersion       = 2
	typeOpen          = 3
	typeClose         = 4
	typeRead          = 5
	typeWrite         = 6
	typeLstat         = 7
	typeFstat         = 8
	typeSetstat       = 9
	typeFsetstat      = 10
	typeOpendir       = 11
	typeReaddir       = 12
	typeRemove        = 13
	typeMkdir         = 14
	typeRmdir         = 15
	typeRealpath      = 16
	typeStat          = 17
	typeRename        = 18
	typeReadlink      = 19
	typeSymlink       = 20
	typeStatus        = 101
	typeHandle        = 102
	typeData          = 103
	typeName          = 104
	typeAttrs         = 105
	typeExtended      = 200
	typeExtendedReply = 201
)

// Options of Serve.
type Options struct {
	Home   string       // where relative paths start
	Logger *slog.Logger // nil discards
}

// server serves one channel; a single goroutine uses it.
type server struct {
	home string
	log  *slog.Logger
	out  io.Writer

	reply   []byte // answers that are not yet sent
	handles map[string]*handle
	next    uint64
	names   map[uint32]string // of users, for long listings
	groups  map[uint32]string
}

// handle is an open file or folder.
type handle struct {
	file    *os.File
	append  bool
	folder  bool
	pending []os.DirEntry // read but not yet sent
	ended   bool          // the folder has no more
}

// Serve answers the requests of one client until rw ends, which is no error,
// or the client breaks the protocol. It closes every file, not rw.
func Serve(rw io.ReadWriter, opts Options) error {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &server{
		home: opts.Home, log: opts.Logger, out: rw,
		handles: map[string]*handle{},
		names:   map[uint32]string{},
		groups:  map[uint32]string{},
	}
	defer s.closeAll()
	return s.loop(rw)
}

// loop reads as much as there is, answers every whole packet in it from where
// it lies, and sends the answers together.
func (s *server) loop(in io.Reader) error {
	buffer := make([]byte, firstBuffer)
	start, end := 0, 0
	for {
		for {
			packet, err := nextPacket(buffer[start:end])
			if err != nil {
				return err
			}
			if packet == nil {
				break
			}
			start += 4 + len(packet)
			if err := s.handle(packet); err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		buffer, start, end = compact(buffer, start, end)
		n, err := in.Read(buffer[end:])
		end += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				if start == end {
					return nil
				}
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read sftp packet: %w", err)
		}
	}
}

// compact moves an incomplete packet to where the rest of it has room.
func compact(buffer []byte, start, end int) (room []byte, newStart, newEnd int) {
	if start == end {
		return buffer, 0, 0
	}
	need := 4 + maxHeader
	if end-start >= 4 {
		need = 4 + int(binary.BigEndian.Uint32(buffer[start:])) // nextPacket has checked it
	}
	switch {
	case len(buffer)-start >= need:
		return buffer, start, end
	case len(buffer) < need:
		room = make([]byte, 2*maxPacket)
	default:
		room = buffer
	}
	return room, 0, copy(room, buffer[start:end])
}

// nextPacket returns the first whole packet in data, nil when there is none yet.
func nextPacket(data []byte) ([]byte, error) {
	if len(data) < 4 {
		return nil, nil
	}
	length := binary.BigEndian.Uint32(data)
	if length < 5 || length > maxPacket {
		return nil, fmt.Errorf("sftp packet of %d bytes", length)
	}
	if uint32(len(data)-4) < length {
		return nil, nil
	}
	return data[4 : 4+length], nil
}

// flush sends the answers so far.
func (s *server) flush() error {
	if len(s.reply) == 0 {
		return nil
	}
	_, err := s.out.Write(s.reply)
	s.reply = s.reply[:0]
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("write sftp packet: %w", err)
	}
	return err
}

// handle answers one packet. An error ends the connection.
func (s *server) handle(packet []byte) error {
	kind, body := packet[0], fields{rest: packet[1:]}
	if kind == typeInit {
		s.version()
		return nil
	}
	id := body.uint32()
	mark := len(s.reply)
	err := s.dispatch(kind, id, &body)
	if body.short {
		return fmt.Errorf("sftp packet of type %d is malformed", kind)
	}
	if err != nil {
		s.reply = s.reply[:mark]
		s.status(id, err)
	}
	if len(s.reply) >= maxPacket/2 {
		return s.flush()
	}
	return nil
}

// done answers a request that returns nothing but success.
func (s *server) done(id uint32, err error) error {
	if err == nil {
		s.status(id, nil)
	}
	return err
}

// dispatch serves a request. It writes the answer, or nothing and returns the
// error that is the answer.
func (s *server) dispatch(kind byte, id uint32, b *fields) error {
	switch kind {
	case typeOpen:
		return s.open(id, b)
	case typeClose:
		return s.done(id, s.close(b))
	case typeRead:
		return s.read(id, b)
	case typeWrite:
		return s.done(id, s.write(b))
	case typeStat, typeLstat:
		return s.stat(id, b, kind == typeLstat)
	case typeFstat:
		return s.fstat(id, b)
	case typeSetstat:
		return s.done(id, s.setstat(b, true))
	case typeFsetstat:
		return s.done(id, s.fsetstat(b))
	case typeOpendir:
		return s.opendir(id, b)
	case typeReaddir:
		return s.readdir(id, b)
	case typeRemove:
		return s.done(id, s.remove(b))
	case typeMkdir:
		return s.done(id, s.mkdir(b))
	case typeRmdir:
		return s.done(id, s.rmdir(b))
	case typeRealpath:
		return s.realpath(id, b)
	case typeRename:
		return s.done(id, s.rename(b))
	case typeReadlink:
		return s.readlink(id, b)
	case typeSymlink:
		return s.done(id, s.symlink(b))
	case typeExtended:
		return s.extended(id, b)
	default:
		return errUnsupported
	}
}

func (s *server) closeAll() {
	for _, h := range s.handles {
		_ = h.file.Close() // nobody is left to be told
	}
}

// keep gives an open file its handle.
func (s *server) keep(id uint32, h *handle) {
	s.next++
	name := strconv.FormatUint(s.next, 36)
	s.handles[name] = h
	p := s.begin(typeHandle, id)
	s.string(name)
	s.end(p)
}

// handleOf finds what a request's handle names.
func (s *server) handleOf(b *fields) (*handle, error) {
	h := s.handles[string(b.bytes())]
	if h == nil && !b.short {
		return nil, errHandle
	}
	if h == nil {
		return nil, errMalformed
	}
	return h, nil
}

func (s *server) userName(id uint32) string {
	return cached(s.names, id, func(text string) (string, error) {
		u, err := user.LookupId(text)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (s *server) groupName(id uint32) string {
	return cached(s.groups, id, func(text string) (string, error) {
		g, err := user.LookupGroupId(text)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// cached looks a name up once; an id without a name stays without.
func cached(known map[uint32]string, id uint32, find func(string) (string, error)) string {
	name, ok := known[id]
	if !ok {
		name, _ = find(strconv.FormatUint(uint64(id), 10)) // "" is an answer
		if len(known) < maxHandles {
			known[id] = name
		}
	}
	return name
}
