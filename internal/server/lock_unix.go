//go:build unix

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"backendai"
)

// lockFolder makes the state directory and takes it for this process. Closing
// the file, or the end of the process, gives it back.
func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the state directory %s cannot be made: %w", dir, err).
			WithHint("choose another with --state-dir")
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, backendai.Errorf(backendai.CodeUnavailable, "the state directory %s cannot be written: %w", dir, err).
			WithHint("choose another with --state-dir")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, backendai.Errorf(backendai.CodeUnavailable, "another server runs on the state directory %s", dir).
				WithHint("stop it, or give this one a directory of its own with --state-dir")
		}
		return nil, fmt.Errorf("lock state directory %q: %w", dir, err)
	}
	return f, nil
}
