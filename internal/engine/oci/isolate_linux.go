package oci

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"backendai"
)

// isolatedEnv tells the program that it was executed again in the mount
// namespace named by the value.
const isolatedEnv = "BACKENDAI_MOUNT_NAMESPACE"

// Isolate puts this process into a mount namespace of its own, by executing the
// program once more, and makes it the parent of its sessions when their own
// parent ends. Session mounts then vanish with the server instead of leaking,
// while running containers keep theirs; mounts of the host still arrive. On a
// hybrid cgroup host it also hides the unified hierarchy, without which crun
// refuses to work. Call it first in main; it needs root, and does nothing more
// when called again.
func Isolate() error {
	here, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read mount namespace: %w", err)
	}
	if os.Getenv(isolatedEnv) == here {
		if err := os.Unsetenv(isolatedEnv); err != nil {
			return fmt.Errorf("clean environment: %w", err)
		}
		return becomeSubreaper()
	}
	if isolated, err := alreadyIsolated(); err != nil || isolated {
		return err
	}
	if os.Geteuid() != 0 {
		return backendai.Errorf(backendai.CodeForbidden, "the native engine needs root").
			WithHint("run the server as root")
	}
	runtime.LockOSThread() // exec replaces this thread's namespace for the whole process
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := hideUnified(); err != nil {
		return err
	}
	here, err = os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read mount namespace: %w", err)
	}
	env := append(os.Environ(), isolatedEnv+"="+here)
	// the link and not its target: an upgrade may have replaced the file
	if err := unix.Exec("/proc/self/exe", os.Args, env); err != nil {
		return fmt.Errorf("execute again: %w", err)
	}
	return nil // not reached
}

// alreadyIsolated tells whether an earlier call did its work: then this process
// is a subreaper, which nothing else makes it.
func alreadyIsolated() (bool, error) {
	var flag int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&flag)), 0, 0, 0); err != nil {
		return false, fmt.Errorf("read subreaper flag: %w", err)
	}
	return flag != 0, nil
}

func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

const unifiedPath = "/sys/fs/cgroup/unified"

// hideUnified unmounts the cgroup v2 half of a hybrid host.
func hideUnified() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(unifiedPath, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil // not hybrid
	}
	if err := unix.Unmount(unifiedPath, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", unifiedPath, err)
	}
	return nil
}
