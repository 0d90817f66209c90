// Package files moves the session's files for transfers: lists, reads, packs
// into a tar and unpacks one, always below the home, whatever links a user has
// put there. Folders that are mounted below the home belong to it. Memory is
// flat whatever the number and the size of the files.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"backendai"
)

const (
	// maxDepth bounds how deep folders may be nested; each level is an open file.
	maxDepth = 256
	// batch is how many entries of a folder are held in memory.
	batch = 256
	// bufferSize is how much of a file is moved at a time.
	bufferSize = 64 << 10
)

// local makes a path, which is relative to the home or absolute and below it,
// one below the home. Only os.Root knows where its links lead.
func local(home, name string) (string, error) {
	clean := name
	if filepath.IsAbs(clean) {
		rel, err := filepath.Rel(home, clean)
		if err != nil {
			return "", outside(name)
		}
		clean = rel
	}
	clean = filepath.Clean(clean)
	if !filepath.IsLocal(clean) || strings.Contains(clean, "\x00") {
		return "", outside(name)
	}
	return clean, nil
}

// find gives the home, the path below it and what is there. Links are followed
// within the home. The caller closes the home.
func find(home, name string) (*os.Root, string, fs.FileInfo, error) {
	clean, err := local(home, name)
	if err != nil {
		return nil, "", nil, err
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, "", nil, fmt.Errorf("open home: %w", err)
	}
	info, err := root.Stat(clean)
	if err != nil {
		return nil, "", nil, errors.Join(explain(name, err), root.Close())
	}
	return root, clean, info, nil
}

// openFile opens a regular file for reading, without waiting for the writer of
// a FIFO that may have taken its place.
func openFile(in *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := in.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: name, Err: errNotFile}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

var errNotFile = errors.New("it is not a regular file")

func outside(name string) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "%q is outside of the session's home", name).
		WithHint("paths are relative to the home")
}

// explain makes an error of the filesystem one for people.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return backendai.Errorf(backendai.CodeInvalidParams, "no such file: %q", name).
			WithHint("paths are relative to the session's home")
	case errors.Is(err, fs.ErrPermission):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q may not be read by the session's user", name)
	case errors.Is(err, syscall.ELOOP):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q is a link in a circle", name)
	case errors.Is(err, errNotFile):
		return backendai.Errorf(backendai.CodeInvalidParams, "%q is not a regular file", name)
	case escapes(err):
		return outside(name)
	default:
		return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be read: %w", name, reason(err))
	}
}

// escapes tells that a path left its os.Root, which has no value for it.
func escapes(err error) bool { return strings.Contains(err.Error(), "path escapes from parent") }

// reason is what the system says, without operation and path.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

// kind names what is neither file, folder nor link.
func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return "a special file"
	}
}
