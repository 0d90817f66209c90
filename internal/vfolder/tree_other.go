//go:build !linux

package vfolder

import (
	"context"
	"io/fs"
	"os"
	"time"

	"backendai"
)

func notHere() error {
	return backendai.Errorf(backendai.CodeNotImplemented, "folders are kept on Linux only").
		WithHint("run the server on Linux; the client commands work here")
}

func walk(context.Context, *os.File, func(node) error) error { return notHere() }

func renameAt(*os.File, string, *os.File, string) error { return notHere() }

func freeSpace(string) (free, total int64, err error) { return 0, 0, notHere() }

func look(*os.File, string) (node, error) { return node{}, notHere() }

func openDir(*os.Root, string) (*os.File, error) { return nil, notHere() }

func openFile(*os.Root, string) (*os.File, fs.FileInfo, error) { return nil, nil, notHere() }

func renameNew(*os.Root, string, string) error { return notHere() }

func bootID() []byte { return make([]byte, 16) }

func unsyncable(error) bool { return false }

func openAt(*os.File, string, int) (*os.File, error) { return nil, notHere() }

func readLinkAt(*os.File, string) (string, error) { return "", notHere() }

func createAt(*os.File, string) (*os.File, error) { return nil, notHere() }

func dress(*os.File, string, *os.File, fs.FileMode, time.Time) error { return notHere() }

func symlinkAt(string, *os.File, string, time.Time) error { return notHere() }

func syncAll(*os.File) error { return notHere() }

func spread(string) {}
