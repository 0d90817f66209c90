package backendai

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Status is where a session is in its life (API section 6).
type Status string

// The statuses, in the order of progress.
const (
	StatusPending     Status = "PENDING"
	StatusScheduled   Status = "SCHEDULED"
	StatusPreparing   Status = "PREPARING"
	StatusPulling     Status = "PULLING"
	StatusCreating    Status = "CREATING"
	StatusRunning     Status = "RUNNING"
	StatusRestarting  Status = "RESTARTING"
	StatusTerminating Status = "TERMINATING"
	StatusTerminated  Status = "TERMINATED"
	StatusError       Status = "ERROR"
	StatusCancelled   Status = "CANCELLED"
)

// transitions is the state table: what may follow each status.
//
//	PENDING → SCHEDULED → PREPARING → [PULLING →] CREATING → RUNNING ⇄ RESTARTING
//	every live status → TERMINATING → TERMINATED, or ERROR; PENDING → CANCELLED
var transitions = map[Status][]Status{
	StatusPending:     {StatusScheduled, StatusCancelled, StatusError},
	StatusScheduled:   {StatusPreparing, StatusPending, StatusTerminating, StatusError},
	StatusPreparing:   {StatusPulling, StatusCreating, StatusTerminating, StatusError},
	StatusPulling:     {StatusCreating, StatusTerminating, StatusError},
	StatusCreating:    {StatusRunning, StatusTerminating, StatusError},
	StatusRunning:     {StatusRestarting, StatusTerminating, StatusError},
	StatusRestarting:  {StatusRunning, StatusTerminating, StatusError},
	StatusError:       {StatusTerminating},
	StatusTerminating: {StatusTerminated},
	StatusTerminated:  nil,
	StatusCancelled:   nil,
}

// Statuses lists every status in the order of progress.
func Statuses() []Status {
	return []Status{
		StatusPending, StatusScheduled, StatusPreparing, StatusPulling, StatusCreating, StatusRunning,
		StatusRestarting, StatusTerminating, StatusTerminated, StatusError, StatusCancelled,
	}
}

// CanBecome tells whether the state table has the step from s to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(transitions[s], next) }

// Final tells whether a session in this status is over.
func (s Status) Final() bool { return s == StatusTerminated || s == StatusCancelled }

// Occupies tells whether a session in this status holds its resource slots.
func (s Status) Occupies() bool { return !s.Final() && s != StatusPending && s != StatusError }

// SessionType says what a session is for.
type SessionType string

// The session types that this platform runs.
const (
	Interactive SessionType = "interactive"
	Batch       SessionType = "batch"
)

// Result is how a session's own task ended (batch sessions).
type Result string

// The results.
const (
	ResultUndefined Result = "UNDEFINED"
	ResultSuccess   Result = "SUCCESS"
	ResultFailure   Result = "FAILURE"
)

// Reasons of a status, as they stand in status_info and in events (API section 5).
const (
	ReasonUserRequested  = "user-requested"
	ReasonForced         = "force-terminated"
	ReasonSelfTerminated = "self-terminated"
	ReasonTaskFinished   = "task-finished"
	ReasonTaskFailed     = "task-failed"
	ReasonTaskTimeout    = "task-timeout"
	ReasonFailedToStart  = "failed-to-start"
	ReasonFailedToCreate = "failed-to-create"
	ReasonOutOfMemory    = "out-of-memory"
	ReasonLost           = "agent-lost"
	ReasonPendingTimeout = "pending-timeout"
)

// Session is one isolated container and what was asked for it.
type Session struct {
	ID           string // UUID in its dashed form
	Name         string // unique among the live sessions of one access key
	AccessKey    string
	UserID       string
	UserEmail    string // as it was when the session was asked for
	UserName     string
	SSHPublicKey string // of the owner, in authorized_keys form; logs in beside the session's own key
	Domain       string
	Group        string
	Type         SessionType
	Image        string // canonical reference
	Architecture string
	Tag          string
	Priority     int

	Requested    Slots
	Shmem        int64 // bytes of /dev/shm
	Environ      map[string]string
	Mounts       []Mount
	PreopenPorts []int
	Bootstrap    string // script run by /bin/sh as the user before services start
	Startup      string // command of a batch session
	BatchTimeout time.Duration
	StartsAt     time.Time // a batch session is not scheduled before; zero means at once
	Dependencies []string  // session ids that must succeed first
	CallbackURL  string
	ClusterSize  int
	NoEgress     bool // no network but its own loopback

	Status        Status
	StatusInfo    string // reason of the status
	StatusMessage string // one line for people: why it failed, what is being pulled
	StatusChanged time.Time
	History       []StatusChange
	Result        Result
	ExitCode      *int
	Apps          []App // filled when running
	CreatedAt     time.Time
	TerminatedAt  time.Time
}

// StatusChange is one step of a session's life.
type StatusChange struct {
	Status Status    `json:"status"`
	At     time.Time `json:"at"`
}

// MoveTo changes the session's status as the state table allows, with its
// reason and time, and records the step in the history.
func (s *Session) MoveTo(next Status, reason string, at time.Time) error {
	if !s.Status.CanBecome(next) {
		return fmt.Errorf("session %s cannot go from %s to %s", s.ID, s.Status, next)
	}
	s.Status, s.StatusInfo, s.StatusChanged = next, reason, at
	s.History = append(s.History, StatusChange{next, at})
	if next.Final() {
		s.TerminatedAt = at
	}
	return nil
}

// sessionNameRE has no count, which would cost every runner its memory.
var sessionNameRE = regexp.MustCompile(`^\w[\w.-]*\w$`)

// ValidateSessionName holds the name rule of API section 4: 4 to 64 of ASCII
// letters, digits, dot, dash and underscore, with a word character at both ends.
func ValidateSessionName(name string) error {
	if len(name) < 4 || len(name) > 64 || !sessionNameRE.MatchString(name) || name == "from-template" {
		return Errorf(CodeInvalidParams, "invalid session name %q", name).
			WithHint("a name has 4 to 64 letters, digits, dots, dashes or underscores, and begins and ends with a letter, digit or underscore").
			WithData(map[string]string{"name": "invalid session name"})
	}
	return nil
}

var envNameRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ValidEnvName tells whether a text may name an environment variable.
func ValidEnvName(name string) bool { return envNameRE.MatchString(name) }
