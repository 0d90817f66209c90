package archive

import (
	"os"

	"golang.org/x/sys/unix"
)

// StartWriteback tells the kernel to begin writing a range of a file to the disk,
// so that putting it there for certain does not wait for all of it at the end.
func StartWriteback(f *os.File, offset, length int64) {
	// Not all file systems can; the bytes are written later then.
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
