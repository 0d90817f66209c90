//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// roles are what this program does as another process: the first argument
// names one.
var roles = map[string]func(ctx context.Context, args []string) error{
	"serve": serve,
	"relay": relay,
	"fill":  fill,
}

// pieceSize is how much is read and written at once, in bytes.
const pieceSize = 256 << 10

// serve is the app at the far end of the tunnels: "serve PORT" inside a session.
// It prints its port. A connection begins with a line:
//
//	source N        sends a byte; gets one; then sends N bytes and ends
//	echo 0          sends what it gets
//	last SEED N     sends a byte; reads to the end; then sends N bytes that
//	                follow from SEED, and the sum of what it got
//	first SEED N    sends a byte and N bytes, and ends its direction; then reads
//	                to the end and keeps the sum under SEED
//	sum SEED 0      sends the sum that was kept
//	sink 0          sends a byte; reads to the end; sends a byte
func serve(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: serve PORT")
	}
	a := &app{sums: map[string]chan string{}}
	return listen(ctx, "127.0.0.1:"+args[0], a.handle)
}

// relay leads every connection to an address: "relay HOST:PORT [NETNS]", where
// NETNS is the file of the network namespace to connect in. It prints its port.
// It is what the tunnel's two processes are compared with: the kernel moves the
// bytes, and nothing else is done.
func relay(ctx context.Context, args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return errors.New("usage: relay HOST:PORT [NETNS]")
	}
	network := ""
	if len(args) == 2 {
		network = args[1]
	}
	return listen(ctx, "127.0.0.1:0", func(c net.Conn) error {
		var far net.Conn
		err := inNetwork(network, func() (err error) {
			far, err = net.Dial("tcp", args[0]) //nolint:noctx // the process is ended as a whole
			return err
		})
		if err != nil {
			return err
		}
		defer far.Close()
		done := make(chan error, 1)
		go func() { done <- half(far, c) }()
		return errors.Join(half(c, far), <-done)
	})
}

// inNetwork calls do in a network namespace, which is named by its file; without
// a name, here.
func inNetwork(file string, do func() error) error {
	if file == "" {
		return do()
	}
	ns, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- do()
	}()
	return <-done
}

// half moves one direction and its end.
func half(to, from net.Conn) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return endSending(to)
}

// listen prints the port at which it listens and serves connections until ctx ends.
func listen(ctx context.Context, address string, handle func(net.Conn) error) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connection: %w", err)
		}
		go func() {
			defer c.Close()
			if err := handle(c); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}()
	}
}

// app is the state of serve.
type app struct {
	mu   sync.Mutex
	sums map[string]chan string
}

func (a *app) handle(c net.Conn) error {
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	size, err := strconv.ParseInt(words[len(words)-1], 10, 64)
	if err != nil {
		return err
	}
	switch words[0] {
	case "source":
		if err := ready(c); err != nil {
			return err
		}
		if _, err := in.ReadByte(); err != nil {
			return err
		}
		return source(c, size)
	case "echo":
		_, err := io.Copy(c, in)
		return err
	case "sink":
		if err := ready(c); err != nil {
			return err
		}
		if err := sink(in); err != nil {
			return err
		}
		return ready(c)
	case "last":
		return a.last(c, in, words[1], size)
	case "first":
		return a.first(c, in, words[1], size)
	case "sum":
		_, err := io.WriteString(c, <-a.sum(words[1]))
		return err
	}
	return fmt.Errorf("a strange line: %q", line)
}

// ready sends the byte that says so.
func ready(c io.Writer) error {
	_, err := c.Write([]byte{'.'})
	return err
}

// sum is where a sum is kept until it is asked for.
func (a *app) sum(seed string) chan string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sums[seed] == nil {
		a.sums[seed] = make(chan string, 1)
	}
	return a.sums[seed]
}

func (a *app) last(c net.Conn, in io.Reader, seed string, size int64) error {
	if err := ready(c); err != nil {
		return err
	}
	sum, err := hashAll(in)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(c, stream(seed), size); err != nil {
		return err
	}
	_, err = io.WriteString(c, sum)
	return err
}

func (a *app) first(c net.Conn, in io.Reader, seed string, size int64) error {
	if err := ready(c); err != nil {
		return err
	}
	if _, err := io.CopyN(c, stream(seed), size); err != nil {
		return err
	}
	if err := endSending(c); err != nil {
		return err
	}
	sum, err := hashAll(in)
	a.sum(seed) <- sum
	return err
}

// source sends bytes as fast as they are taken.
func source(c io.Writer, size int64) error {
	piece := make([]byte, pieceSize)
	for size > 0 {
		n, err := c.Write(piece[:min(size, pieceSize)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// sink reads to the end as fast as bytes come.
func sink(c io.Reader) error {
	piece := make([]byte, pieceSize)
	for {
		if _, err := c.Read(piece); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// stream is endless and follows from its seed.
func stream(seed string) io.Reader { return rand.NewChaCha8(sha256.Sum256([]byte(seed))) }

// hashAll reads to the end and gives the sum of it as 64 characters.
func hashAll(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
