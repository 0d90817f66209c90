//go:build linux

package sshd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	serverVersion = "SSH-2.0-backend.ai"
	// greetingSize is the longest list in a KEXINIT that is looked at.
	greetingSize = 8 << 10
	// readSize is what one read from the client takes: several packets' worth.
	readSize = 64 << 10
	// writerSize is how much the SSH package gathers before it writes.
	writerSize = 4096
	// offerTime is how long a client may take to say what it knows. There are
	// some that wait for the server's word first.
	offerTime = 300 * time.Millisecond

	msgKexInit = 20
)

// greeted is a connection whose first bytes have been looked at.
type greeted struct {
	net.Conn
	from *bufio.Reader
	raw  syscall.RawConn // nil when the connection has no descriptor
	sent int             // bytes of our version that have gone out before
}

func (g *greeted) Read(p []byte) (int, error) { return g.from.Read(p) }

func (g *greeted) Write(p []byte) (int, error) {
	skip := min(g.sent, len(p))
	g.sent -= skip
	if skip == len(p) {
		return skip, nil
	}
	n, err := g.begin(p[skip:])
	if err == nil && skip+n < len(p) {
		var rest int
		rest, err = g.Conn.Write(p[skip+n:])
		n += rest
	}
	return skip + n, err
}

// begin sends p if it is the beginning of a packet, as much of it as there is
// room for, in a way that the kernel waits for the rest (MSG_MORE of send(2)): the
// SSH package writes a long packet in two parts, and every hop on the way to the
// client would move two pieces for it. If nothing follows the kernel sends it all
// the same, in 200 milliseconds.
func (g *greeted) begin(p []byte) (n int, err error) {
	if g.raw == nil || len(p) != writerSize {
		return 0, nil
	}
	failed := g.raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		return true
	})
	if err != nil {
		return 0, failed // what is wrong the next write will see
	}
	return n, failed
}

// greet exchanges versions and looks at what the client offers, to give it the
// host keys and ciphers that fit. RSA is for clients that know nothing newer: many
// that do, those in Go among them, would choose it, and see another key than the
// one that their user was told. For ciphers see [ciphers].
func (s *Server) greet(nc net.Conn) (net.Conn, *ssh.ServerConfig) {
	g := &greeted{Conn: nc, from: bufio.NewReaderSize(nc, readSize), sent: len(serverVersion) + 2}
	if c, ok := nc.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			g.raw = raw
		}
	}
	if _, err := nc.Write([]byte(serverVersion + "\r\n")); err != nil {
		return g, s.config // the handshake will find it broken
	}
	known, err := readOffer(g.from, func() { _ = nc.SetReadDeadline(time.Now().Add(offerTime)) })
	if err != nil {
		return g, s.config
	}
	config := s.config
	if slices.Contains(known.hostKeys, ssh.KeyAlgoED25519) {
		config = s.modern
	}
	if all := ciphers(known.ciphers); len(all) < len(config.Ciphers) {
		fitting := *config
		fitting.Ciphers = all
		config = &fitting
	}
	return g, config
}

// offer is what a client says that it knows.
type offer struct {
	hostKeys []string
	ciphers  []string // in both directions
}

// readOffer looks at the version and the KEXINIT packet at the start of a
// stream (RFC 4253, sections 4.2, 6 and 7.1), without taking them. It calls
// hurry between the two.
func readOffer(r *bufio.Reader, hurry func()) (offer, error) {
	version := 0
	for n := 1; version == 0; n = r.Buffered() + 1 {
		if _, err := r.Peek(n); err != nil {
			return offer{}, err
		}
		seen, _ := r.Peek(r.Buffered()) // all that has come
		version = bytes.IndexByte(seen, '\n') + 1
	}
	hurry()
	const header = 4 + 1 + 1 + 16 // length, padding, type, cookie
	packet, err := r.Peek(version + header + 4)
	if err != nil {
		return offer{}, err
	}
	if packet[version+5] != msgKexInit {
		return offer{}, nil
	}
	var lists [4][]string // key exchanges, host keys, ciphers to and from the server
	at := version + header
	for i := range lists {
		if packet, err = r.Peek(at + 4); err != nil {
			return offer{}, err
		}
		length := int(min(binary.BigEndian.Uint32(packet[at:]), greetingSize))
		if packet, err = r.Peek(at + 4 + length); err != nil {
			return offer{}, err
		}
		lists[i] = strings.Split(string(packet[at+4:]), ",")
		at += 4 + length
	}
	both := slices.DeleteFunc(lists[2], func(name string) bool { return !slices.Contains(lists[3], name) })
	return offer{lists[1], both}, nil
}
