package process

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launcher starts processes on a thread of its own that has given up the right
// to signal this process, which they inherit. A handler for every signal is not
// enough for PID 1: a user can queue a SIGSEGV that looks like a fault of its
// own (rt_sigqueueinfo(2), or F_SETSIG of fcntl(2)), and the Go runtime then has
// to end. Where the kernel has no such scopes (before 6.12) processes are
// started all the same.
func (t *Table) launcher(stop <-chan struct{}) {
	// Never unlocked: the thread ends with the goroutine, its domain with it.
	runtime.LockOSThread()
	_ = scopeSignals()
	for {
		select {
		case l := <-t.launches:
			err := l.cmd.Start()
			if err == nil {
				expend(l.cmd.Process.Pid)
			}
			l.result <- err
		case <-stop:
			return
		}
	}
}

// expend makes the kernel, when the session's memory is used up, end the process
// with the PID or what that starts rather than this one, with which the session
// would end.
func expend(pid int) {
	// It fails only where the process is gone or kept from everyone's reach.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
}

// scopeSignals puts this thread, and what it will start, into a Landlock domain
// that can signal only itself (landlock(7)).
func scopeSignals() error {
	attr := unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_SIGNAL}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("make Landlock ruleset: %w", errno)
	}
	defer unix.Close(int(fd))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("enter Landlock domain: %w", errno)
	}
	return nil
}
