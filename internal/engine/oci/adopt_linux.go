package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

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
	for _, entry := range entries {
		if checkID(entry.Name()) != nil {
			continue // not ours
		}
		s := newSession(entry.Name(), filepath.Join(e.sessions, entry.Name()))
		if s.state, err = readState(s.dir); err != nil {
			e.log.Error("read session left by an earlier server", "session", s.id, "err", err)
			s.state = state{Phase: phaseRemoving}
		}
		e.byID[s.id] = s // nobody else has the engine yet
		if err := e.adoptOne(ctx, s, boot); err != nil {
			return fmt.Errorf("take over session %s: %w", s.id, err)
		}
	}
	return e.sweepOrphans(ctx)
}

func (e *Engine) adoptOne(ctx context.Context, s *session, boot string) error {
	st := s.snapshot()
	switch st.Phase {
	case phaseMaking:
		return e.abandon(ctx, s)
	case phaseRemoving:
		return e.erase(ctx, s)
	case phaseRunning:
	default:
		return nil
	}
	if st.Exit != nil {
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
	if err := s.update(func(st *state) { st.Exit = &exit }); err != nil {
		return err
	}
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

// sweepOrphans removes containers and cgroups that no session folder knows of.
func (e *Engine) sweepOrphans(ctx context.Context) error {
	run := filepath.Dir(e.runtime.root)
	roots, err := os.ReadDir(run)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, root := range roots {
		r := ociRuntime{path: e.runtime.path, root: filepath.Join(run, root.Name())}
		if root.Name() != filepath.Base(e.runtime.path) {
			if r.path, err = findRuntime(root.Name()); err != nil {
				continue // that runtime is not installed any more
			}
		}
		containers, err := os.ReadDir(r.root)
		if err != nil {
			return fmt.Errorf("list containers: %w", err)
		}
		for _, c := range containers {
			if e.byID[c.Name()] != nil || !c.IsDir() {
				continue
			}
			if err := r.remove(ctx, c.Name(), true); err != nil {
				e.log.Error("remove orphaned container", "container", c.Name(), "err", err)
			}
		}
	}
	for _, id := range e.machine.sessionCgroups(e.names.cgroup()) {
		if e.byID[id] != nil {
			continue
		}
		cgroup := e.names.session(id)
		if err := errors.Join(e.machine.killCgroup(cgroup), e.machine.removeCgroup(cgroup)); err != nil {
			e.log.Error("remove orphaned cgroup", "container", id, "err", err)
		}
	}
	return nil
}
