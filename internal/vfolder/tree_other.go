//go:build !linux

package vfolder

import (
	"context"
	"io/fs"
	"os"
	"time"

	"backendai"
)

// node is one thing in a tree.
type node struct {
	path     string
	name     string
	parent   *os.File
	mode     fs.FileMode
	size     int64
	modified time.Time
	changed  time.Time
	inode    uint64
	links    uint64
}

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

func startWriteback(*os.File, int64, int64) {}

func bootID() []byte { return make([]byte, 16) }

func unsyncable(error) bool { return false }
