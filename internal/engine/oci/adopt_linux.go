package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// adopt takes over what an earlier engine left: running sessions are watched
// again, ended ones get their end recorded, half-made and half-removed ones are
// removed, and so is whatever no session folder knows of.
func (e *Engine) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(e.sessions)
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	frames := map[string]bool{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), removedPrefix) {
			if err := os.RemoveAll(filepath.Join(e.sessions, entry.Name())); err != nil {
				return fmt.Errorf("finish removal of session: %w", err)
			}
		}
		if checkID(entry.Name()) != nil {
			continue // not ours
		}
		s := e.newSession(entry.Name())
		if s.state, err = readState(s.dir); err != nil {
			e.log.Error("take over session", "session", s.id, "err", err)
		}
		e.byID[s.id] = s // nobody else has the engine yet
		if err := e.adoptOne(ctx, s, boot); err != nil {
			return fmt.Errorf("take over session %s: %w", s.id, err)
		}
		frames[s.snapshot().Frame] = true
	}
	if err := e.frames.sweep(frames); err != nil {
		return err
	}
	e.sweepOrphans()
	return nil
}

func (e *Engine) adoptOne(ctx context.Context, s *session, boot string) error {
	st := s.snapshot()
	switch {
	case st.Phase == phaseMaking:
		return e.abandon(ctx, s)
	case st.Phase == phaseStopped:
		return nil
	case st.Exit != nil:
		return e.dismantle(ctx, s)
	}
	if st.Boot == boot {
		pidfd, network, err := reopen(st)
		if err != nil {
			return err
		}
		if pidfd != nil {
			s.net = network
			if network.index != 0 && e.bridge != nil {
				e.bridge.reserve(network.index)
			}
			e.watch(s, pidfd)
			return nil
		}
	}
	exit := e.explainExit(s, processEnd{})
	s.state.Exit = &exit // nobody else has the session yet
	return e.dismantle(ctx, s)
}

// reopen opens PID 1 of a session and its network, or returns nil when that
// process is gone. The descriptor is opened first: what is then found under the
// number is that process, or the descriptor's is dead.
func reopen(st state) (*os.File, *network, error) {
	pidfd, err := openProcess(st.PID)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	ns, openErr := os.Open("/proc/" + strconv.Itoa(st.PID) + "/ns/net")
	started, err := startTime(st.PID)
	if openErr != nil || err != nil || started != st.Start || sendSignal(pidfd, 0) != nil {
		if ns != nil {
			_ = ns.Close()
		}
		return nil, nil, pidfd.Close()
	}
	return pidfd, &network{ns: ns, index: st.Net}, nil
}

// sweepOrphans removes the cgroups that no session folder knows of, with all
// that runs in them.
func (e *Engine) sweepOrphans() {
	for _, id := range e.machine.sessionCgroups(e.names.cgroup()) {
		if e.byID[id] != nil {
			continue
		}
		cgroup := e.names.session(id)
		if err := errors.Join(e.machine.killCgroup(cgroup), e.machine.removeCgroup(cgroup)); err != nil {
			e.log.Error("remove orphaned cgroup", "container", id, "err", err)
		}
	}
}
