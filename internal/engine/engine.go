// Package engine is the contract between the platform and what runs its
// containers. Drivers live in the folders below it; enginetest is the suite
// that every driver passes.
package engine

import (
	"context"
	"io"
	"net"
	"time"

	"backendai"
	"backendai/internal/control"
)

// Engine runs session containers. Every method is idempotent and safe for
// concurrent use; ids are session ids. Errors that users should read are
// *backendai.Error.
type Engine interface {
	// Create makes the container and starts it. The image is present. A home
	// left by an earlier container of the same id is kept and used again. When
	// Create returns nil the runner's control socket takes connections (the
	// runner need not answer yet); when it returns an error nothing is left
	// but that earlier home.
	Create(ctx context.Context, spec Spec) error
	// Stop ends the container, asking PID 1 first and killing all after grace
	// (0 kills at once). Home, log and exit record stay. Stopping a container
	// that does not exist is no error.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove stops the container and leaves nothing of it, its home and log
	// included.
	Remove(ctx context.Context, id string, grace time.Duration) error
	// List tells what exists, running or dead but not removed, also after a
	// crash of this process.
	List(ctx context.Context) ([]Container, error)
	// Watch sends every exit that happens from now on, until ctx ends; then it
	// closes the channel.
	Watch(ctx context.Context) (<-chan Exit, error)
	// Dial connects to the runner's control socket. The caller closes it.
	Dial(ctx context.Context, id string) (net.Conn, error)
	// DialPort connects to a TCP port on the session's own loopback. The caller
	// closes the connection, which has CloseWrite where the transport has it.
	DialPort(ctx context.Context, id string, port int) (net.Conn, error)
	// Logs gives what the session printed, the newest limit bytes of it, also
	// when the container is stopped; the caller closes it.
	Logs(ctx context.Context, id string, limit int64) (io.ReadCloser, error)
	// Capacity is what the machine, or the configuration, has to give.
	Capacity(ctx context.Context) (backendai.Slots, error)
}

// Spec is all that a driver needs to make one container.
type Spec struct {
	ID       string
	Hostname string
	Image    backendai.Image
	Slots    backendai.Slots // cpu and mem are limits; 0 is none
	Shmem    int64           // bytes of /dev/shm
	Pids     int             // most processes and threads; 0 is the driver's default
	Mounts   []Mount
	Egress   bool           // a way to the outside; never to other sessions or the host
	Runner   control.Config // what PID 1 is told
}

// Mount is a host directory in the container. Files keep their owner on the
// host and belong to the session's user inside.
type Mount struct {
	Source   string // on the host; no user can change what it leads to
	Subpath  string // below the source; users may put links there, none of which is followed out
	Target   string // in the container, absolute
	ReadOnly bool
}

// Container is one that exists.
type Container struct {
	ID      string
	Running bool
	Exit    *Exit // when it is not running and its end is known
}

// Exit is the end of a container.
type Exit struct {
	ID     string
	Code   int    // exit code of PID 1; 128 + the signal when a signal ended it; -1 when not known
	Reason string // one of the backendai.Reason constants
	OOM    bool   // the memory limit ended it
	Detail string // one line for people
	At     time.Time
}
