//go:build !linux

package image

import (
	"archive/tar"
	"errors"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/snapshots"
)

var errNotLinux = errors.New("images can be kept on Linux only")

func newSnapshotter(string) (snapshots.Snapshotter, error) { return nil, errNotLinux }

func convertWhiteout(*tar.Header, string) (bool, error) { return false, errNotLinux }

func syncFiles(string) error { return errNotLinux }

func mountScratch(string) error { return errNotLinux }

func unmountScratch(string) error { return nil }

func freeSpace(string) (int64, error) { return 0, errNotLinux }

func outOfSpace(error) bool { return false }

func processGroup() *syscall.SysProcAttr { return nil }

func signalGroup(p *os.Process, sig syscall.Signal) error { return p.Signal(sig) }

func lockFolder(string, bool) (*os.File, error) { return nil, errNotLinux }
