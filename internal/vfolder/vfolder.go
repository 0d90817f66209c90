// Package vfolder is virtual folders: directories on the storage hosts that
// outlive sessions, are mounted into them, shared between users, and filled and
// emptied over HTTP. Who may do what in a folder is decided here; a folder that
// the caller may not see does not exist for it.
//
// A folder is the directory <host>/<2 digits>/<30 digits> of its id. Its content
// is in "data" below that, which is what sessions see; what is still being
// uploaded is in "upload" beside it, on the same file system, so that a finished
// file appears by one rename. Paths that users name go through os.Root alone.
package vfolder

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tus/tusd/v2/pkg/memorylocker"

	"backendai"
	"backendai/internal/engine"
)

// Store is what the service keeps in the database.
type Store interface {
	// InsertFolder and UpdateFolder fail with CodeVFolderExists when another
	// folder of the same owner that is not in the trash has the name, and
	// UpdateFolder with CodeNotFound when there is no such folder.
	InsertFolder(ctx context.Context, f *backendai.VFolder) error
	UpdateFolder(ctx context.Context, f *backendai.VFolder) error
	// DeleteFolder removes the record with its shares and invitations.
	DeleteFolder(ctx context.Context, id string) error
	Folder(ctx context.Context, id string) (*backendai.VFolder, error)
	// Folders lists by name and then by time of creation.
	Folders(ctx context.Context, q Query) ([]*backendai.VFolder, error)
	// SetUsage keeps what was measured in a folder, and changes nothing else of it.
	SetUsage(ctx context.Context, id string, bytes, files int64) error

	// SetShare makes or changes a share; a folder has at most one for a user.
	SetShare(ctx context.Context, s Share) error
	DeleteShare(ctx context.Context, folderID, userID string) error
	Shares(ctx context.Context, q ShareQuery) ([]Share, error)

	InsertInvitation(ctx context.Context, i *Invitation) error
	UpdateInvitation(ctx context.Context, i *Invitation) error
	Invitation(ctx context.Context, id string) (*Invitation, error)
	Invitations(ctx context.Context, q InvitationQuery) ([]*Invitation, error)

	User(ctx context.Context, id string) (*backendai.User, error)
	UserByEmail(ctx context.Context, email string) (*backendai.User, error)
	Keypair(ctx context.Context, accessKey string) (*backendai.Keypair, error)

	// FolderSessions names the sessions that are not over and mount the folder.
	FolderSessions(ctx context.Context, folderID string) ([]string, error)
}

// Query selects folders. Empty fields do not restrict.
type Query struct {
	// Viewer restricts to what a user may see: its own folders, those of its
	// project, and those that are shared with it.
	Viewer *backendai.User
	// OwnerID restricts to the folders of one user.
	OwnerID  string
	Name     string
	Host     string
	Statuses []backendai.FolderStatus
}

// Share gives a user who does not own it rights in a folder.
type Share struct {
	FolderID   string
	UserID     string
	Permission backendai.Permission
	CreatedAt  time.Time
}

// ShareQuery selects shares. Empty fields do not restrict.
type ShareQuery struct{ FolderID, UserID string }

// InvitationState is what became of an invitation.
type InvitationState string

// The states of invitations.
const (
	InvitationPending  InvitationState = "pending"
	InvitationAccepted InvitationState = "accepted"
	InvitationRejected InvitationState = "rejected"
	InvitationCanceled InvitationState = "canceled"
)

// Invitation offers a share. Only pending ones can be accepted.
type Invitation struct {
	ID         string // UUID
	FolderID   string
	FolderName string // filled when read
	Inviter    string // email
	Invitee    string // email
	Permission backendai.Permission
	State      InvitationState
	CreatedAt  time.Time
	ModifiedAt time.Time
}

// InvitationQuery selects invitations. Empty fields do not restrict.
type InvitationQuery struct {
	FolderID string
	Inviter  string
	Invitee  string
	State    InvitationState
}

// Options are what the service stands on; Store, Hosts and Key are required.
type Options struct {
	Store Store
	// Hosts are the directories of the storage hosts by their names.
	Hosts map[string]string
	// DefaultHost is where folders are made when nobody names a host.
	DefaultHost string
	// Key signs the tokens of the storage endpoints.
	Key []byte
	// FolderQuota and UserQuota are the most bytes that a folder, and that all
	// folders of one user, may hold; 0 is no limit.
	FolderQuota, UserQuota int64
	// MaxFolders is how many folders a user may own; 0 is no limit.
	MaxFolders int
	// TrashTime is how long folders stay in the trash; 0 keeps them.
	TrashTime time.Duration
	Logger    *slog.Logger     // nil discards
	Now       func() time.Time // nil is time.Now
}

// The times after which what nobody comes back for is given up.
const (
	uploadTime = 48 * time.Hour // since the last byte of an upload
	tokenTime  = 24 * time.Hour
	sweepEvery = time.Hour
)

// Service is the folders of one server. It is safe for concurrent use.
type Service struct {
	opts  Options
	store Store
	log   *slog.Logger
	now   func() time.Time

	// changing is held while a record is read, changed and written back.
	changing sync.Mutex
	usage    usages
	sweeping chan struct{}
	uploads  uploads
	fills    fills
	tasks    tasks
	tus      http.Handler
	locks    *memorylocker.MemoryLocker // of uploads and their parts; it ends the request that has one when another wants it
	probes   probes
	projects projects
	deals    deals
}

// New makes the service; Run does what it does in the background.
func New(opts Options) (*Service, error) {
	s := &Service{opts: opts, store: opts.Store, log: opts.Logger, now: opts.Now, sweeping: make(chan struct{}, 1), locks: memorylocker.New()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.makeHosts(); err != nil {
		return nil, err
	}
	var err error
	s.tus, err = s.newTus()
	return s, err
}

// API is what transports call; *Service implements it. A folder reference (ref)
// is a folder's UUID, its form without dashes, or its name; a name that fits
// several folders is CodeTooManyVFolders with {"matches": […]}.
type API interface {
	Create(ctx context.Context, caller backendai.Caller, req CreateRequest) (View, error)
	List(ctx context.Context, caller backendai.Caller, q ListQuery) ([]View, error)
	Find(ctx context.Context, caller backendai.Caller, ref string) (View, error)
	Rename(ctx context.Context, caller backendai.Caller, ref, name string) error
	Update(ctx context.Context, caller backendai.Caller, ref string, u Update) error
	Trash(ctx context.Context, caller backendai.Caller, ref string) error
	Restore(ctx context.Context, caller backendai.Caller, ref string) error
	Erase(ctx context.Context, caller backendai.Caller, ref string) error
	Purge(ctx context.Context, caller backendai.Caller, ref string) error
	Clone(ctx context.Context, caller backendai.Caller, ref string, req CloneRequest) (v View, taskID string, err error)
	FollowTask(ctx context.Context, caller backendai.Caller, id string, step func(TaskState) error) error
	Hosts() (names []string, standard string)
	Space(ctx context.Context, host string) (free, total int64, err error)

	Invite(ctx context.Context, caller backendai.Caller, ref string, p backendai.Permission, emails []string) ([]string, error)
	Invitations(ctx context.Context, caller backendai.Caller, sent bool) ([]*Invitation, error)
	Accept(ctx context.Context, caller backendai.Caller, id string) error
	Decline(ctx context.Context, caller backendai.Caller, id string) error
	Share(ctx context.Context, caller backendai.Caller, ref string, p backendai.Permission, emails []string) ([]string, error)
	Unshare(ctx context.Context, caller backendai.Caller, ref string, emails []string) ([]string, error)
	Leave(ctx context.Context, caller backendai.Caller, ref, userID string) error

	Files(ctx context.Context, caller backendai.Caller, ref, name string) ([]File, error)
	Mkdir(ctx context.Context, caller backendai.Caller, ref string, names []string, parents, existOK bool) (made []string, failed map[string]error, err error)
	Move(ctx context.Context, caller backendai.Caller, ref, src, dst string) error
	RenameFile(ctx context.Context, caller backendai.Caller, ref, target, name string) error
	Remove(ctx context.Context, caller backendai.Caller, ref string, names []string, recursive bool) error

	RequestUpload(ctx context.Context, caller backendai.Caller, ref string, req UploadRequest) (Upload, error)
	RequestFill(ctx context.Context, caller backendai.Caller, ref, dir string) (token string, err error)
	RequestDownload(ctx context.Context, caller backendai.Caller, ref string, req DownloadRequest) (token string, err error)

	// What follows is for those who hold a token of the above.
	ServeUpload(w http.ResponseWriter, r *http.Request, token, part string) error
	ServeFill(w http.ResponseWriter, r *http.Request, token string) (Filled, error)
	Same(ctx context.Context, token string, lines io.Reader, visit func(n int) error) error
	ServeDownload(w http.ResponseWriter, r *http.Request, token string) error
	Tree(ctx context.Context, token string, visit func(Entry) error) error
	Checksum(ctx context.Context, token, below string) (Checksum, error)
}

var _ API = (*Service)(nil)

var _ interface {
	Resolve(ctx context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error)
	Attach(ctx context.Context, mounts []backendai.Mount) ([]engine.Mount, error)
} = (*Service)(nil)
