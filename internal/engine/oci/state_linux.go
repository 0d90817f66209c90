package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"backendai/internal/engine"
)

// phase is how far a session's making or unmaking has come.
type phase string

const (
	phaseMaking  phase = "making"  // anything may or may not exist yet
	phaseRunning phase = "running" // PID 1 was started
	phaseStopped phase = "stopped" // only home, log and records are left
)

// state is what a session's folder says of it: enough to adopt it, and enough
// to remove it after a crash at any moment, because it is written before the
// first thing is made.
type state struct {
	Phase    phase        `json:"phase"`
	KeepHome bool         `json:"keep_home"` // the home is older than this container
	Runtime  string       `json:"runtime"`   // path of the OCI runtime that runs it
	Net      int          `json:"net"`       // number of its network; 0 is none
	Frame    string       `json:"frame,omitempty"`
	PID      int          `json:"pid,omitempty"`
	Start    uint64       `json:"start,omitempty"` // of PID 1, in clock ticks since boot
	Boot     string       `json:"boot,omitempty"`  // the boot in which PID means something
	Exit     *engine.Exit `json:"exit,omitempty"`
}

// The files and folders of a session.
const (
	stateFile  = "state.json"
	logFile    = "log"
	recordFile = "exit.json"
	socketFile = "control.sock"
	homeDir    = "home"
	layerDir   = "layer" // upper and work of the overlay
)

// removedPrefix begins the name of a session's folder that is being deleted. No
// session id begins so.
const removedPrefix = ".removed-"

func (s *state) write(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session state: %w", err)
	}
	next := filepath.Join(dir, stateFile+".next")
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("write session state: %w", err)
	}
	if err := os.Rename(next, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("write session state: %w", err)
	}
	return nil
}

// readState reads the state of the session in dir. A folder without one was just
// made: nothing but it exists. One that cannot be read (a power failure may have
// torn it) is that of a session that ran, so that the home stays.
func readState(dir string) (state, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return state{Phase: phaseMaking}, nil
	}
	var s state
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return state{Phase: phaseRunning}, fmt.Errorf("read session state in %s: %w", dir, err)
	}
	return s, nil
}
