package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
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
		s.end(backendai.ReasonUserRequested)
		asking, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if err := e.shutdown(asking, s.id); err != nil {
			// it may be ending already, so that it is not killed for that
			e.log.Debug("ask session to end", "session", s.id, "err", err)
		}
		if waitExit(s, asking.Done()) {
			return nil
		}
	}
	s.end(backendai.ReasonForced)
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
// log, and records.
func (e *Engine) dismantle(ctx context.Context, s *session) error {
	if err := e.takeApart(ctx, s); err != nil {
		return err
	}
	return s.update(func(st *state) { st.Phase, st.PID, st.Net, st.Frame = phaseStopped, 0, 0, "" })
}

// takeApart does so without writing it down. The session's PID 1 is gone, or was
// never known; every step also works when there is nothing to do.
func (e *Engine) takeApart(ctx context.Context, s *session) error {
	ctx = context.WithoutCancel(ctx) // half a removal helps nobody
	st := s.snapshot()
	if st.Phase == phaseStopped {
		return nil
	}
	r := e.runtime
	if st.Runtime != "" { // the one that made it; the engine may have another now
		r = e.runtimeAt(st.Runtime)
	}
	var g errgroup.Group
	g.Go(func() error {
		cgroup := e.names.session(s.id)
		if err := e.machine.killCgroup(cgroup); err != nil {
			return err
		}
		if err := r.remove(ctx, s.id); err != nil {
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
	g.Go(func() error { return clearMounts(s) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("remove container of session %s: %w", s.id, err)
	}
	return nil
}

// clearMounts unmounts what the engine mounted for a session and removes the
// folders of the mounts. Nothing below a mount is ever touched: a folder that is
// still mounted is a reason to stop.
func clearMounts(s *session) error {
	folders := filepath.Join(s.bundle, mountsDir)
	entries, err := os.ReadDir(folders)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list mount points: %w", err)
	}
	for _, entry := range entries {
		point := filepath.Join(folders, entry.Name())
		if err := unmount(point); err != nil {
			return err
		}
		if err := os.Remove(point); err != nil {
			return fmt.Errorf("remove mount point: %w", err)
		}
	}
	if err := unmount(filepath.Join(s.bundle, rootDir)); err != nil {
		return err
	}
	for _, name := range []string{s.bundle, s.path(layerDir), s.path(socketFile)} {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("remove session files: %w", err)
		}
	}
	return nil
}

// erase removes a session entirely. Its folder is put aside under a name that no
// session has first, so that a crash in between is finished by the next engine.
func (e *Engine) erase(ctx context.Context, s *session) error {
	if err := e.takeApart(ctx, s); err != nil {
		return err
	}
	if err := e.images.Release(context.WithoutCancel(ctx), s.id); err != nil {
		return err
	}
	aside := filepath.Join(e.sessions, removedPrefix+s.id)
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove earlier session folder: %w", err)
	}
	if err := os.Rename(s.dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove session folder: %w", err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove session folder: %w", err)
	}
	e.forget(s)
	return nil
}
