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
	phaseMaking   phase = "making"   // anything may or may not exist yet
	phaseRunning  phase = "running"  // PID 1 was started
	phaseStopped  phase = "stopped"  // only home, log and records are left
	phaseRemoving phase = "removing" // to be removed entirely
)

// state is what a session's folder says of it: enough to adopt it, and enough
// to remove it after a crash at any moment, because it is written before the
// first thing is made.
type state struct {
	Phase    phase        `json:"phase"`
	KeepHome bool         `json:"keep_home"` // the home is older than this container
	Runtime  string       `json:"runtime"`   // path of the OCI runtime that runs it
	Mounts   int          `json:"mounts"`    // folders of the host in it
	Net      int          `json:"net"`       // number of its network; 0 is none
	PID      int          `json:"pid,omitempty"`
	Start    uint64       `json:"start,omitempty"`  // of PID 1, in clock ticks since boot
	Boot     string       `json:"boot,omitempty"`   // the boot in which PID means something
	Ending   string       `json:"ending,omitempty"` // why it is being stopped, when the platform does it
	Exit     *engine.Exit `json:"exit,omitempty"`
}

// The files and folders of a session.
const (
	stateFile  = "state.json"
	logFile    = "log"
	recordFile = "exit.json"
	socketFile = "control.sock"
	homeDir    = "home"
	bundleDir  = "bundle" // config.json, rootfs and the runtime's own log
	layerDir   = "layer"  // upper and work of the overlay
	mountsDir  = "mounts"
)

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

// readState reads the state of the session in dir. A folder without one was
// being made or removed when the server died: nothing but the folder exists.
func readState(dir string) (state, error) {
	var s state
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return state{Phase: phaseRemoving}, nil
	}
	if err != nil {
		return s, fmt.Errorf("read session state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read session state in %s: %w", dir, err)
	}
	return s, nil
}
