package service

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The pause between two looks at a port that does not listen yet: it grows, so
// that a quick service is seen at once and a slow one costs nothing.
const (
	firstPause = time.Millisecond
	lastPause  = 50 * time.Millisecond
)

// waitPort waits until a port listens. It tells whether that happened before
// ctx ended or the process died; a port that listens although the process is
// dead is that of a service which put itself in the background.
func (s *Services) waitPort(ctx context.Context, died <-chan struct{}, port int) bool {
	timer := time.NewTimer(firstPause)
	defer timer.Stop()
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		if s.Listens(port) {
			return true
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-died:
			return s.Listens(port)
		case <-ctx.Done():
			return false
		}
	}
}

// listens makes a function that asks the kernel whether something listens on a
// port of the loopback address. Connecting instead would be seen by services,
// and some serve only one connection.
func listens(loopback string) func(port int) bool {
	ip := net.ParseIP(loopback)
	if ip.To4() == nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	// proc(5): addresses are hexadecimal, in words of the host's byte order.
	word := func(b []byte) string { return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b)) }
	mapped := word([]byte{0, 0, 0xff, 0xff})
	v4 := []string{"00000000", word(ip.To4())}
	v6 := []string{strings.Repeat("0", 32), strings.Repeat("0", 16) + mapped + word(ip.To4())}
	return func(port int) bool {
		suffix := fmt.Sprintf(":%04X", port)
		four, err := listed("/proc/net/tcp", v4, suffix)
		if err != nil {
			return connects(net.JoinHostPort(ip.String(), strconv.Itoa(port)))
		}
		if four {
			return true
		}
		six, err := listed("/proc/net/tcp6", v6, suffix)
		return err == nil && six // no IPv6 in this kernel is no error
	}
}

// listed tells whether a table of sockets has a listening one at an address.
func listed(path string, addresses []string, suffix string) (bool, error) {
	const listening = "0A"
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != listening {
			continue
		}
		for _, a := range addresses {
			if fields[1] == a+suffix {
				return true, nil
			}
		}
	}
	return false, lines.Err()
}

// connects is for the kernel that has no such table.
func connects(address string) bool {
	conn, err := (&net.Dialer{Timeout: lastPause}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
