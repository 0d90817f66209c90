package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
)

// session is what the engine keeps of one session in memory.
type session struct {
	id     string
	dir    string        // what lasts
	bundle string        // what ends with this process
	busy   chan struct{} // taken by who changes the session

	mu     sync.Mutex // guards what follows; held for no longer than a small write
	state  state
	ending string        // why the platform ends it, a backendai.Reason; "" when it does not
	pidfd  *os.File      // of PID 1, while it is watched
	net    *network      // its network, while it is known to live
	exited chan struct{} // closed when the end of PID 1 is known
}

func (e *Engine) newSession(id string) *session {
	return &session{
		id: id, dir: filepath.Join(e.sessions, id), bundle: filepath.Join(e.run, bundlesDir, id),
		busy: make(chan struct{}, 1),
	}
}

func (s *session) release() { <-s.busy }

func (s *session) path(name ...string) string {
	return filepath.Join(append([]string{s.dir}, name...)...)
}

// end notes why the platform ends the session.
func (s *session) end(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = reason
}

// ended notes how PID 1 ended. Who ends a session writes it down with the rest.
func (s *session) ended(exit engine.Exit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Exit, s.pidfd = &exit, nil
	if s.ending != "" {
		return nil
	}
	return s.state.write(s.dir)
}

// update changes the state and writes it to disk.
func (s *session) update(change func(*state)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	return s.state.write(s.dir)
}

func (s *session) snapshot() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// container tells what List says of the session; false for one in the making.
func (s *session) container() (engine.Container, bool) {
	st := s.snapshot()
	if st.Phase != phaseRunning && st.Phase != phaseStopped {
		return engine.Container{}, false
	}
	return engine.Container{ID: s.id, Running: st.Phase == phaseRunning && st.Exit == nil, Exit: st.Exit}, true
}

// namespace gives the session's network namespace for as long as release is not
// called.
func (s *session) namespace() (ns *os.File, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.net == nil || s.state.Phase != phaseRunning || s.state.Exit != nil {
		return nil, nil, backendai.Errorf(backendai.CodeUnavailable, "session %s is not running", s.id)
	}
	// the session may end meanwhile and its descriptor's number be used again
	fd, err := unix.FcntlInt(s.net.ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("hold network of session %s: %w", s.id, err)
	}
	ns = os.NewFile(uintptr(fd), "network namespace")
	return ns, func() { _ = ns.Close() }, nil
}

// closeHandles gives up what this process holds of a session that goes on, and
// tells whether it has a way to the outside.
func (s *session) closeHandles() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd != nil {
		_ = s.pidfd.Close()
		s.pidfd = nil
	}
	if s.net == nil {
		return false
	}
	_ = s.net.ns.Close()
	outside := s.net.index != 0
	s.net = nil
	return outside
}

// openProcess opens PID 1 of a session for waiting.
func openProcess(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// startTime reads when a process started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	fields, err := statOf(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64) // field 22, proc(5)
}

// bootID names the running boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// signal sends a signal to PID 1; one that is gone is no error.
func (s *session) signal(sig unix.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd == nil {
		return nil
	}
	return sendSignal(s.pidfd, sig)
}

func sendSignal(pidfd *os.File, sig unix.Signal) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal process: %w", err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return fmt.Errorf("signal process: %w", err)
	}
	if sent != nil && !errors.Is(sent, unix.ESRCH) {
		return fmt.Errorf("signal process: %w", sent)
	}
	return nil
}

// waitExit waits until the end of PID 1 is recorded, or until enough comes.
func waitExit[T any](s *session, enough <-chan T) bool {
	select {
	case <-s.exited:
		return true
	case <-enough:
		return false
	}
}
