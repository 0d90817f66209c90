package oci

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitInfo is siginfo_t as waitid fills it (waitid(2)): the union behind the
// first three words begins with pid, uid and status on 64-bit machines.
type waitInfo struct {
	signo, errno, code, _ int32
	childPID              int32
	childUID              uint32
	status                int32
	_                     [100]byte
}

// The size must be the kernel's: this does not compile otherwise.
var _ [unsafe.Sizeof(unix.Siginfo{})]byte = [unsafe.Sizeof(waitInfo{})]byte{}

func (w *waitInfo) siginfo() *unix.Siginfo { return (*unix.Siginfo)(unsafe.Pointer(w)) }

func (w *waitInfo) pid() int { return int(w.childPID) }

func (w *waitInfo) end() processEnd {
	const exited = 1 // CLD_EXITED; the others are signals
	if w.code == exited {
		return processEnd{known: true, code: int(w.status)}
	}
	return processEnd{known: true, signal: int(w.status)}
}
