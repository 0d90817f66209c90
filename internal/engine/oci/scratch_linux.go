package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// The folders of a session's bundle, which lies below bundlesDir in the scratch.
const (
	bundlesDir = "sessions"
	rootDir    = "rootfs"
	mountsDir  = "mounts" // of folders of the host
	etcDir     = "etc"    // files that say who the session is
)

// scratchSize bounds the scratch; a session takes some 50 KiB of it.
const scratchSize = "1g"

// openScratch mounts a fresh file system in memory at dir, for all that needs
// neither a disk nor to outlive this process: a disk would take longer to make
// and remove these small files than everything else that starts a session. The
// mount is gone with the process (see [Isolate]); what an earlier engine of this
// process left mounted there goes first.
func openScratch(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	if err := unmount(dir); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("backend.ai", dir, "tmpfs", flags, "mode=0700,size="+scratchSize); err != nil {
		return fmt.Errorf("mount run folder %s: %w", dir, err)
	}
	return nil
}

// closeScratch takes the scratch away. Running containers do not need it.
func closeScratch(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove run folder: %w", err)
	}
	return nil
}
