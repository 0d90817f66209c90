package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"backendai"
	"backendai/internal/control"
)

const (
	logSuffix  = ".log"
	sweepEvery = time.Hour
)

// Logs implements API. Of a session that does not run yet, following waits for
// the first output.
func (s *Service) Logs(ctx context.Context, caller backendai.Caller, ref string, follow bool) (io.ReadCloser, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	l, err := s.resolve(caller, ref)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		one, err := s.findDead(ctx, caller, ref)
		if err != nil {
			return nil, err
		}
		return s.keptLog(one)
	}
	if err != nil {
		return nil, err
	}
	if follow {
		return s.followLog(ctx, l)
	}
	log, err := s.opts.Engine.Logs(ctx, l.id, control.LogLimit)
	if backendai.CodeOf(err) == backendai.CodeNotFound { // there is no container yet, or none any more
		if one := l.now(); one.Status.Final() || one.Status == backendai.StatusTerminating {
			if kept, err := s.keptLog(one); err == nil {
				return kept, nil
			}
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	return log, err
}

// followLog gives what a session printed and will print.
func (s *Service) followLog(ctx context.Context, l *live) (io.ReadCloser, error) {
	for {
		one, changed := l.look()
		switch {
		case one.Status == backendai.StatusRunning:
			log, err := l.control.Logs(ctx, true)
			if err != nil {
				return nil, err
			}
			return untilEnd{log}, nil
		case one.Status.Final():
			return s.keptLog(one)
		}
		select {
		case <-changed:
		case <-s.stopped:
			return nil, errStopped()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// untilEnd is a stream that ends with the session, be it ever so abruptly.
type untilEnd struct{ io.ReadCloser }

func (u untilEnd) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// keptLog opens what is kept of the output of a session that has ended.
func (s *Service) keptLog(one *backendai.Session) (io.ReadCloser, error) {
	if s.opts.LogDir == "" {
		return nil, logGone(one)
	}
	file, err := os.Open(filepath.Join(s.opts.LogDir, one.ID+logSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, logGone(one)
	}
	if err != nil {
		return nil, fmt.Errorf("open log of session %s: %w", one.ID, err)
	}
	return file, nil
}

func logGone(one *backendai.Session) error {
	return backendai.Errorf(backendai.CodeNotFound, "the session %q has ended and there is no log of it", one.Name).
		WithHint("it never had a container, or its log was older than the server keeps them")
}

// keepLog copies the log of a session that is about to be removed. A log that
// cannot be kept keeps no session from ending.
func (s *Service) keepLog(ctx context.Context, id string) {
	if s.opts.LogDir == "" || s.opts.LogRetention <= 0 {
		return
	}
	if err := s.copyLog(ctx, id); err != nil {
		s.log.Error("keep log", "session", id, "err", err)
	}
}

func (s *Service) copyLog(ctx context.Context, id string) (err error) {
	log, err := s.opts.Engine.Logs(ctx, id, control.LogLimit)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		return nil // it never had a container
	}
	if err != nil {
		return err
	}
	defer log.Close()
	if err := os.MkdirAll(s.opts.LogDir, 0o700); err != nil {
		return fmt.Errorf("make folder of logs: %w", err)
	}
	name := filepath.Join(s.opts.LogDir, id+logSuffix)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name + ".new")
		}
	}()
	_, err = io.Copy(f, io.LimitReader(log, control.LogLimit))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return os.Rename(name+".new", name)
}

// sweepLogs removes logs that are older than they are kept, now and then.
func (s *Service) sweepLogs(ctx context.Context) {
	if s.opts.LogDir == "" {
		return
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		s.sweepLogsOnce()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) sweepLogsOnce() {
	entries, err := os.ReadDir(s.opts.LogDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("list kept logs", "err", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || s.now().Sub(info.ModTime()) < s.opts.LogRetention {
			continue
		}
		if err := os.Remove(filepath.Join(s.opts.LogDir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("remove kept log", "err", err)
		}
	}
}
