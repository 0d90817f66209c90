//go:build linux

package sftp_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"backendai/internal/runner/sshd/sftp"
)

// Packet types of draft-ietf-secsh-filexfer-02, section 3.
const (
	typeInit     = 1
	typeVersion  = 2
	typeOpen     = 3
	typeClose    = 4
	typeRead     = 5
	typeWrite    = 6
	typeOpendir  = 11
	typeReaddir  = 12
	typeStatus   = 101
	typeHandle   = 102
	typeData     = 103
	typeName     = 104
	typeExtended = 200
	typeReply    = 201
)

// rawClient speaks packets, to say what no library says.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	id   uint32
}

func raw(t testing.TB, home string) *rawClient {
	t.Helper()
	near, far := net.Pipe()
	var served sync.WaitGroup
	served.Go(func() { _ = sftp.Serve(far, sftp.Options{Home: home}); _ = far.Close() }) // what it thinks of the packets is the test's matter
	t.Cleanup(func() { _ = near.Close(); served.Wait() })
	c := &rawClient{t: t, conn: near}
	c.send(append([]byte{typeInit}, number(3)...))
	if reply := c.receive(); reply[0] != typeVersion || binary.BigEndian.Uint32(reply[1:]) != 3 {
		t.Fatalf("version %v", reply)
	}
	return c
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func long(n uint64) []byte   { return binary.BigEndian.AppendUint64(nil, n) }
func text(s string) []byte   { return append(number(uint32(len(s))), s...) }

func (c *rawClient) send(packet []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(append(number(uint32(len(packet))), packet...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) receive() []byte {
	c.t.Helper()
	var length [4]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		c.t.Fatal(err)
	}
	packet := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(c.conn, packet); err != nil {
		c.t.Fatal(err)
	}
	return packet
}

// ask sends a request and returns the answer, whose id has to fit.
func (c *rawClient) ask(kind byte, fields ...[]byte) []byte {
	c.t.Helper()
	c.id++
	c.send(append(append([]byte{kind}, number(c.id)...), bytes.Join(fields, nil)...))
	reply := c.receive()
	if id := binary.BigEndian.Uint32(reply[1:]); id != c.id {
		c.t.Fatalf("the answer is to %d, not to %d", id, c.id)
	}
	return reply
}

func (c *rawClient) extended(name string, fields ...[]byte) []byte {
	c.t.Helper()
	return c.ask(typeExtended, append([][]byte{text(name)}, fields...)...)
}

func (c *rawClient) status(reply []byte) uint32 {
	c.t.Helper()
	if reply[0] != typeStatus {
		c.t.Fatalf("the answer is of type %d, not a status", reply[0])
	}
	return binary.BigEndian.Uint32(reply[5:])
}

// field is the string at an offset of an answer.
func (c *rawClient) field(reply []byte, kind byte, at int) []byte {
	c.t.Helper()
	if reply[0] != kind {
		c.t.Fatalf("the answer is %q, not of type %d", reply, kind)
	}
	n := int(binary.BigEndian.Uint32(reply[at:]))
	return reply[at+4 : at+4+n]
}

func (c *rawClient) handle(reply []byte) string {
	c.t.Helper()
	return string(c.field(reply, typeHandle, 5))
}

func TestExtensions(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "file"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(home, "link")); err != nil {
		t.Fatal(err)
	}
	c := raw(t, home)

	limits := c.extended("limits@openssh.com")
	if limits[0] != typeReply || binary.BigEndian.Uint64(limits[5:]) != 256<<10 || binary.BigEndian.Uint64(limits[29:]) < 500 {
		t.Errorf("limits %v", limits)
	}
	for path, want := range map[string]string{"~": home, "~/file": home + "/file", "link": home + "/file", "~/none": home + "/none"} {
		if got := c.field(c.extended("expand-path@openssh.com", text(path)), typeName, 9); string(got) != want {
			t.Errorf("expand-path %s: %s", path, got)
		}
	}
	if got := c.field(c.extended("home-directory", text("")), typeName, 9); string(got) != home {
		t.Errorf("home-directory: %s", got)
	}
	// lsetstat changes the link, not the file.
	const times = 8
	if status := c.status(c.extended("lsetstat@openssh.com", text("link"), number(times), number(1000), number(2000))); status != 0 {
		t.Errorf("lsetstat: %d", status)
	}
	link, err := os.Lstat(filepath.Join(home, "link"))
	file, err2 := os.Stat(filepath.Join(home, "file"))
	if err != nil || err2 != nil || link.ModTime().Unix() != 2000 || file.ModTime().Unix() == 2000 {
		t.Errorf("%v %v, %v %v", link.ModTime(), file.ModTime(), err, err2)
	}
	// copy-data copies within the server.
	from := c.handle(c.ask(typeOpen, text("file"), number(1), number(0)))
	to := c.handle(c.ask(typeOpen, text("copy"), number(0x0a), number(0)))
	for _, copied := range []struct {
		fields [][]byte
		status uint32
	}{
		{[][]byte{text(from), long(2), long(3), text(to), long(0)}, 0},
		{[][]byte{text(from), long(5), long(0), text(to), long(3)}, 0},
		{[][]byte{text(from), long(0), long(0), text(from), long(5)}, 4},
		{[][]byte{text("nothing"), long(0), long(0), text(to), long(0)}, 4},
	} {
		if status := c.status(c.extended("copy-data", copied.fields...)); status != copied.status {
			t.Errorf("copy-data %q: %d", copied.fields, status)
		}
	}
	if text, err := os.ReadFile(filepath.Join(home, "copy")); string(text) != "23456789" {
		t.Errorf("the copy is %q, %v", text, err)
	}
	names := c.extended("users-groups-by-id@openssh.com", text(string(number(0))), text(string(number(0))))
	if names[0] != typeReply || !bytes.Contains(names, []byte("root")) {
		t.Errorf("names %q", names)
	}
	if status := c.status(c.extended("unknown@example.org")); status != 8 {
		t.Errorf("an unknown extension: %d", status)
	}
	if status := c.status(c.ask(99)); status != 8 {
		t.Errorf("an unknown request: %d", status)
	}
	if status := c.status(c.ask(typeClose, text("nothing"))); status != 4 {
		t.Errorf("closing what is not open: %d", status)
	}
	if status := c.status(c.ask(typeOpen, text("a\x00b"), number(1), number(0))); status != 4 {
		t.Errorf("a name with a zero byte: %d", status)
	}
}

// TestDamagedPackets cuts and bends every request; the server answers or ends
// the connection, and neither panics nor hangs.
func TestDamagedPackets(t *testing.T) {
	whole := [][]byte{
		bytes.Join([][]byte{{typeOpen}, number(1), text("f"), number(0x1a), number(0)}, nil),
		bytes.Join([][]byte{{typeRead}, number(1), text("1"), long(0), number(10)}, nil),
		bytes.Join([][]byte{{typeWrite}, number(1), text("1"), long(0), text("data")}, nil),
		bytes.Join([][]byte{{9}, number(1), text("f"), number(0x8000000f), long(1), number(0), number(0), number(0o600), number(1), number(1), number(1 << 30)}, nil),
		bytes.Join([][]byte{{typeExtended}, number(1), text("copy-data"), text("1"), long(0), long(0), text("1"), long(1 << 63)}, nil),
		bytes.Join([][]byte{{typeExtended}, number(1), text("users-groups-by-id@openssh.com"), text("abc"), text("")}, nil),
		bytes.Join([][]byte{{18}, number(1), text("f"), text("g")}, nil),
		bytes.Join([][]byte{{20}, number(1), text("f"), text("l")}, nil),
	}
	home := t.TempDir()
	try := func(packet []byte) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = sftp.Serve(far, sftp.Options{Home: home}) // it may say what it likes
			_ = far.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = near.Write(append(number(uint32(len(packet))), packet...))
		_ = near.Close()
		<-done
	}
	for _, packet := range whole {
		for cut := range len(packet) {
			try(packet[:cut])
			bent := bytes.Clone(packet)
			if cut > 4 { // not the type
				bent[cut] ^= 0xff
				if !bytes.ContainsAny(bent, "/~") { // what is tried stays in the home
					try(bent)
				}
			}
		}
	}
	try(bytes.Repeat([]byte{0xff}, 300<<10))
}
