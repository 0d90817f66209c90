// Package control is the language between the server and the runner, PID 1 of
// every session: HTTP/1.1 over a unix socket whose path only the host knows, so
// that curl --unix-socket can debug it.
//
//	GET  /v1/health?nonce=N           Health: answers as soon as the runner lives
//	GET  /v1/ready                    Health: answers when the built-in apps accept connections
//	GET  /v1/apps                     []backendai.App, sshd and ttyd first
//	POST /v1/apps/{name}/start        StartRequest → StartReply; starts on first use and waits for the port
//	POST /v1/apps/{name}/stop         ends a service; 204
//	GET  /v1/logs?follow=true         the session's output so far, then as it comes
//	GET  /v1/events                   one JSON Event a line, for as long as the connection lives;
//	                                  a batch that is over already is told first
//	POST /v1/interrupt                SIGINT to what runs in the foreground (batch); 204
//	GET  /v1/files?path=P&path=Q      an uncompressed tar of the paths, which are relative to the home;
//	                                  what is left out is told by PAXSkipped. Many paths: POST /v1/files/pack
//	                                  with them as a form
//	POST /v1/files?path=P             unpacks the uncompressed tar that is its body below the folder P → Unpacked
//	GET  /v1/files/list?path=P        one JSON Entry a line: P itself, then what is in it; the last line is ListEnd
//	GET  /v1/files/raw?path=P&offset=N  the bytes of a file from N on; its Entry is in the header X-Entry
//	GET  /v1/files/sum?path=P&length=N  Sum of a file, or of its first N bytes
//	GET  /v1/terminals                []Terminal; DELETE /v1/terminals/{name} ends one
//	POST /v1/shutdown                 ends every process within ShutdownGrace, then PID 1 exits; 202
//
// A name of only digits is a port of the session's loopback: there is nothing
// to start, and the reply says "running". The session goes on after its batch
// has finished, until it is shut down. Errors are problem+json as on the public API. Whatever comes out of a session
// is a hostile tenant's word: Client bounds it in size and time.
package control

import "time"

// Descriptors that the engine passes to the runner.
const (
	// ListenFD is the listening unix socket of the control connection.
	ListenFD = 3
	// LogFD is the session's log: a file opened for reading and appending,
	// which the runner keeps below LogLimit.
	LogFD = 4
	// RecordFD is a file that takes one ExitRecord as JSON before PID 1 ends.
	RecordFD = 5
	// ConfigFD is a file with the Config as JSON, read once at start.
	ConfigFD = 6
)

// LogLimit bounds a session's log in bytes; the oldest half goes first.
const LogLimit = 10 << 20

// ShutdownGrace is how long the processes of a session may take to end by
// themselves at a shutdown before they are killed.
const ShutdownGrace = 10 * time.Second

// The types of Event.
const (
	EventServiceStarted = "service-started"
	EventServiceExited  = "service-exited"
	EventBatchFinished  = "batch-finished"
)

// The statuses of StartReply.
const (
	StatusStarted = "started"
	StatusRunning = "running"
)

// Config tells the runner what session it is PID 1 of. It travels through a
// descriptor, never through arguments, environment or a file inside.
type Config struct {
	SessionID    string            `json:"session_id"`
	SessionName  string            `json:"session_name"`
	Secret       []byte            `json:"secret"`        // proves the runner: Health.Proof is HMAC-SHA256(secret, nonce)
	Home         string            `json:"home"`          // /home/work
	Loopback     string            `json:"loopback"`      // address that apps listen on; 127.0.0.1 in a network namespace of its own
	Env          map[string]string `json:"env"`           // the whole environment of the session's processes
	ServicePorts string            `json:"service_ports"` // the image's label, API section 11
	RuntimePath  string            `json:"runtime_path"`
	Preopen      []int             `json:"preopen,omitempty"`
	Bootstrap    string            `json:"bootstrap,omitempty"`
	Batch        *Batch            `json:"batch,omitempty"`
	SSH          SSH               `json:"ssh"`
	MOTD         string            `json:"motd,omitempty"`  // printed once at interactive logins
	Files        []File            `json:"files,omitempty"` // written below the home before services start
}

// Batch is the command of a batch session.
type Batch struct {
	Command string        `json:"command"`
	Timeout time.Duration `json:"timeout"` // 0 is none
}

// SSH is the key material of the session's sshd.
type SSH struct {
	HostKeys       []string `json:"host_keys"`       // private, OpenSSH PEM; sshd derives an RSA key from an ed25519 one
	AuthorizedKeys []string `json:"authorized_keys"` // lines; used when no .ssh folder brings its own
	PrivateKey     string   `json:"private_key"`     // written to ~/id_container, mode 0600
}

// File is one to write below the session's home.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	Data []byte `json:"data"`
}

// The types of Entry.
const (
	TypeFile   = "file"
	TypeFolder = "directory"
	TypeLink   = "symlink"
	TypeOther  = "other"
)

// EntryHeader is the header of a raw reply that holds the file's Entry.
const EntryHeader = "X-Entry"

// PAXSkipped is the record of a tar's global header that tells what was left
// out and why, "path: reason". Programs that do not know it pass over it.
const PAXSkipped = "BACKENDAI.skipped"

// Bounds of what is told about files.
const (
	MaxEntries = 100_000 // of one folder's list
	MaxSkipped = 500     // left out of one archive, each told by itself
)

// Entry is a file, folder, link or something else.
type Entry struct {
	Name     string    `json:"name"`          // as it is: whoever shows it makes it printable
	Raw      []byte    `json:"raw,omitempty"` // the name where it is not UTF-8, on the wire only
	Type     string    `json:"type"`          // one of the Type constants
	Size     int64     `json:"size"`          // bytes
	Mode     uint32    `json:"mode"`          // permissions, set-user-ID and the like: the low 12 bits
	Modified time.Time `json:"modified"`
	Changed  time.Time `json:"changed"`
	Accessed time.Time `json:"accessed"`
	Target   string    `json:"target,omitempty"` // of a link
}

// ListEnd is the last line of a list.
type ListEnd struct {
	End  bool `json:"end"`
	More bool `json:"more"` // there are more entries than MaxEntries
}

// Unpacked tells what came of an archive.
type Unpacked struct {
	Files   int       `json:"files"`
	Folders int       `json:"folders"`
	Links   int       `json:"links"`
	Bytes   int64     `json:"bytes"`   // of the files
	SHA256  []byte    `json:"sha256"`  // of the archive as it came
	Skipped []Skipped `json:"skipped"` // at most MaxSkipped
	More    int       `json:"more"`    // how many more were left out
}

// Skipped is an entry of an archive that was left out.
type Skipped struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Sum is the SHA-256 of a file's first bytes.
type Sum struct {
	SHA256 []byte `json:"sha256"`
	Size   int64  `json:"size"` // how many bytes that are
}

// Health is the runner's word on itself.
type Health struct {
	SessionID string `json:"session_id"`
	Proof     []byte `json:"proof"`
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	Uptime    string `json:"uptime"`
}

// StartRequest asks for a running service.
type StartRequest struct {
	Port      int                 `json:"port,omitempty"`      // a secondary port of the app; 0 is the primary
	Arguments map[string][]string `json:"arguments,omitempty"` // only names in allowed_arguments; no values for a bare option
	Envs      map[string]string   `json:"envs,omitempty"`      // only names in allowed_envs
}

// StartReply tells where the service listens on the session's loopback.
type StartReply struct {
	Status string `json:"status"` // "started" or "running"
	Port   int    `json:"port"`
}

// Event is something that happened inside.
type Event struct {
	Type     string `json:"type"` // service-started, service-exited, batch-finished
	App      string `json:"app,omitempty"`
	ExitCode int    `json:"exit_code"`
	OOM      bool   `json:"oom,omitempty"`
	Reason   string `json:"reason,omitempty"` // of batch-finished: one of the backendai.Reason constants
	Detail   string `json:"detail,omitempty"`
}

// ExitRecord is the runner's last word, for a server that was not there.
type ExitRecord struct {
	ExitCode int       `json:"exit_code"`
	Reason   string    `json:"reason"`
	Detail   string    `json:"detail,omitempty"`
	At       time.Time `json:"at"`
}

// Terminal is one open web terminal.
type Terminal struct {
	Name    string    `json:"name"`
	Command string    `json:"command"`
	PID     int       `json:"pid"`
	Viewers int       `json:"viewers"`
	Rows    int       `json:"rows"`
	Cols    int       `json:"cols"`
	Started time.Time `json:"started"`
}
