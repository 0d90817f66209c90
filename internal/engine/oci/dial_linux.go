package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"backendai"
)

// Dial connects to the runner's control socket. It goes through a descriptor of
// the session's folder, because the whole path may be longer than a socket
// address.
func (e *Engine) Dial(ctx context.Context, id string) (net.Conn, error) {
	s, err := e.find(id)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open folder of session %s: %w", id, err)
	}
	defer dir.Close()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return nil, notRunning(id, err)
	}
	return c, nil
}

// socketPath names the control socket in an open session folder.
func socketPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketFile
}

func notRunning(id string, err error) error {
	return backendai.Errorf(backendai.CodeUnavailable, "session %s is not running: %w", id, err)
}

// listenControl makes the control socket in a session's folder. The path stays
// when the listener closes: the runner has its own descriptor of it.
func listenControl(folder string) (*os.File, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, fmt.Errorf("open session folder: %w", err)
	}
	defer dir.Close()
	if err := os.Remove(filepath.Join(folder, socketFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(dir), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("take control socket: %w", err)
	}
	return f, nil
}

// DialPort connects to a TCP port on the session's own loopback, by IPv4 or
// else by IPv6. The socket is made inside the session's network namespace by
// this process, so nothing that the session made is ever held.
func (e *Engine) DialPort(ctx context.Context, id string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "%d is not a port", port)
	}
	s, err := e.find(id)
	if err != nil {
		return nil, err
	}
	ns, release, err := s.namespace()
	if err != nil {
		return nil, err
	}
	defer release()
	v4 := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	c, err := dialInside(ctx, ns, unix.AF_INET, v4)
	if errors.Is(err, unix.ECONNREFUSED) {
		v6 := &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
		var v6err error
		if c, v6err = dialInside(ctx, ns, unix.AF_INET6, v6); v6err == nil {
			return c, nil
		}
	}
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "nothing answers on port %d of the session: %w", port, err)
	}
	return c, nil
}

// dialInside makes a TCP socket in a network namespace and connects it.
func dialInside(ctx context.Context, ns *os.File, family int, to unix.Sockaddr) (net.Conn, error) {
	fd := -1
	err := inNamespace(ns, func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make socket in session: %w", err)
	}
	f := os.NewFile(uintptr(fd), "session socket")
	defer f.Close() // FileConn has its own duplicate
	if err := connect(ctx, f, to); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// connect connects a non-blocking socket.
func connect(ctx context.Context, f *os.File, to unix.Sockaddr) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	started, failed := false, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			failed = unix.Connect(int(fd), to)
			return !errors.Is(failed, unix.EINPROGRESS)
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed = err; err == nil && code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
