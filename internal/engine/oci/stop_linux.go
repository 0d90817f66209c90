package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/control"
)

// killLimit bounds how long a killed PID 1 may take to end; it can only be
// waiting for a device or a remote file system then.
const killLimit = 30 * time.Second

// Stop implements [engine.Engine].
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	s, err := e.acquire(ctx, id, false)
	if s == nil || err != nil {
		return err
	}
	defer s.release()
	if s.snapshot().Phase != phaseRunning {
		return nil
	}
	if err := e.end(ctx, s, grace); err != nil {
		return err
	}
	return e.dismantle(ctx, s)
}

// Remove implements [engine.Engine].
func (e *Engine) Remove(ctx context.Context, id string, grace time.Duration) error {
	s, err := e.acquire(ctx, id, false)
	if s == nil || err != nil {
		return err
	}
	defer s.release()
	if err := e.end(ctx, s, grace); err != nil {
		return err
	}
	return e.erase(ctx, s)
}

// end ends PID 1, and with it every process of the session: it is asked first,
// by its control socket because it is deaf to signals, and killed after grace.
// The kernel ends the others, which are in its PID namespace.
func (e *Engine) end(ctx context.Context, s *session, grace time.Duration) error {
	if s.exited == nil || s.snapshot().Exit != nil {
		return nil
	}
	if grace > 0 {
		if err := s.update(func(st *state) { st.Ending = backendai.ReasonUserRequested }); err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if e.shutdown(asking, s.id) == nil && waitExit(s, asking.Done()) {
			return nil
		}
	}
	if err := s.update(func(st *state) { st.Ending = backendai.ReasonForced }); err != nil {
		return err
	}
	if err := s.signal(unix.SIGKILL); err != nil {
		return err
	}
	limit := time.NewTimer(killLimit)
	defer limit.Stop()
	if !waitExit(s, limit.C) {
		return backendai.Errorf(backendai.CodeUnavailable, "session %s does not end", s.id).
			WithHint("its processes hang in the kernel, perhaps on a remote folder; they end when that answers")
	}
	return nil
}

// shutdown asks a session's PID 1 to end everything and itself.
func (e *Engine) shutdown(ctx context.Context, id string) error {
	runner := control.NewClient(func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, id) }, nil)
	defer runner.Close()
	return runner.Shutdown(ctx)
}

// dismantle removes what a session has besides its folder's lasting files: home,
// log, and records. Its PID 1 is gone, or was never known; every step also
// works when there is nothing to do.
func (e *Engine) dismantle(ctx context.Context, s *session) error {
	ctx = context.WithoutCancel(ctx) // half a removal helps nobody
	st := s.snapshot()
	r := e.runtime
	if st.Runtime != "" { // the one that made it; the engine may have another now
		r = ociRuntime{path: st.Runtime, root: filepath.Join(filepath.Dir(e.runtime.root), filepath.Base(st.Runtime))}
	}
	cgroup := e.names.session(s.id)
	if st.Phase == phaseMaking || st.PID == 0 {
		if err := e.machine.killCgroup(cgroup); err != nil {
			return err
		}
	}
	var g errgroup.Group
	g.Go(func() error {
		if err := r.remove(ctx, s.id, false); err != nil {
			// an unfinished container has to be forced
			if err := r.remove(ctx, s.id, true); err != nil {
				return err
			}
		}
		if err := e.machine.killCgroup(cgroup); err != nil {
			return err
		}
		return e.machine.removeCgroup(cgroup)
	})
	g.Go(func() error {
		s.mu.Lock()
		n := s.net
		s.net = nil
		s.mu.Unlock()
		switch {
		case n != nil && e.bridge != nil:
			e.bridge.discard(n)
		case n != nil:
			return n.ns.Close()
		}
		return nil
	})
	g.Go(func() error { return clearMounts(s, st.Mounts) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("remove container of session %s: %w", s.id, err)
	}
	return s.update(func(st *state) { st.Phase, st.PID, st.Net = phaseStopped, 0, 0 })
}

// clearMounts unmounts what the engine mounted for a session and removes the
// folders of the mounts. Nothing below a mount is ever touched: a folder that is
// still mounted is a reason to stop.
func clearMounts(s *session, mounts int) error {
	for i := range mounts {
		if err := unmount(s.path(mountsDir, strconv.Itoa(i))); err != nil {
			return err
		}
		if err := os.Remove(s.path(mountsDir, strconv.Itoa(i))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove mount point: %w", err)
		}
	}
	if err := os.Remove(s.path(mountsDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove mount points: %w", err)
	}
	if err := unmount(s.path(bundleDir, "rootfs")); err != nil {
		return err
	}
	for _, name := range []string{bundleDir, layerDir, socketFile} {
		if err := os.RemoveAll(s.path(name)); err != nil {
			return fmt.Errorf("remove session files: %w", err)
		}
	}
	return nil
}

// erase removes a session entirely. The state file goes last, so that a crash
// in between is finished by the next engine.
func (e *Engine) erase(ctx context.Context, s *session) error {
	if err := e.dismantle(ctx, s); err != nil {
		return err
	}
	if err := e.images.Release(context.WithoutCancel(ctx), s.id); err != nil {
		return err
	}
	if err := s.update(func(st *state) { st.Phase = phaseRemoving }); err != nil {
		return err
	}
	for _, name := range []string{homeDir, logFile, recordFile} {
		if err := os.RemoveAll(s.path(name)); err != nil {
			return fmt.Errorf("remove session files: %w", err)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove session folder: %w", err)
	}
	e.forget(s)
	return nil
}
