package process

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Environ is an environment in the form of exec.Cmd, in order of name.
func Environ(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// TempDir is a folder for passing files: TMPDIR or, in an image that lacks /tmp,
// what else can be written to.
func TempDir(env map[string]string) string {
	for _, dir := range []string{env["TMPDIR"], "/tmp", "/dev/shm", env["HOME"]} {
		if filepath.IsAbs(dir) && unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return dir
		}
	}
	return "/tmp" // its absence is the error that is told
}

// WorkDir is where processes start: dir or, where that is none that can be
// entered, the root.
func WorkDir(dir string) string {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || unix.Access(dir, unix.X_OK) != nil {
		return "/"
	}
	return dir
}

// LookPath finds a program by the PATH of env, which is not that of this
// process. A name with a slash is a path below dir unless it is absolute.
func LookPath(program string, env map[string]string, dir string) (string, error) {
	if strings.Contains(program, "/") {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		if err := executable(program); err != nil {
			return "", err
		}
		return program, nil
	}
	for folder := range strings.SplitSeq(env["PATH"], ":") {
		if !filepath.IsAbs(folder) {
			continue // the working directory is no place to take programs from
		}
		if path := filepath.Join(folder, program); executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %q is not in the session's PATH: %w", program, fs.ErrNotExist)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("find program: %s cannot be executed", path)
	}
	return nil
}
