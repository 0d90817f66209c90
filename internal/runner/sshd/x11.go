//go:build linux

package sshd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"

	"backendai/internal/runner/process"
)

// Displays that are tried, as X11DisplayOffset and MAX_DISPLAYS of OpenSSH.
const (
	firstDisplay = 10
	lastDisplay  = 999
	x11BasePort  = 6000
)

// display is an X11 display in the session that leads to the client's. Its
// cookie is in a file of its own, so that neither xauth nor the user's
// ~/.Xauthority is needed or touched.
type display struct {
	name      string // DISPLAY
	authority string // XAUTHORITY
	dir       string
	listener  net.Listener
	close     func()
}

// openX11 serves x11-req (RFC 4254 section 6.3.1).
func (s *session) openX11(ctx context.Context, payload []byte) bool {
	var want struct {
		Single   bool
		Protocol string
		Cookie   string
		Screen   uint32
	}
	if ssh.Unmarshal(payload, &want) != nil || s.conn.grant.noX11 || s.x11 != nil || s.started {
		return false
	}
	cookie, err := hex.DecodeString(want.Cookie)
	if err != nil || len(cookie) > 1024 || len(want.Protocol) > 256 {
		return false
	}
	d, err := newDisplay(ctx, process.TempDir(s.conn.server.opts.Env), want.Protocol, cookie, want.Screen)
	if err != nil {
		s.conn.log.Warn("X11 forwarding refused", "err", err)
		return false
	}
	s.x11 = d
	l := d.listener
	if want.Single {
		l = &once{Listener: l}
	}
	s.conn.wg.Go(func() {
		defer context.AfterFunc(ctx, d.close)()
		s.conn.acceptAll(ctx, l, "x11", func(conn net.Conn) []byte {
			origin, _ := conn.RemoteAddr().(*net.TCPAddr)
			return ssh.Marshal(struct {
				Address string
				Port    uint32
			}{origin.IP.String(), uint32(origin.Port)})
		})
	})
	return true
}

func newDisplay(ctx context.Context, temp, protocol string, cookie []byte, screen uint32) (*display, error) {
	for number := firstDisplay; number <= lastDisplay; number++ {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(x11BasePort+number)))
		if err != nil {
			continue // taken
		}
		d := &display{name: fmt.Sprintf("127.0.0.1:%d.%d", number, screen), listener: l}
		d.close = sync.OnceFunc(func() {
			_ = l.Close()
			if d.dir != "" {
				_ = os.RemoveAll(d.dir)
			}
		})
		if d.dir, err = os.MkdirTemp(temp, "ssh-x11-"); err == nil {
			d.authority = filepath.Join(d.dir, "authority")
			err = os.WriteFile(d.authority, authorityEntry(number, protocol, cookie), 0o600)
		}
		if err != nil {
			d.close()
			return nil, fmt.Errorf("write X11 cookie: %w", err)
		}
		return d, nil
	}
	return nil, errors.New("every X11 display is taken")
}

// authorityEntry is a file of one entry in the format of Xau(3), for any host.
func authorityEntry(number int, protocol string, cookie []byte) []byte {
	const familyWild = 65535
	entry := binary.BigEndian.AppendUint16(nil, familyWild)
	for _, field := range []string{"", strconv.Itoa(number), protocol, string(cookie)} {
		entry = binary.BigEndian.AppendUint16(entry, uint16(len(field)))
		entry = append(entry, field...)
	}
	return entry
}

// once is a listener that closes itself with its first connection, for a
// client that allows a single one.
type once struct{ net.Listener }

func (o *once) Accept() (net.Conn, error) {
	conn, err := o.Listener.Accept()
	if err == nil {
		_ = o.Close()
	}
	return conn, err
}
