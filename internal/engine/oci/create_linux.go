package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
)

// startLimit bounds how long the runtime may take to start a container.
const startLimit = 2 * time.Minute

// Create implements [engine.Engine].
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (err error) {
	s, err := e.acquire(ctx, spec.ID, true)
	if err != nil {
		return err
	}
	defer s.release()
	switch st := s.snapshot(); {
	case st.Phase == phaseRunning && st.Exit == nil:
		return nil // it was created before
	case st.Phase != "":
		if err := e.takeApart(ctx, s); err != nil {
			return err
		}
	}
	if err := e.begin(s, spec); err != nil {
		return errors.Join(creationError(spec.ID, err), e.abandon(ctx, s))
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := e.build(ctx, s, spec); err != nil {
		return errors.Join(creationError(spec.ID, err), e.abandon(context.WithoutCancel(ctx), s))
	}
	return nil
}

// creationError is what a user reads of a failed start.
func creationError(id string, err error) error {
	var known *backendai.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return backendai.Errorf(backendai.CodeCreationFailed, "the container of session %s cannot be made: %w", id, err)
}

// begin makes the session's folder and says in it what will be made.
func (e *Engine) begin(s *session, spec engine.Spec) error {
	if err := e.checkSpace(); err != nil {
		return err
	}
	network, err := e.network(spec.Egress)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.net, s.ending = network, ""
	s.mu.Unlock()
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make session folder: %w", err)
	}
	_, err = os.Lstat(s.path(homeDir))
	keep := err == nil
	err = s.update(func(st *state) {
		*st = state{Phase: phaseMaking, KeepHome: keep, Runtime: e.runtime.path, Net: network.index}
	})
	if err != nil {
		return err
	}
	return makeHome(s.path(homeDir))
}

// checkSpace refuses to start a session on a disk that is all but full, where
// it could not do anything.
func (e *Engine) checkSpace() error {
	const least = 64 << 20
	var fs unix.Statfs_t
	if err := unix.Statfs(e.sessions, &fs); err != nil {
		return fmt.Errorf("look for space for the session: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < least {
		return backendai.Errorf(backendai.CodeUnavailable, "the disk of the sessions has only %s left", backendai.FormatSize(free)).
			WithHint("remove sessions or images, or make room at %s on the server", e.state)
	}
	return nil
}

// abandon removes what a failed Create made, all but an earlier home.
func (e *Engine) abandon(ctx context.Context, s *session) error {
	if !s.snapshot().KeepHome {
		return e.erase(ctx, s)
	}
	return e.dismantle(ctx, s)
}

// build makes the container of a session whose folder exists.
func (e *Engine) build(ctx context.Context, s *session, spec engine.Spec) error {
	layers, err := e.images.Layers(ctx, spec.Image.Digest, s.id)
	if err != nil {
		return err
	}
	frame, top, err := e.frames.of(spec.Image.Digest, layers)
	if err != nil {
		return err
	}
	rootfs := filepath.Join(s.bundle, rootDir)
	if err := mountOverlay(append([]string{top}, layers...), s.path(layerDir), rootfs); err != nil {
		return err
	}
	network := s.net
	who := identity{hostname: spec.Hostname}
	if network.index != 0 {
		who.address = e.bridge.address(network.index).String()
		who.resolver = hostResolver(resolverFiles)
	}
	own, err := who.write(filepath.Join(s.bundle, etcDir))
	if err != nil {
		return err
	}
	mounts, err := e.owners.attachAll(ctx, spec.Mounts, filepath.Join(s.bundle, mountsDir), s.path(homeDir))
	if err != nil {
		return err
	}
	config := e.machine.specify(container{
		spec: spec, cgroup: e.names.session(s.id), rootfs: rootfs, home: s.path(homeDir), runner: e.runner,
		network: network.path(), mounts: append(own, mounts...), seccomp: e.seccomp, program: e.program,
	})
	if err := writeBundle(s.bundle, config); err != nil {
		return err
	}
	return e.start(ctx, s, spec, frame)
}

// network gives a session its network. The namespace is the engine's own making
// even without a way out, so that it can reach the session's loopback.
func (e *Engine) network(egress bool) (*network, error) {
	if egress && e.bridge != nil {
		return e.bridge.take()
	}
	return isolatedNetwork()
}

// start runs the container and watches it.
func (e *Engine) start(ctx context.Context, s *session, spec engine.Spec, frame string) error {
	files, err := openDescriptors(s, spec)
	defer func() {
		for _, f := range files {
			_ = f.Close() // the container has its own
		}
	}()
	if err != nil {
		return err
	}
	pid, err := e.runtime.run(ctx, launch{id: s.id, bundle: s.bundle, stdio: files[1], extra: files})
	if err != nil {
		return err
	}
	// it is our child: even if it has ended, its number is not used again yet
	pidfd, err := openProcess(pid)
	if err != nil {
		return err
	}
	started, err := startTime(pid)
	if err != nil {
		return errors.Join(err, pidfd.Close())
	}
	boot, err := bootID()
	if err != nil {
		return errors.Join(err, pidfd.Close())
	}
	err = s.update(func(st *state) {
		st.Phase, st.PID, st.Start, st.Boot, st.Frame = phaseRunning, pid, started, boot, frame
	})
	if err != nil {
		return errors.Join(err, pidfd.Close())
	}
	e.watch(s, pidfd)
	return nil
}

// openDescriptors opens what the runner gets as descriptors 3 to 6, in the order
// of package control.
func openDescriptors(s *session, spec engine.Spec) (files []*os.File, err error) {
	listener, err := listenControl(s.dir)
	if err != nil {
		return nil, err
	}
	files = append(files, listener)
	log, err := os.OpenFile(s.path(logFile), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return files, fmt.Errorf("open session log: %w", err)
	}
	files = append(files, log)
	record, err := os.OpenFile(s.path(recordFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return files, fmt.Errorf("open exit record: %w", err)
	}
	files = append(files, record)
	config, err := sealedConfig(spec)
	if err != nil {
		return files, err
	}
	return append(files, config), nil
}

// sealedConfig puts the runner's configuration into memory that nobody can
// change and that has no name anywhere.
func sealedConfig(spec engine.Spec) (*os.File, error) {
	b, err := json.Marshal(spec.Runner)
	if err != nil {
		return nil, fmt.Errorf("encode runner's configuration: %w", err)
	}
	return sealed("config", 0, bytes.NewReader(b))
}
