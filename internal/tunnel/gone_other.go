//go:build !unix

package tunnel

import (
	"errors"
	"syscall"
)

func disconnected(err error) bool {
	const notConnected = syscall.Errno(10057) // WSAENOTCONN
	return errors.Is(err, notConnected) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
