package ttyd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"backendai/internal/runner/process"
)

const (
	// readSize is how much of the PTY is read at a time.
	readSize = 64 << 10
	// inputLimit bounds what waits for the shell to read it.
	inputLimit = 1 << 20
	// hangupTime is how long a shell may take to go when it was hung up.
	hangupTime = 2 * time.Second
	// drainTime ends the output of a dead shell whose children keep the PTY open.
	drainTime = 100 * time.Millisecond
	// drainLimit is how much they may still write.
	drainLimit = 1 << 20
)

// shell is one process on a terminal, with its PTY.
type shell struct {
	path  string
	child *process.Child
	pty   *os.File      // the master
	sizes chan size     // the newest wish; room for one
	gone  chan struct{} // closed when nothing of it runs any more

	mu     sync.Mutex
	queued []byte        // input that the PTY has not taken
	ready  chan struct{} // input came
	space  chan struct{} // input went
}

// startShell starts a shell on t and says in the terminal what went wrong, if
// anything. The terminal's lock is held.
func (t *terminal) startShell() {
	sh, err := t.spawn()
	if err != nil {
		t.server.log.Warn("terminal has no shell", "terminal", t.name, "err", err)
		t.exit = exit{Code: 127, Text: err.Error()}
		t.write([]byte("\x1b[1;31m" + err.Error() + "\x1b[0m\r\n"))
		return
	}
	t.shell = sh
	t.server.log.Info("terminal opened", "terminal", t.name, "pid", sh.child.PID)
	t.server.tasks.Go(func() { sh.run(t) })
}

// spawn starts the process.
func (t *terminal) spawn() (*shell, error) {
	opts := t.server.opts
	path, err := opts.Shell()
	if err != nil {
		return nil, err
	}
	master, slave, err := openPTY(t.size)
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	cmd := exec.Command(path) //nolint:noctx // it outlives the request and is ended by hang-up
	cmd.Dir = process.WorkDir(opts.Home)
	cmd.Env = environment(opts.Env(), path, opts.Home)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	child, err := opts.Table.Start(cmd)
	if err != nil {
		_ = master.Close()
		return nil, err
	}
	return &shell{
		path: path, child: child, pty: master,
		sizes: make(chan size, 1), gone: make(chan struct{}),
		ready: make(chan struct{}, 1), space: make(chan struct{}, 1),
	}, nil
}

// environment is env with what a terminal adds.
func environment(env map[string]string, shell, home string) []string {
	list := make([]string, 0, len(env)+4)
	for key, value := range env {
		switch key {
		case "TERM", "COLORTERM", "SHELL", "HOME", "COLUMNS", "LINES":
		default:
			list = append(list, key+"="+value)
		}
	}
	return append(list, "TERM=xterm-256color", "COLORTERM=truecolor", "SHELL="+shell, "HOME="+home)
}

// openPTY opens a pair of the given size, the master non-blocking, so that
// closing it and deadlines end a read.
func openPTY(z size) (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	defer blocking.Close()
	if err := pty.Setsize(slave, winsize(z)); err != nil {
		_ = slave.Close()
		return nil, nil, fmt.Errorf("size a terminal: %w", err)
	}
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = slave.Close()
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), blocking.Name()), slave, nil
}

func winsize(z size) *pty.Winsize {
	return &pty.Winsize{Rows: uint16(z.Rows), Cols: uint16(z.Cols)} //nolint:gosec // clamped
}

// run moves bytes until the shell has ended and its last output is kept.
func (sh *shell) run(t *terminal) {
	defer close(sh.gone)
	closed := make(chan struct{}) // the output is over
	var tasks sync.WaitGroup
	tasks.Go(func() { sh.writeInput(closed) })
	tasks.Go(func() { sh.control(t, closed) })
	sh.readOutput(t)
	close(closed)
	_ = sh.pty.Close() // hangs up whoever still has the terminal open
	tasks.Wait()
	sh.finish(t, sh.child.Wait())
}

// finish tells the viewers how the shell ended.
func (sh *shell) finish(t *terminal, state process.State) {
	t.server.log.Info("terminal's shell ended", "terminal", t.name, "pid", sh.child.PID, "state", state.String())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shell = nil
	t.exit = exit{Code: state.Code, Text: state.String()}
	t.write([]byte(leave + "\r\n\x1b[2m[the shell ended: " + state.String() + "; press Enter for a new one]\x1b[0m\r\n"))
	t.linger()
}

// leave undoes what a program that was killed leaves behind: alternate screen,
// mouse, bracketed paste, hidden cursor, colours, margins, synchronised output.
const leave = "\x1b[?47l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?2004l\x1b[?2026l\x1b[!p\x1b[?25h\x1b[0m"

// readOutput copies the PTY into the ring until it is hung up, or until the
// shell has ended and nothing more comes.
func (sh *shell) readOutput(t *terminal) {
	buf := make([]byte, readSize)
	drained := 0
	for {
		dead := sh.dead()
		if dead {
			_ = sh.pty.SetReadDeadline(time.Now().Add(drainTime))
		}
		n, err := sh.pty.Read(buf)
		if n > 0 {
			t.mu.Lock()
			t.write(buf[:n])
			t.mu.Unlock()
			t.pace(t.ends)
		}
		if dead {
			drained += n
		}
		waked := errors.Is(err, os.ErrDeadlineExceeded) && !dead // by control, to see that it is dead
		if err != nil && !waked || drained > drainLimit {
			return
		}
	}
}

func (sh *shell) dead() bool {
	select {
	case <-sh.child.Done():
		return true
	default:
		return false
	}
}

// control changes sizes and hangs up, until the output is over.
func (sh *shell) control(t *terminal, closed <-chan struct{}) {
	ends, died := t.ends, sh.child.Done()
	var wish size
	var pause, kill <-chan time.Time
	sizes := sh.sizes
	for {
		select {
		case wish = <-sizes:
			sh.apply(t, wish)
			sizes, pause = nil, time.After(resizeTime)
		case <-pause:
			sizes, pause = sh.sizes, nil
		case <-ends:
			ends, kill = nil, time.After(hangupTime)
			_ = sh.child.SignalGroup(syscall.SIGHUP)
			_ = sh.child.SignalGroup(syscall.SIGCONT)
		case <-kill:
			_ = sh.child.SignalGroup(syscall.SIGKILL)
		case <-died:
			died = nil
			_ = sh.pty.SetReadDeadline(time.Now())
		case <-closed:
			if died == nil {
				return
			}
			// The shell closed its terminal but lives on: without one it is of no use.
			_ = sh.child.SignalGroup(syscall.SIGHUP)
			select {
			case <-died:
			case <-time.After(hangupTime):
				_ = sh.child.SignalGroup(syscall.SIGKILL)
				<-died
			}
			return
		}
	}
}

// resize replaces the wish for a size. The terminal's lock is held.
func (sh *shell) resize(z size) {
	select {
	case <-sh.sizes:
	default:
	}
	sh.sizes <- z // only lock holders send, so there is room
}

// apply sets the size of the PTY and marks it in the output.
func (sh *shell) apply(t *terminal, z size) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if z == t.size {
		return
	}
	_ = sh.ioctl(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(z.Rows), Col: uint16(z.Cols)}) //nolint:gosec // clamped
	})
	t.mark(z)
}

// redraw makes the program on the alternate screen paint it again, by a size
// that is another one for a moment.
func (t *terminal) redraw() {
	t.mu.Lock()
	sh, z := t.shell, t.size
	t.mu.Unlock()
	if sh == nil || z.Rows <= minRows {
		return
	}
	sh.apply(t, size{z.Cols, z.Rows - 1})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leader != nil {
		z = t.leader.size
	}
	sh.resize(z)
}

func (sh *shell) ioctl(call func(fd int) error) error {
	raw, err := sh.pty.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// idle says that the shell sits at its prompt and has no job.
func (sh *shell) idle() bool {
	children, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(sh.child.PID), "task", fmt.Sprint(sh.child.PID), "children"))
	return err == nil && len(children) == 0
}

// queue takes input for the shell. Unless it must, it refuses when too much waits;
// space tells when to try again.
func (sh *shell) queue(p []byte, must bool) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.queued) >= inputLimit && !must {
		return false
	}
	sh.queued = append(sh.queued, p...)
	signal(sh.ready)
	return true
}

// writeInput moves the queue into the PTY until closed.
func (sh *shell) writeInput(closed <-chan struct{}) {
	var spare []byte
	for {
		sh.mu.Lock()
		p := sh.queued
		sh.queued = spare[:0]
		sh.mu.Unlock()
		if len(p) > 0 {
			signal(sh.space)
			if _, err := sh.pty.Write(p); err != nil {
				return
			}
			if spare = p; cap(spare) > readSize {
				spare = nil // a paste is over: give its memory back
			}
			continue
		}
		spare = p
		select {
		case <-sh.ready:
		case <-closed:
			return
		}
	}
}
