package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"backendai"
)

// ociRuntime is an OCI runtime, driven by its command line.
type ociRuntime struct {
	path string   // absolute
	root string   // where it keeps its state
	copy *os.File // of the program in sealed memory; nil runs the one at path
}

// seal makes a copy of the program, which the caller closes. Both crun and runc
// would make one at every call, and start anew from it, lest a container gets at
// the program on the disk; they see that this one is out of its reach. A program
// that is replaced on the disk is used by the next engine.
func (r ociRuntime) seal() (ociRuntime, error) {
	if !r.plain() {
		return r, nil
	}
	f, err := sealedProgram(r.path)
	if err != nil {
		return r, err
	}
	r.copy = f
	return r, nil
}

// findRuntime finds the wanted runtime, or the best that there is.
func findRuntime(want string) (string, error) {
	candidates := []string{"crun", "runc"}
	if want != "" {
		candidates = []string{want}
	}
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			return filepath.Abs(path)
		}
		// a server's PATH may lack the folders of root's programs
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, c)); err == nil && !filepath.IsAbs(c) {
				return path, nil
			}
		}
	}
	return "", backendai.Errorf(backendai.CodeUnavailable, "no OCI runtime: %s not found", strings.Join(candidates, " or ")).
		WithHint("install the package crun")
}

func (r ociRuntime) isCrun() bool { return strings.HasPrefix(filepath.Base(r.path), "crun") }

// launch is one container to start.
type launch struct {
	id     string
	bundle string
	stdio  *os.File   // the container's standard output and error
	extra  []*os.File // its descriptors 3 and up
}

// run starts a container and returns its PID 1. When it fails, the runtime may
// have left parts behind.
func (r ociRuntime) run(ctx context.Context, l launch) (pid int, err error) {
	pidFile, logPath := filepath.Join(l.bundle, "pid"), filepath.Join(l.bundle, "runtime.log")
	args := []string{"run", "--detach", "--bundle", l.bundle, "--pid-file", pidFile}
	if len(l.extra) > 0 {
		args = append(args, "--preserve-fds", strconv.Itoa(len(l.extra)))
	}
	cmd := r.command(ctx, logPath, append(args, l.id)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = l.stdio, l.stdio, l.extra
	if err := runToDeath(cmd); err != nil {
		return 0, r.explain("start container", logPath, err)
	}
	return readPID(pidFile)
}

func readPID(file string) (pid int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read pid file: %w", err)
	}
	if pid, err = strconv.Atoi(string(bytes.TrimSpace(b))); err != nil || pid <= 1 {
		return 0, fmt.Errorf("read pid file: %q is no process id", b)
	}
	return pid, nil
}

// plain tells whether a container of this runtime is nothing but its processes,
// its cgroup and a folder of the runtime's.
func (r ociRuntime) plain() bool {
	base := filepath.Base(r.path)
	return strings.HasPrefix(base, "crun") || strings.HasPrefix(base, "runc")
}

// remove removes what the runtime keeps of a container whose processes are gone.
// For a plain one that is less than starting the runtime would take. A container
// that it does not know is no error.
func (r ociRuntime) remove(ctx context.Context, id string) error {
	folder := filepath.Join(r.root, id)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if r.plain() {
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("remove folder of container: %w", err)
		}
		return nil
	}
	return r.destroy(ctx, id)
}

// destroy has the runtime kill and remove a container.
func (r ociRuntime) destroy(ctx context.Context, id string) error {
	var said bytes.Buffer
	cmd := r.command(ctx, "", "delete", "--force", id)
	cmd.Stderr = &said
	if err := runToDeath(cmd); err != nil {
		return fmt.Errorf("delete container %s: %s: %w", id, lastLine(said.Bytes()), err)
	}
	return nil
}

func (r ociRuntime) command(ctx context.Context, log string, args ...string) *exec.Cmd {
	global := []string{"--root", r.root}
	if log != "" {
		global = append(global, "--log", log)
	}
	cmd := exec.CommandContext(ctx, r.path, append(global, args...)...)
	if r.copy != nil {
		cmd.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), r.copy.Fd())
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// runToDeath runs a command that must not outlive this process, or a start
// could finish after the next server has swept. The signal comes when the
// thread ends that made the command, so it is kept.
func runToDeath(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// explain adds the runtime's own last words to an error.
func (r ociRuntime) explain(doing, log string, err error) error {
	b, readErr := os.ReadFile(log)
	if readErr != nil || len(bytes.TrimSpace(b)) == 0 {
		return fmt.Errorf("%s with %s: %w", doing, r.path, err)
	}
	return fmt.Errorf("%s with %s: %s: %w", doing, r.path, lastLine(b), err)
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return string(b[:min(len(b), 400)])
}

// compileFilter gives the profile as the program that crun compiles of it, in
// base64: compiling takes half of a start's time, and crun does it anew each
// time unless told the outcome. The program is kept in dir under a name that
// changes with all that it depends on. Other runtimes give "".
func (r ociRuntime) compileFilter(ctx context.Context, m machine, p probe, dir string) (string, error) {
	if !r.isCrun() {
		return "", nil
	}
	version, err := exec.CommandContext(ctx, r.path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", r.path, err)
	}
	text, err := json.Marshal(p.profile)
	if err != nil {
		return "", fmt.Errorf("encode seccomp profile: %w", err)
	}
	sum := sha256.New()
	for _, part := range [][]byte{text, version, []byte(runtime.GOARCH), []byte(libseccomp())} {
		fmt.Fprintf(sum, "%d:", len(part))
		sum.Write(part)
	}
	name := filepath.Join(dir, "seccomp-"+hex.EncodeToString(sum.Sum(nil)[:16])+".bpf")
	if program, err := os.ReadFile(name); err == nil && validProgram(program) {
		return base64.StdEncoding.EncodeToString(program), nil
	}
	program, err := r.compile(ctx, m, p)
	if err != nil {
		return "", err
	}
	stale, err := filepath.Glob(filepath.Join(dir, "seccomp-*.bpf"))
	if err != nil {
		return "", fmt.Errorf("list seccomp programs: %w", err)
	}
	for _, old := range stale {
		if err := os.Remove(old); err != nil {
			return "", fmt.Errorf("remove stale seccomp program: %w", err)
		}
	}
	if err := os.WriteFile(name+".next", program, 0o600); err != nil {
		return "", fmt.Errorf("keep seccomp program: %w", err)
	}
	if err := os.Rename(name+".next", name); err != nil {
		return "", fmt.Errorf("keep seccomp program: %w", err)
	}
	return base64.StdEncoding.EncodeToString(program), nil
}

// validProgram tells whether a file can be a classic BPF program: whole
// instructions of 8 bytes, as many as the kernel takes.
func validProgram(b []byte) bool {
	return len(b) > 0 && len(b)%unix.SizeofSockFilter == 0 && len(b)/unix.SizeofSockFilter <= unix.BPF_MAXINSNS
}

// probe is a container that is made and never started, to see that the runtime
// works and what it makes of the seccomp profile.
type probe struct {
	profile *specs.LinuxSeccomp
	bundle  string
	runner  string
	cgroup  string
}

// compile makes the probe and takes the program that crun compiled for it.
func (r ociRuntime) compile(ctx context.Context, m machine, p probe) (program []byte, err error) {
	const id = "probe"
	pidFile := filepath.Join(p.bundle, "pid")
	defer func() {
		err = errors.Join(err, r.destroy(context.WithoutCancel(ctx), id))
		if pid, readErr := readPID(pidFile); readErr == nil {
			err = errors.Join(err, killAndWait(pid)) // it is our child now, for us to reap
		}
		err = errors.Join(err, os.RemoveAll(p.bundle))
	}()
	rootfs := filepath.Join(p.bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o700); err != nil {
		return nil, fmt.Errorf("make probe: %w", err)
	}
	s := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: rootfs},
		Process: m.process(),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			bind(p.runner, runnerPath, true),
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}},
			Seccomp:    p.profile, CgroupsPath: p.cgroup,
		},
	}
	if err := writeBundle(p.bundle, s); err != nil {
		return nil, err
	}
	log := filepath.Join(p.bundle, "runtime.log")
	if err := runToDeath(r.command(ctx, log, "create", "--bundle", p.bundle, "--pid-file", pidFile, id)); err != nil {
		return nil, r.explain("try containers", log, err)
	}
	if program, err = os.ReadFile(filepath.Join(r.root, id, "seccomp.bpf")); err != nil {
		return nil, fmt.Errorf("take compiled seccomp program: %w", err)
	}
	if !validProgram(program) {
		return nil, fmt.Errorf("take compiled seccomp program: %d bytes are none", len(program))
	}
	return program, nil
}

func writeBundle(bundle string, s *specs.Spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600); err != nil {
		return fmt.Errorf("write specification: %w", err)
	}
	return nil
}

// libseccomp tells which build of the library the runtime links to, by the name,
// size and time of its file: another one may compile another program.
func libseccomp() string {
	var found strings.Builder
	for _, pattern := range []string{"/usr/lib/*/libseccomp.so.2", "/usr/lib/libseccomp.so.2", "/usr/lib64/libseccomp.so.2", "/lib/libseccomp.so.2"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are constant and well formed
		}
		for _, name := range names {
			target, err := filepath.EvalSymlinks(name)
			if err != nil {
				continue
			}
			if info, err := os.Stat(target); err == nil {
				fmt.Fprintf(&found, "%s %d %d\n", target, info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return found.String()
}
