package vfolder

import (
	"io/fs"
	"os"
	"time"
)

// node is one thing in a tree.
type node struct {
	path     string // below the start of the walk
	name     string
	parent   *os.File // open while the node is visited
	mode     fs.FileMode
	size     int64
	modified time.Time
	changed  time.Time
	inode    uint64
	links    uint64
}

// The methods of fs.FileInfo.

func (n node) Name() string       { return n.name }
func (n node) Size() int64        { return n.size }
func (n node) Mode() fs.FileMode  { return n.mode }
func (n node) ModTime() time.Time { return n.modified }
func (n node) IsDir() bool        { return n.mode.IsDir() }
func (n node) Sys() any           { return nil }
