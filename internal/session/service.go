// Package session is the life of sessions: admission by resource slots, the
// steps from PENDING to TERMINATED, reconciliation with what the engine runs,
// and the ways into a running session. Every access check on sessions is here;
// a session that the caller may not see does not exist for it.
package session

import (
	"context"
	"io"
	"net"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
)

// Store is what the service keeps in the database.
type Store interface {
	// InsertSession fails with CodeSessionExists, its Data being
	// {"existingSessionId": id}, when a live session of the same access key has the name.
	InsertSession(ctx context.Context, s *backendai.Session) error
	UpdateSession(ctx context.Context, s *backendai.Session) error
	Session(ctx context.Context, id string) (*backendai.Session, error)
	FindSessions(ctx context.Context, q Query) (sessions []*backendai.Session, total int, err error)
}

// Query selects sessions. Empty fields do not restrict.
type Query struct {
	AccessKey string
	UserID    string
	Statuses  []backendai.Status
	Filter    string // mini-language of API section 9, on the GraphQL field names
	Order     string
	Offset    int
	Limit     int // 0 is no limit
}

// Images finds and fetches what sessions are made of.
type Images interface {
	// Resolve turns an alias, short name or reference into an image. When the
	// image is not on this machine but could be pulled, it is not Present. When
	// it can be neither, the error is CodeNotFound with the hint which command makes it.
	Resolve(ctx context.Context, name, architecture string) (backendai.Image, error)
	// Pull makes a resolved image present; pulls of one image share one download.
	Pull(ctx context.Context, ref string, progress func(backendai.PullProgress)) (backendai.Image, error)
}

// Folders is where mounts come from.
type Folders interface {
	// Resolve checks what the caller asks to mount and adds the folders that
	// mount by themselves. Every mount comes back with its folder, target and
	// permission set; sources exist, targets neither clash nor are reserved.
	Resolve(ctx context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error)
	// Attach gives the directories behind resolved mounts, just before the
	// container is made: a folder that has gone since is CodeNotFound.
	Attach(ctx context.Context, mounts []backendai.Mount) ([]engine.Mount, error)
}

// Dotfiles are what users want in the home of every session of theirs.
type Dotfiles interface {
	// Files are written below the home before services start.
	Files(ctx context.Context, accessKey string) ([]control.File, error)
	// Bootstrap is the script of sessions that bring none; empty when there is none.
	Bootstrap(ctx context.Context, accessKey string) (string, error)
}

// What the runner tells of files and terminals.
type (
	Terminal  = control.Terminal // an open web terminal
	Listing   = control.Listing  // a folder and what is in it
	FileEntry = control.Entry
	OpenFile  = control.OpenFile // its caller closes it
	Unpacked  = control.Unpacked // what came of an archive
)

// NoteKey is the record of a tar's global header that tells what was left out.
const NoteKey = control.PAXSkipped

// CreateRequest is what a caller asks for; absent values are already defaulted
// from the protocol's, and every field is validated by Create.
type CreateRequest struct {
	Name         string
	Image        string
	Architecture string
	Type         backendai.SessionType
	Domain       string
	Group        string
	Tag          string
	Priority     int
	Resources    map[string]string // as on the wire
	ResourceOpts map[string]string
	Environ      map[string]string
	Mounts       []backendai.Mount
	PreopenPorts []int
	Bootstrap    string
	Startup      string
	BatchTimeout time.Duration
	StartsAt     time.Time
	Dependencies []string
	CallbackURL  string
	ClusterSize  int
	EnqueueOnly  bool
	MaxWait      time.Duration // 0 waits without limit
	Reuse        bool
}

// CreateResult is the session as it was when Create stopped waiting.
type CreateResult struct {
	Session  *backendai.Session
	Created  bool // false: an existing session is used again
	TimedOut bool // MaxWait passed; the session goes on starting
}

// ConnectRequest names an app of a session and how to start it.
type ConnectRequest struct {
	App       string // a name from Apps, or a port number
	Port      int    // a secondary port of the app; 0 is the primary
	Arguments map[string][]string
	Envs      map[string]string
}

// EventFilter selects events. Empty fields do not restrict.
type EventFilter struct {
	Session string // name or id
	Group   string
	Scope   string // "*", "session" or "kernel", or a comma list
}

// API is what transports call; *Service implements it. Session references (ref)
// are a full id, an id prefix, an exact name or a name prefix, the first that
// fits (API section 4); more than one hit is CodeTooManySessions with
// {"matches": […]}.
type API interface {
	Create(ctx context.Context, caller backendai.Caller, req CreateRequest) (CreateResult, error)
	// Find looks among the live sessions; withDead also among those that ended.
	Find(ctx context.Context, caller backendai.Caller, ref string, withDead bool) (*backendai.Session, error)
	// Match lists the live sessions whose id or name begins with prefix.
	Match(ctx context.Context, caller backendai.Caller, prefix string) ([]*backendai.Session, error)
	// List shows users their own sessions, superadmins all.
	List(ctx context.Context, caller backendai.Caller, q Query) (sessions []*backendai.Session, total int, err error)
	// Destroy returns when the session is gone.
	Destroy(ctx context.Context, caller backendai.Caller, ref string, forced bool) (*backendai.Session, error)
	// Restart makes the container anew and keeps its home; it returns when the session runs again.
	Restart(ctx context.Context, caller backendai.Caller, ref string) error
	Rename(ctx context.Context, caller backendai.Caller, ref, name string) error
	// Logs gives what the session printed; with follow, also what it will print. The caller closes it.
	Logs(ctx context.Context, caller backendai.Caller, ref string, follow bool) (io.ReadCloser, error)
	Apps(ctx context.Context, caller backendai.Caller, ref string) ([]backendai.App, error)
	// Connect starts the app if need be and connects to it. The caller closes the connection.
	Connect(ctx context.Context, caller backendai.Caller, ref string, req ConnectRequest) (net.Conn, error)
	ShutdownApp(ctx context.Context, caller backendai.Caller, ref, app string) error
	// Download gives an uncompressed tar of paths below the session's home, whose
	// entries begin with the last parts of the paths; the caller closes it. It is
	// the session's word: whoever unpacks it checks what is in it.
	Download(ctx context.Context, caller backendai.Caller, ref string, paths ...string) (io.ReadCloser, error)
	// Upload unpacks an uncompressed tar below a folder of the session's home.
	Upload(ctx context.Context, caller backendai.Caller, ref, folder string, archive io.Reader) (Unpacked, error)
	// ListFiles lists a folder of the session's home, or tells of one file.
	ListFiles(ctx context.Context, caller backendai.Caller, ref, path string) (Listing, error)
	// OpenFile opens a regular file below the session's home.
	OpenFile(ctx context.Context, caller backendai.Caller, ref, path string) (*OpenFile, error)
	// Terminals lists the open web terminals; EndTerminal ends one of them.
	Terminals(ctx context.Context, caller backendai.Caller, ref string) ([]Terminal, error)
	EndTerminal(ctx context.Context, caller backendai.Caller, ref, name string) error
	// HostKeys are the public keys of the session's sshd, in authorized_keys form.
	HostKeys(ctx context.Context, caller backendai.Caller, ref string) ([]string, error)
	Interrupt(ctx context.Context, caller backendai.Caller, ref string) error
	// Events sends what the caller may see from now on, until ctx ends. A reader
	// that is too slow loses its subscription: the channel closes.
	Events(ctx context.Context, caller backendai.Caller, f EventFilter) (<-chan backendai.Event, error)
}
