package vfolder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What x/sys/unix lacks of linux/fs.h, linux/quota.h and linux/dqblk_xfs.h.
const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherited     = 0x200      // FS_XFLAG_PROJINHERIT

	projectQuota = 2        // PRJQUOTA
	getQuota     = 0x800007 // Q_GETQUOTA
	setQuota     = 0x800008 // Q_SETQUOTA
	blockLimits  = 1        // QIF_BLIMITS
	quotaBlock   = 1024     // bytes, in which limits are given
	getState     = 0x5808   // Q_XGETQSTATV
	enforcing    = 1 << 5   // FS_QUOTA_PDQ_ENFD
)

// attributes is struct fsxattr.
type attributes struct {
	flags, extent, extents, project, cow uint32

	_ [8]byte
}

// quotaRecord is struct if_dqblk.
type quotaRecord struct {
	hardBlocks, softBlocks, bytes  uint64 // the limits in quotaBlock
	hardInodes, softInodes, inodes uint64
	blockTime, inodeTime           uint64
	valid                          uint32

	_ uint32
}

// quotaState is struct fs_quota_statv.
type quotaState struct {
	version int8
	_       byte
	flags   uint16

	_ uint32
	_ [19]uint64
}

// quotactl asks the file system of an open file about projects.
func quotactl(f *os.File, command, id uint32, answer unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(answer), 0, 0)
	if errno != 0 {
		return &fs.PathError{Op: "quotactl_fd", Path: f.Name(), Err: errno}
	}
	return nil
}

// enforcesProjects tells whether a file system holds projects to their limits.
// One that does not even count them has no better answer than an error.
func enforcesProjects(dir *os.File) bool {
	state := quotaState{version: 1}
	return quotactl(dir, getState, 0, unsafe.Pointer(&state)) == nil && state.flags&enforcing != 0
}

// projectFree tells whether nothing on a file system has a project's number, and
// nobody has set limits for it.
func projectFree(dir *os.File, id uint32) (bool, error) {
	var q quotaRecord
	err := quotactl(dir, getQuota, id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	return q == quotaRecord{valid: q.valid, blockTime: q.blockTime, inodeTime: q.inodeTime}, err
}

// projectUse is how many bytes of the disk a project takes.
func projectUse(dir *os.File, id uint32) (uint64, error) {
	var q quotaRecord
	err := quotactl(dir, getQuota, id, unsafe.Pointer(&q))
	return q.bytes, err
}

// limitProject sets the most bytes that a project may take; 0 removes the limit.
func limitProject(dir *os.File, id uint32, bytes uint64) error {
	q := quotaRecord{hardBlocks: (bytes + quotaBlock - 1) / quotaBlock, valid: blockLimits}
	if err := quotactl(dir, setQuota, id, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("limit project %d: %w", id, err)
	}
	return nil
}

func ioctl(f *os.File, request uintptr, a *attributes) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))); errno != 0 {
		return &fs.PathError{Op: "ioctl", Path: f.Name(), Err: errno}
	}
	return nil
}

// projectOf is the project of a file or directory; 0 is none.
func projectOf(f *os.File) (uint32, error) {
	var a attributes
	err := ioctl(f, getAttributes, &a)
	return a.project, err
}

// setProject gives a file or directory a project. What is made in a directory
// later inherits it.
func setProject(f *os.File, id uint32, dir bool) error {
	var a attributes
	if err := ioctl(f, getAttributes, &a); err != nil {
		return err
	}
	a.project = id
	if dir {
		a.flags |= inherited
	}
	if err := ioctl(f, setAttributes, &a); err != nil {
		return fmt.Errorf("give project %d: %w", id, err)
	}
	return nil
}

// diskUse is how many bytes of the disk a directory takes itself, and how many a
// block of its file system has.
func diskUse(dir string) (taken, block uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	var whole unix.Statfs_t
	if err := unix.Statfs(dir, &whole); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint64(st.Blocks) * 512, uint64(whole.Bsize), nil
}
