//go:build linux

package sshd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"backendai/internal/runner/process"
)

// How long and how much is read from pipes that orphans hold open, after the
// process itself has ended and everything that was in its pipes is sent.
const (
	orphanQuiet = 500 * time.Millisecond // without a word: they have nothing more to say
	orphanWait  = 2 * time.Second        // of waiting in all
	orphanBytes = 64 << 20
)

// pipeSize lets a program that writes much run ahead of the network. More than
// the system allows without privilege would fail and change nothing.
const pipeSize = 256 << 10

// bufferSize is what one read from a program, or one write to it, takes: several
// packets' worth.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// program is a process with its standard streams on a channel.
type program struct {
	child   *process.Child
	input   *os.File // where the channel's data goes; nil with a terminal
	outputs []*output
	gone    chan struct{} // closed when the client has gone first
}

// output is a stream of a program on its way to the client.
type output struct {
	from  *os.File
	to    io.Writer
	ended atomic.Bool // the process has ended
}

// startProgram runs command, or a login shell when login is set, and serves it
// in the background until it has ended and the client knows.
func (s *session) startProgram(command string, login bool) error {
	shell, err := process.Shell(s.conn.server.opts.Env)
	if copier, ok := s.copier(command, err != nil); ok {
		s.wg.Go(func() { s.exit(process.State{Code: copier.run(s.ch)}) })
		return nil
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(shell) //nolint:noctx // it may outlive the client, which only sends it SIGHUP
	if login {
		cmd.Args = []string{"-" + filepath.Base(shell)}
	} else {
		cmd.Args = []string{filepath.Base(shell), "-c", command}
	}
	cmd.Env = s.environment(shell)
	cmd.Dir = process.WorkDir(s.conn.server.opts.Home)
	p := &program{gone: make(chan struct{})}
	if s.pty != nil {
		err = s.startOnTerminal(cmd, p)
	} else {
		err = s.startOnPipes(cmd, p)
	}
	if err != nil {
		return err
	}
	s.program = p
	s.wg.Go(func() { s.pumpInput(p) })
	s.wg.Go(func() {
		if login && s.pty != nil && !s.quiet() {
			s.greet()
		}
		s.await(p)
	})
	return nil
}

// greet shows the message of the day.
func (s *session) greet() {
	text := strings.TrimRight(s.conn.server.opts.MOTD, "\n")
	if text != "" {
		_, _ = io.WriteString(s.ch, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n") // the client may be gone
	}
}

func (s *session) startOnTerminal(cmd *exec.Cmd, p *program) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.pty.slave, s.pty.slave, s.pty.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var err error
	p.child, err = s.conn.server.opts.Table.Start(cmd)
	s.pty.closeSlave()
	if err != nil {
		return err
	}
	p.outputs = []*output{{from: s.pty.master, to: s.ch}}
	return nil
}

func (s *session) startOnPipes(cmd *exec.Cmd, p *program) error {
	var opened []*os.File
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			opened = append(opened, r, w)
			widen(r)
		}
		return r, w, err
	}
	inR, inW, err1 := pipe()
	outR, outW, err2 := pipe()
	errR, errW, err3 := pipe()
	err := errors.Join(err1, err2, err3)
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, errW
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		p.child, err = s.conn.server.opts.Table.Start(cmd)
	}
	if err != nil {
		for _, f := range opened {
			_ = f.Close()
		}
		return fmt.Errorf("start command: %w", err)
	}
	for _, f := range []*os.File{inR, outW, errW} {
		_ = f.Close()
	}
	p.input = inW
	p.outputs = []*output{{from: outR, to: s.ch}, {from: errR, to: s.ch.Stderr()}}
	return nil
}

// widen gives a pipe pipeSize where the system lets it.
func widen(pipe *os.File) {
	if raw, err := pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// pumpInput carries what the client types or sends to the program. With a
// terminal the end of the client's input means nothing, as with OpenSSH.
func (s *session) pumpInput(p *program) {
	to := p.input
	if to == nil {
		to = s.pty.master
	}
	buffer := buffers.Get().(*[bufferSize]byte)
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{s.ch}, buffer[:])
	buffers.Put(buffer)
	if p.input == nil {
		return
	}
	_ = p.input.Close()
	if err == nil {
		return
	}
	// The program has closed its input. OpenSSH's client stops sending when told
	// (PROTOCOL section 2.1); what other clients send has to be taken still.
	if strings.Contains(string(s.conn.ssh.ClientVersion()), "OpenSSH") {
		_, _ = s.ch.SendRequest("eow@openssh.com", false, nil)
	}
	_, _ = io.Copy(io.Discard, s.ch)
}

// await sends the program's output until it has ended, then how it ended.
func (s *session) await(p *program) {
	var pumps sync.WaitGroup
	for _, o := range p.outputs {
		pumps.Go(o.pump)
	}
	select {
	case <-p.child.Done():
	case <-p.gone: // hangUp has closed the streams; what ignores SIGHUP goes on alone
		pumps.Wait()
		return
	}
	state := p.child.Wait()
	for _, o := range p.outputs {
		o.ended.Store(true)
		_ = o.from.SetReadDeadline(time.Now()) // wakes a pump that waits
	}
	pumps.Wait()
	s.exit(state)
}

// pump copies until the stream ends, the client is gone, or the process has
// ended and its orphans are silent.
func (o *output) pump() {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	defer func() { _ = o.from.Close() }() // a program that writes on gets SIGPIPE
	for {
		n, err := o.from.Read(buffer[:])
		if n > 0 {
			if _, err := o.to.Write(buffer[:n]); err != nil {
				return
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && o.ended.Load():
			o.drain(buffer[:])
			return
		case err != nil:
			return
		}
	}
}

// drain goes on after the process has ended: all that is in the stream at this
// moment, then what orphans write within their bounds.
func (o *output) drain(buffer []byte) {
	left, err := o.buffered()
	if err != nil {
		left = 0
	}
	left += orphanBytes
	wait := orphanWait
	for left > 0 && wait > 0 {
		began := time.Now()
		_ = o.from.SetReadDeadline(began.Add(min(wait, orphanQuiet)))
		n, err := o.from.Read(buffer)
		wait -= time.Since(began)
		if n > 0 {
			if _, err := o.to.Write(buffer[:n]); err != nil {
				return
			}
			left -= n
		}
		if err != nil {
			return
		}
	}
}

// buffered is the number of bytes that wait in the stream.
func (o *output) buffered() (n int, err error) {
	raw, err := o.from.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(err, failed)
}

// stopOutput closes the streams for a client that reads no more: the program
// gets SIGPIPE when it writes on.
func (p *program) stopOutput() {
	for _, o := range p.outputs {
		_ = o.from.Close()
	}
}

// hangUp is what a client that went away means to its program.
func (p *program) hangUp() {
	_ = p.child.SignalGroup(syscall.SIGHUP) // it may have ended, or be another user's by setuid
	close(p.gone)
	if p.input != nil {
		_ = p.input.Close()
	}
	p.stopOutput()
}
