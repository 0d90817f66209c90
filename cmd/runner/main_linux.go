// Command runner is PID 1 of a session. The engine starts it with the
// descriptors of package control; it takes no arguments. It is a Linux program.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"backendai/internal/control"
	"backendai/internal/runner"
	"backendai/internal/runner/process"
)

// The runner shares the memory limit of its session: it collects garbage early,
// and more eagerly still when it grows, for instance with many transfers.
const (
	garbage     = 50       // percent of growth between collections
	memoryLimit = 48 << 20 // bytes
	maxProcs    = 4        // threads that run Go code; transfers gain from a few
	maxConfig   = 16 << 20 // bytes
)

func main() { os.Exit(run(os.Stderr)) }

func run(stderr io.Writer) int {
	survive()
	debug.SetGCPercent(garbage)
	debug.SetMemoryLimit(memoryLimit)
	if runtime.GOMAXPROCS(0) > maxProcs {
		runtime.GOMAXPROCS(maxProcs)
	}
	options, err := inherit()
	if err != nil {
		fmt.Fprintln(stderr, "runner: error:", err)
		return 1
	}
	r, err := runner.New(options)
	if err != nil {
		fmt.Fprintln(stderr, "runner: error:", err)
		return 1
	}
	return r.Run(context.Background()).ExitCode
}

// survive makes this process deaf to signals: only the server ends a session.
// They are caught and dropped rather than ignored, because what is ignored
// stays ignored in the programs that this one starts. The Go runtime would end
// of those named here and drops all others by itself; to ask for one costs two
// changes of thread, which every session's start would pay. The kernel keeps
// SIGKILL, SIGSTOP and what has no handler from inside away from PID 1.
func survive() {
	dropped := make(chan os.Signal, 1) // nobody reads: a full channel drops
	signal.Notify(dropped, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT,
		unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGSYS)
}

// inherit takes the descriptors of package control and keeps them from every
// process of the session.
func inherit() (runner.Options, error) {
	// Neither a debugger nor /proc/1/fd and /proc/1/mem for the user, who has our uid.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return runner.Options{}, fmt.Errorf("hide memory: %w", err)
	}
	for _, fd := range []int{control.ListenFD, control.LogFD, control.RecordFD, control.ConfigFD} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return runner.Options{}, fmt.Errorf("descriptor %d is missing (this program is started by the engine): %w", fd, err)
		}
	}
	// Nor may anything else that was left open by those who started us go on.
	// Before Linux 5.11 there is no such call, and it is the engine's care alone.
	_ = unix.CloseRange(control.ConfigFD+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	file := os.NewFile(control.ConfigFD, "config")
	defer file.Close()
	var config control.Config
	if err := json.NewDecoder(io.LimitReader(file, maxConfig)).Decode(&config); err != nil {
		return runner.Options{}, fmt.Errorf("read config: %w", err)
	}
	socket := os.NewFile(control.ListenFD, "control")
	defer socket.Close()
	listener, err := net.FileListener(socket)
	if err != nil {
		return runner.Options{}, fmt.Errorf("take the control socket: %w", err)
	}
	if l, ok := listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // the path belongs to the engine
	}
	return runner.Options{
		Config:   config,
		Listener: listener,
		Log:      os.NewFile(control.LogFD, "log"),
		Record:   os.NewFile(control.RecordFD, "record"),
		Table:    process.NewTable(os.Getpid() == 1),
	}, nil
}
