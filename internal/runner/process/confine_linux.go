package process

import (
	"fmt"
	"os"
	"runtime"
	"sync"
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
	reserve := sync.OnceFunc(reserveThreads)
	for {
		select {
		case l := <-t.launches:
			reserve()
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

// spareThreads is how many threads reserveThreads makes.
const spareThreads = 24

// reserveThreads makes more threads than are needed now, which the Go runtime
// then keeps: it ends the process when it wants another one and there can be
// none, and a session that has run into its limit of processes must not lose its
// PID 1 by that. Until something runs in the session nothing can take them.
func reserveThreads() {
	var here sync.WaitGroup
	enough := make(chan struct{})
	for range spareThreads {
		here.Add(1)
		go func() {
			runtime.LockOSThread() // each on a thread of its own
			defer runtime.UnlockOSThread()
			here.Done()
			<-enough
		}()
	}
	here.Wait()
	close(enough)
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
