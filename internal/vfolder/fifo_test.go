//go:build linux

package vfolder_test

import "syscall"

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o644) }
