package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	// smallPiece is read at once while little comes; it is what an idle
	// direction holds, in bytes.
	smallPiece = 16 << 10
	// bigPiece is read and written at once while much comes.
	bigPiece = 256 << 10
	// maxRecord is the most bytes that one TLS record has on the wire (RFC 8446,
	// section 5.2).
	maxRecord = 5 + 16<<10 + 256
)

// bigPieces are lent for as long as they are full only.
var bigPieces = sync.Pool{New: func() any { b := make([]byte, bigPiece); return &b }}

// UnderTLS prepares the connections of a TCP listener for a TLS listener on top
// of it: tunnels then move many TLS records with one call of the kernel. TLS by
// itself makes a call for each record of 16 KiB, which costs more than to
// encrypt it.
func UnderTLS(l net.Listener) net.Listener { return bulkListener{l} }

type bulkListener struct{ net.Listener }

// Accept implements net.Listener.
func (l bulkListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newBulk(c), nil
}

// bulk is a TCP connection under a TLS connection.
type bulk struct {
	net.Conn

	from piece // used by the one reader

	mu  sync.Mutex
	out *[]byte // what is written, while it is held back
}

func newBulk(c net.Conn) *bulk { return &bulk{Conn: c, from: piece{conn: c}} }

// bulkUnder is what is under a connection that was prepared for TLS.
func bulkUnder(c net.Conn) (*tls.Conn, *bulk, bool) {
	secure, ok := c.(*tls.Conn)
	if !ok {
		return nil, nil, false
	}
	b, ok := secure.NetConn().(*bulk)
	return secure, b, ok
}

// Read implements net.Conn.
func (b *bulk) Read(p []byte) (int, error) {
	if len(b.from.rest) == 0 {
		if err := b.from.fill(); err != nil {
			return 0, err
		}
	}
	if len(b.from.rest) == 0 {
		n, err := b.Conn.Read(p)
		b.from.more = n == len(p)
		return n, err
	}
	return b.from.take(p), nil
}

// Write implements net.Conn.
func (b *bulk) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out == nil {
		return b.Conn.Write(p)
	}
	*b.out = append(*b.out, p...)
	return len(p), nil
}

// together sends what write writes at once.
func (b *bulk) together(write func() error) error {
	b.mu.Lock()
	b.out = bigPieces.Get().(*[]byte)
	*b.out = (*b.out)[:0]
	b.mu.Unlock()
	err := write()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		_, err = b.Conn.Write(*b.out)
	}
	*b.out = (*b.out)[:cap(*b.out)]
	bigPieces.Put(b.out)
	b.out = nil
	return err
}

// piece reads much at once from a connection when much is there.
type piece struct {
	conn net.Conn
	more bool    // the last read got all that it had room for
	big  *[]byte // is lent while rest has something
	rest []byte  // was read and is not taken yet
}

// fill reads what is there without waiting, if that may be much.
func (p *piece) fill() error {
	if !p.more {
		return nil
	}
	big := bigPieces.Get().(*[]byte)
	n, err := readNow(p.conn, *big)
	if n == 0 {
		bigPieces.Put(big)
		p.more = false
		return err
	}
	p.big, p.rest, p.more = big, (*big)[:n], n >= smallPiece
	return nil
}

// take moves bytes of the rest.
func (p *piece) take(to []byte) int {
	n := copy(to, p.rest)
	p.drop(n)
	return n
}

// drop gives the big piece back with the last byte of it.
func (p *piece) drop(n int) {
	if p.rest = p.rest[n:]; len(p.rest) == 0 && p.big != nil {
		bigPieces.Put(p.big)
		p.big = nil
	}
}

// seal copies a plain connection into a TLS connection.
func seal(ctx context.Context, to *tls.Conn, under *bulk, from net.Conn) (n int64, err error) {
	if err := to.HandshakeContext(ctx); err != nil { // it waits for answers to what would be held back
		return 0, err
	}
	small := make([]byte, smallPiece)
	in := piece{conn: from}
	for {
		if err := in.fill(); err != nil {
			return n, ended(err)
		}
		data := in.rest
		var failed error
		if len(data) == 0 {
			var k int
			k, failed = from.Read(small)
			in.more = k == len(small)
			data = small[:k]
		}
		if len(data) > 0 {
			err := under.together(func() error {
				_, err := to.Write(data)
				return err
			})
			if err != nil {
				return n, err
			}
			n += int64(len(data))
		}
		in.drop(len(in.rest))
		if failed != nil {
			return n, ended(failed)
		}
	}
}

// open copies a TLS connection into a plain one.
func open(to net.Conn, from *tls.Conn, under *bulk) (n int64, err error) {
	small := make([]byte, smallPiece)
	for {
		k, failed := from.Read(small)
		data := small[:k]
		var big *[]byte
		if failed == nil && len(under.from.rest) >= maxRecord { // a whole record is here: Read does not wait
			big = bigPieces.Get().(*[]byte)
			k = copy(*big, data)
			for failed == nil && len(under.from.rest) >= maxRecord && bigPiece-k >= smallPiece {
				var m int
				m, failed = from.Read((*big)[k:])
				k += m
			}
			data = (*big)[:k]
		}
		var wrote int
		if len(data) > 0 {
			wrote, err = to.Write(data)
			n += int64(wrote)
		}
		if big != nil {
			bigPieces.Put(big)
		}
		if err != nil {
			return n, err
		}
		if failed != nil {
			return n, ended(failed)
		}
	}
}

// ended is nil for the error that says the end.
func ended(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// readNow reads what a TCP connection has. Without anything it gives 0.
func readNow(c net.Conn, p []byte) (n int, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	if readErr := raw.Read(func(fd uintptr) bool {
		n, err = readDescriptor(fd, p)
		return true
	}); readErr != nil {
		return 0, readErr
	}
	return n, err
}
