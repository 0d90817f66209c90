//go:build unix

package tunnel

import (
	"errors"
	"syscall"
)

func disconnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
