package oci

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sealed puts content into memory that nobody can change and that has no path of
// its own. The caller closes it.
func sealed(name string, flags int, content io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
	if err != nil {
		return nil, fmt.Errorf("make %s in memory: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = io.Copy(f, content); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s in memory: %w", name, err), f.Close())
	}
	return f, nil
}

// sealedProgram is a program in such memory, to be run by its descriptor.
func sealedProgram(path string) (*os.File, error) {
	program, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	if _, err := elf.NewFile(program); err != nil { // a script has to know where it is
		return nil, fmt.Errorf("read program %s: %w", path, err)
	}
	if _, err := program.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	f, err := sealed("runtime", unix.MFD_EXEC, program)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every one can be run
		f, err = sealed("runtime", 0, program)
	}
	return f, err
}
