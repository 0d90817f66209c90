// Package fake is an engine whose sessions are plain processes of this host, for
// fast tests of what stands above engines. The runner is the real one, run in
// this process; each session has a home of its own and its own address of
// 127.0.0.0/8, on which its apps listen.
//
// There is no isolation and no image: the host is the image, slots limit
// nothing, mounts are links below the home. Never let strangers use it.
package fake

import (
	"context"
	"maps"
	"runtime"

	"backendai"
	"backendai/internal/engine"
)

// Options of New. Dir is required.
type Options struct {
	// Dir keeps a folder per session: its home, log and exit record.
	Dir string
	// Definitions is the directory of service definitions, which stands for the
	// image's /etc/backend.ai/service-defs. Ports are free in each session, as
	// long as the services listen on {loopback}. "" is the host's own.
	Definitions string
	// Slots is what Capacity tells, by slot, instead of the host's cores and 64 GiB.
	Slots backendai.Slots
	// FailCreate, if not nil, is called by each Create before it does anything.
	// Its error is Create's; it may block to make a Create slow.
	FailCreate func(engine.Spec) error
}

// defaultMemory is told, never used.
const defaultMemory = 64 << 30

// Capacity implements engine.Engine.
func (e *Engine) Capacity(context.Context) (backendai.Slots, error) {
	slots := backendai.Slots{
		backendai.SlotCPU: int64(runtime.NumCPU()) * 1000,
		backendai.SlotMem: defaultMemory,
	}
	maps.Copy(slots, e.options.Slots)
	return slots, nil
}
