//go:build linux

package sshd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// terminal is the pseudo-terminal of a session channel.
type terminal struct {
	term   string
	master *os.File
	slave  *os.File // closed once a program has it
	once   sync.Once
}

// openPTY serves pty-req (RFC 4254 section 6.2).
func (s *session) openPTY(payload []byte) bool {
	var want struct {
		Term          string
		Columns, Rows uint32
		Width, Height uint32
		Modes         string
	}
	if ssh.Unmarshal(payload, &want) != nil || s.conn.grant.noPTY || s.pty != nil || s.started {
		return false
	}
	if len(want.Term) > 256 || strings.ContainsAny(want.Term, "\x00=") {
		return false
	}
	master, slave, err := pty.Open()
	if err != nil {
		s.conn.log.Warn("open terminal", "err", err)
		return false
	}
	t := &terminal{term: want.Term, master: master, slave: slave}
	if err := errors.Join(t.setModes([]byte(want.Modes)), t.setSize(want.Columns, want.Rows, want.Width, want.Height)); err != nil {
		s.conn.log.Info("set terminal modes", "err", err)
	}
	s.pty = t
	return true
}

func (t *terminal) name() string { return t.slave.Name() }

func (t *terminal) closeSlave() { t.once.Do(func() { _ = t.slave.Close() }) }

func (t *terminal) close() {
	t.closeSlave()
	_ = t.master.Close()
}

// resize serves window-change (RFC 4254 section 6.7).
func (t *terminal) resize(payload []byte) error {
	var size struct{ Columns, Rows, Width, Height uint32 }
	if err := ssh.Unmarshal(payload, &size); err != nil {
		return err
	}
	return t.setSize(size.Columns, size.Rows, size.Width, size.Height)
}

func (t *terminal) setSize(columns, rows, width, height uint32) error {
	short := func(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }
	raw, err := t.master.SyscallConn() // unlike Fd, it may be used while another goroutine closes the file
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	size := &unix.Winsize{Row: short(rows), Col: short(columns), Xpixel: short(width), Ypixel: short(height)}
	if e := raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// Opcodes of RFC 4254 section 8 and RFC 8160, by what they change.
var (
	controlChars = map[byte]int{
		1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
		8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
		16: unix.VSWTC, 18: unix.VDISCARD,
	}
	inputFlags = map[byte]uint32{
		30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR,
		36: unix.ICRNL, 37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL, 42: unix.IUTF8,
	}
	localFlags = map[byte]uint32{
		50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL,
		57: unix.NOFLSH, 58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
	}
	outputFlags = map[byte]uint32{
		70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET,
	}
	characterSizes = map[byte]uint32{90: unix.CS7, 91: unix.CS8}
	parityFlags    = map[byte]uint32{92: unix.PARENB, 93: unix.PARODD}
)

// disabled is the value of a control character that the client does not want.
const disabled = 255

// setModes applies encoded terminal modes. Line speeds mean nothing on a
// pseudo-terminal and are passed over; unknown opcodes are too.
func (t *terminal) setModes(modes []byte) error {
	raw, err := t.slave.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var tio *unix.Termios
		if tio, failed = unix.IoctlGetTermios(int(fd), unix.TCGETS); failed != nil {
			return
		}
		applyModes(tio, modes)
		failed = unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
	})
	return errors.Join(err, failed)
}

func applyModes(tio *unix.Termios, modes []byte) {
	for len(modes) >= 5 && modes[0] > 0 && modes[0] < 160 { // 0 ends; from 160 on the arguments' form is open
		op, value := modes[0], binary.BigEndian.Uint32(modes[1:])
		modes = modes[5:]
		if index, ok := controlChars[op]; ok {
			tio.Cc[index] = byte(value)
			if value == disabled {
				tio.Cc[index] = 0 // _POSIX_VDISABLE
			}
		}
		toggle(&tio.Iflag, inputFlags[op], value)
		toggle(&tio.Lflag, localFlags[op], value)
		toggle(&tio.Oflag, outputFlags[op], value)
		toggle(&tio.Cflag, parityFlags[op], value)
		if size, ok := characterSizes[op]; ok && value != 0 {
			tio.Cflag = tio.Cflag&^unix.CSIZE | size
		}
	}
}

func toggle(flags *uint32, bit, value uint32) {
	if value != 0 {
		*flags |= bit
	} else {
		*flags &^= bit
	}
}
