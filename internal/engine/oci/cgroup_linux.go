package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// inspect reads what specifications must know of this machine.
func inspect() (machine, error) {
	var m machine
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		return m, fmt.Errorf("find cgroups: %w", err)
	}
	m.unified = fs.Type == unix.CGROUP2_SUPER_MAGIC
	if m.unified {
		// the root cgroup has no such file; the memory controller always brings it below
		m.swapLimit, m.roots = true, []string{cgroupRoot}
	} else {
		_, err := os.Stat(cgroupRoot + "/memory/memory.memsw.limit_in_bytes")
		m.swapLimit = err == nil
		if m.roots, err = hierarchies(); err != nil {
			return m, err
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return m, fmt.Errorf("read limit of open files: %w", err)
	}
	m.files = limit.Max
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return m, fmt.Errorf("read own oom score: %w", err)
	}
	m.oomScore, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return m, fmt.Errorf("read own oom score: %w", err)
	}
	return m, nil
}

// hierarchies lists the mount points of cgroup v1 that Isolate left.
func hierarchies() ([]string, error) {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	var roots []string
	for _, e := range entries {
		if e.IsDir() {
			roots = append(roots, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	return roots, nil
}

// cgroupDirs gives the folders of a cgroup, one a hierarchy.
func (m machine) cgroupDirs(name string) []string {
	dirs := make([]string, len(m.roots))
	for i, root := range m.roots {
		dirs[i] = root + name
	}
	return dirs
}

// oomKills tells how many processes of a cgroup its memory limit has ended.
func (m machine) oomKills(name string) int {
	file := cgroupRoot + name + "/memory.events"
	if !m.unified {
		file = cgroupRoot + "/memory" + name + "/memory.oom_control"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0 // no memory controller, or the cgroup is gone
	}
	return parseOOMKills(b)
}

func parseOOMKills(file []byte) int {
	for line := range bytes.Lines(file) {
		if n, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			kills, err := strconv.Atoi(string(n))
			if err == nil {
				return kills
			}
		}
	}
	return 0
}

// killCgroup kills what is left in a cgroup and waits until it is gone.
func (m machine) killCgroup(name string) error {
	dir := cgroupRoot + "/pids" + name
	if m.unified {
		dir = cgroupRoot + name
		// all at once, so that none can fork on; Linux before 5.14 has it not
		if err := os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kill a cgroup: %w", err)
		}
	}
	for {
		pids, err := processes(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := killAndWait(pid); err != nil {
				return err
			}
		}
	}
}

func processes(dir string) ([]int, error) {
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of a cgroup: %w", err)
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("list processes of a cgroup: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// killAndWait kills one process and returns when it has left its cgroup.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// an orphan is ours to reap; any other has its own parent
	_ = unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED, nil)
	return nil
}

// removeCgroup removes a cgroup, whose processes are gone, from all hierarchies.
func (m machine) removeCgroup(name string) error {
	var failed error
	for _, dir := range m.cgroupDirs(name) {
		if err := removeTree(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return failed
}

// removeTree removes a folder and the folders in it; a cgroup's files go with it.
func removeTree(dir string) error {
	err := os.Remove(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err // few have folders in them
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// sessionCgroups lists the cgroups below the engine's own.
func (m machine) sessionCgroups(parent string) []string {
	seen := map[string]bool{}
	var ids []string
	for _, dir := range m.cgroupDirs(parent) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				ids = append(ids, e.Name())
			}
		}
	}
	return ids
}
