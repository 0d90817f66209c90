package oci

import (
	"context"
	"log/slog"

	"backendai"
)

// The kinds of network that sessions can have.
const (
	NetworkNAT  = "nat"  // a way to the outside through the host's address
	NetworkNone = "none" // nothing but the session's own loopback
)

// Images gives the folders that make up an image's root.
type Images interface {
	// Layers returns the folders of an image's layers, the topmost first, and
	// keeps them for owner until it releases them.
	Layers(ctx context.Context, digest, owner string) ([]string, error)
	// Release gives up what owner keeps. Nothing kept is no error.
	Release(ctx context.Context, owner string) error
}

// Options are what an engine is made of. StateDir and Images are required.
type Options struct {
	StateDir string          // sessions, homes and logs; absolute; the engine owns it
	RunDir   string          // where the engine mounts what needs no disk and ends with it; default /run/backend.ai
	Runtime  string          // name or path of the OCI runtime; default crun, else runc
	Images   Images          // where root file systems come from
	Runner   string          // path of the runner binary; default the embedded one
	Capacity backendai.Slots // what to offer instead of the whole machine, by slot
	Network  string          // NetworkNAT (default) or NetworkNone for all sessions
	Logger   *slog.Logger    // nil discards
}
