package backendai

import "time"

// Event is one thing that happened to a session (API section 5).
type Event struct {
	Seq       uint64 // rises by one per event of this server process
	Name      string // session_started, kernel_pulling, …
	SessionID string
	Session   string // name
	UserID    string
	AccessKey string
	Domain    string
	Group     string
	Reason    string
	ExitCode  *int
	Progress  *PullProgress // with kernel_pulling
	At        time.Time
}

// EventFor names the session event that a status change publishes.
func EventFor(s Status) string {
	switch s {
	case StatusPending:
		return "session_enqueued"
	case StatusScheduled:
		return "session_scheduled"
	case StatusPreparing:
		return "session_preparing"
	case StatusPulling:
		return "kernel_pulling"
	case StatusCreating:
		return "kernel_creating"
	case StatusRunning:
		return "session_started"
	case StatusRestarting:
		return "session_restarting"
	case StatusTerminating:
		return "session_terminating"
	case StatusTerminated:
		return "session_terminated"
	case StatusCancelled:
		return "session_cancelled"
	default:
		return "session_error"
	}
}
