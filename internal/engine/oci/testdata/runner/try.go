package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// try attempts one escape and prints what became of it.
func try(what string) {
	var err error
	switch what {
	case "raw-socket":
		_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	case "packet-socket":
		_, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	case "ptrace-init":
		err = syscall.PtraceAttach(1)
	case "keyctl":
		_, _, errno := syscall.Syscall(syscall.SYS_KEYCTL, 0, ^uintptr(2), 0)
		err = zeroIsNil(errno)
	case "userns":
		_, _, errno := syscall.Syscall(syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER, 0, 0)
		err = zeroIsNil(errno)
	case "setuid":
		err = syscall.Setuid(0)
	case "mount":
		err = syscall.Mount("none", "/tmp", "tmpfs", 0, "")
	case "mknod":
		err = syscall.Mknod("/tmp/sda", syscall.S_IFBLK|0o666, 8<<8)
	case "bpf":
		_, _, errno := syscall.Syscall(321, 0, 0, 0)
		err = zeroIsNil(errno)
	case "io-uring":
		_, _, errno := syscall.Syscall(425, 1, 0, 0)
		err = zeroIsNil(errno)
		if errno == syscall.EFAULT {
			err = nil // it was let in
		}
	case "vsock":
		_, err = syscall.Socket(40, syscall.SOCK_STREAM, 0)
	case "init-memory":
		_, err = os.Open("/proc/1/mem")
	case "init-environ":
		_, err = os.ReadFile("/proc/1/environ")
	case "init-root":
		_, err = os.ReadDir("/proc/1/root/")
	case "init-fd":
		_, err = os.ReadDir("/proc/1/fd")
	case "init-exe":
		_, err = os.ReadFile(os.Args[0])
	case "pidfd-getfd":
		fd, _, errno := syscall.Syscall(434, 1, 0, 0)
		if err = zeroIsNil(errno); err == nil {
			_, _, errno = syscall.Syscall(438, fd, 3, 0)
			err = zeroIsNil(errno)
		}
	case "vm-readv":
		b := make([]byte, 8)
		iov := syscall.Iovec{Base: &b[0], Len: 8}
		_, _, errno := syscall.Syscall6(310, 1, uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1, 0)
		err = zeroIsNil(errno)
	case "leave-project":
		err = setAgain(0x801c581f, 0x401c5820) // FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR
	case "leave-project-long":
		err = setAgain(0x801c581f, 1<<32|0x401c5820) // the kernel ignores the upper half
	case "leave-inheritance":
		err = setAgain(0x80086601, 0x40086602) // FS_IOC_GETFLAGS and FS_IOC_SETFLAGS
	case "nothing": // shows that success is told apart
	}
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("done")
}

// setAgain gives the home the attributes that it has, which its owner may.
func setAgain(get, set uintptr) error {
	home, err := os.Open("/home/work")
	if err != nil {
		return nil
	}
	defer home.Close()
	var attributes [64]byte
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, home.Fd(), get, uintptr(unsafe.Pointer(&attributes))); errno != 0 {
		return nil
	}
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, home.Fd(), set, uintptr(unsafe.Pointer(&attributes)))
	return zeroIsNil(errno)
}

func zeroIsNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
