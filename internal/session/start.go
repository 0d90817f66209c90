package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/engine"
	"backendai/internal/image/service"
)

const (
	// reportEvery is how often the progress of a download is told at most.
	reportEvery = 200 * time.Millisecond
	// adoptTime is how long the runner of a container that an earlier server
	// started may take to answer before the container is made anew.
	adoptTime = 10 * time.Second
)

// start brings a session to RUNNING. It gives an ending when that did not work
// or is not wanted any more.
func (s *Service) start(ctx context.Context, l *live) *ending {
	work, done := until(ctx, l.end)
	defer done()
	running, err := s.takeOver(work, l)
	if err == nil && !running {
		err = s.launch(work, l)
	}
	return s.judge(ctx, l, err)
}

// restart makes the container anew. The home stays.
func (s *Service) restart(ctx context.Context, l *live) *ending {
	err := s.update(ctx, l, false, func(one *backendai.Session) error {
		one.Apps, one.Result, one.ExitCode = nil, backendai.ResultUndefined, nil
		return one.MoveTo(backendai.StatusRestarting, "", s.now())
	})
	if err != nil {
		return s.judge(ctx, l, err)
	}
	work, done := until(ctx, l.end)
	defer done()
	err = s.opts.Engine.Stop(work, l.id, stopGrace)
	if err == nil {
		err = s.launch(work, l)
	}
	return s.judge(ctx, l, err)
}

// judge makes an ending of the error of a start, nil of none.
func (s *Service) judge(ctx context.Context, l *live, err error) *ending {
	if err == nil {
		return nil
	}
	if reason, _ := l.asked(); reason != "" || ctx.Err() != nil {
		return wanted(l)
	}
	if died, ok := errors.AsType[*diedError](err); ok {
		return &died.ending
	}
	s.log.Warn("start session", "session", l.id, "err", err)
	return &ending{reason: backendai.ReasonFailedToCreate, message: sentence(err), failed: true}
}

// sentence is what people read of an error, in one line. Causes of no known
// kind stay in the log.
func sentence(err error) string {
	e, ok := errors.AsType[*backendai.Error](err)
	switch {
	case !ok:
		return "the server could not do it; its log tells why"
	case e.Hint == "":
		return e.Title
	default:
		return e.Title + " (" + e.Hint + ")"
	}
}

// diedError is the error of a container that ended before it was ready.
type diedError struct{ ending ending }

func (e *diedError) Error() string { return e.ending.words() }

// takeOver looks at what an earlier server left of the session's container: one
// that answers is taken as running, any other is removed.
func (s *Service) takeOver(ctx context.Context, l *live) (running bool, err error) {
	switch status := l.now().Status; {
	case !l.adopted:
		return false, nil
	case status == backendai.StatusRestarting:
		// It may be the old one as well as the new one.
		return false, s.opts.Engine.Stop(ctx, l.id, stopGrace)
	case l.found != nil && l.found.Running && status == backendai.StatusCreating:
		patience, cancel := context.WithTimeout(ctx, adoptTime)
		defer cancel()
		if apps, err := s.greet(patience, l); err == nil {
			return true, s.runs(ctx, l, apps)
		}
	}
	if l.found == nil {
		return false, nil
	}
	return false, s.opts.Engine.Remove(ctx, l.id, 0)
}

// launch makes the container of a session and waits until it is ready. The
// status is one on the way to RUNNING.
func (s *Service) launch(ctx context.Context, l *live) error {
	one := l.now()
	image, err := s.opts.Images.Resolve(ctx, one.Image, one.Architecture)
	if err != nil {
		return err
	}
	if !image.Present() || len(one.Mounts) > 0 { // both may take long
		if err := s.advance(ctx, l, backendai.StatusPreparing); err != nil {
			return err
		}
	}
	var mounts []engine.Mount
	if len(one.Mounts) > 0 {
		if s.opts.Folders == nil {
			return backendai.NotFound("folder", one.Mounts[0].Source)
		}
		if mounts, err = s.opts.Folders.Attach(ctx, one.Mounts); err != nil {
			return err
		}
	}
	if !image.Present() {
		if image, err = s.pull(ctx, l, image); err != nil {
			return err
		}
	}
	if err := runnable(image); err != nil {
		return err
	}
	if err := s.advance(ctx, l, backendai.StatusCreating); err != nil {
		return err
	}
	spec := s.spec(l.now(), image, mounts)
	if s.opts.Dotfiles != nil {
		if spec.Runner.Files, err = s.opts.Dotfiles.Files(ctx, one.AccessKey); err != nil {
			return err
		}
	}
	if err := s.create(ctx, spec); err != nil {
		return err
	}
	apps, err := s.greet(ctx, l)
	if err != nil {
		return s.autopsy(ctx, l, err)
	}
	return s.runs(ctx, l, apps)
}

// create makes the container when it is its turn.
func (s *Service) create(ctx context.Context, spec engine.Spec) error {
	if err := s.creating.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.creating.Release(1)
	return s.opts.Engine.Create(ctx, spec)
}

// pull fetches the image and tells how far it has come.
func (s *Service) pull(ctx context.Context, l *live, image backendai.Image) (backendai.Image, error) {
	if err := s.advance(ctx, l, backendai.StatusPulling); err != nil {
		return image, err
	}
	var last backendai.PullProgress
	var told time.Time
	pulled, err := s.opts.Images.Pull(ctx, image.Ref, func(p backendai.PullProgress) {
		at := s.now()
		if p.Stage == last.Stage && at.Sub(told) < reportEvery {
			return
		}
		last, told = p, at
		s.report(l, p, at)
	})
	if err != nil {
		return image, err
	}
	return pulled, misfit(l.now(), pulled)
}

// report tells the progress of a download. It is not stored: it would be old
// before it is read.
func (s *Service) report(l *live, p backendai.PullProgress, at time.Time) {
	l.writing.Lock()
	defer l.writing.Unlock()
	one := copyOf(l.now())
	one.StatusMessage = fmt.Sprintf("%s %s", p.Stage, p.Ref)
	if p.Total > 0 {
		one.StatusMessage += fmt.Sprintf(": %s of %s", backendai.FormatSize(p.Done), backendai.FormatSize(p.Total))
	}
	l.set(one)
	s.tell(one, backendai.EventFor(backendai.StatusPulling), one.Image, at, &p)
}

// greet waits until the runner is ready and asks it for the session's apps.
func (s *Service) greet(ctx context.Context, l *live) (apps []backendai.App, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := l.control.Ready(ctx)
		return err
	})
	g.Go(func() (err error) {
		apps, err = l.control.Apps(ctx)
		return err
	})
	return apps, g.Wait()
}

// runs marks a session as running.
func (s *Service) runs(ctx context.Context, l *live, apps []backendai.App) error {
	l.forgetListening()
	return s.update(ctx, l, false, func(one *backendai.Session) error {
		one.Apps, one.StatusMessage = apps, ""
		return one.MoveTo(backendai.StatusRunning, "", s.now())
	})
}

// autopsy tells why a container is not ready.
func (s *Service) autopsy(ctx context.Context, l *live, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Its end is recorded when it is stopped, if it has not been before.
	if err := s.opts.Engine.Stop(ctx, l.id, 0); err != nil {
		return errors.Join(cause, err)
	}
	c, err := s.container(ctx, l.id)
	if err != nil {
		return errors.Join(cause, err)
	}
	if c == nil || c.Exit == nil || c.Exit.Reason == backendai.ReasonForced {
		s.log.Warn("session is not ready", "session", l.id, "err", cause)
		return &diedError{ending{reason: backendai.ReasonFailedToStart, message: "its container did not become ready: " + sentence(cause), failed: true}}
	}
	why := s.exitEnding(l, *c.Exit)
	why.failed = true
	if why.reason != backendai.ReasonOutOfMemory {
		why.reason = backendai.ReasonFailedToStart
	}
	why.message = "its container ended before it was ready: " + exitWords(*c.Exit)
	return &diedError{why}
}

// container looks for a session's container; nil when there is none.
func (s *Service) container(ctx context.Context, id string) (*engine.Container, error) {
	list, err := s.opts.Engine.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range list {
		if c.ID == id {
			return &c, nil
		}
	}
	return nil, nil
}

// exitEnding makes an ending of a container's end that nobody asked for.
func (s *Service) exitEnding(l *live, exit engine.Exit) ending {
	one := l.now()
	why := ending{reason: exit.Reason, message: exitWords(exit), result: one.Result}
	if exit.Code >= 0 {
		why.exit = &exit.Code
	}
	batch := map[string]backendai.Result{
		backendai.ReasonTaskFinished: backendai.ResultSuccess, backendai.ReasonTaskFailed: backendai.ResultFailure,
		backendai.ReasonTaskTimeout: backendai.ResultFailure,
	}
	result, task := batch[exit.Reason]
	switch {
	case exit.OOM:
		why.reason = backendai.ReasonOutOfMemory
		why.message = fmt.Sprintf("the session used more than its %s of memory", amount("mem", one.Requested[backendai.SlotMem]))
		result = backendai.ResultFailure
	case task && one.Type == backendai.Batch:
	case task, exit.Reason == "", exit.Reason == backendai.ReasonUserRequested:
		why.reason = backendai.ReasonSelfTerminated
		result = backendai.ResultFailure
	default:
		result = backendai.ResultFailure
	}
	if one.Type == backendai.Batch {
		why.result = result
	}
	return why
}

// exitWords tells a container's end to people.
func exitWords(exit engine.Exit) string {
	switch {
	case exit.Detail != "":
		return exit.Detail
	case exit.Code >= 0:
		return fmt.Sprintf("exit code %d", exit.Code)
	default:
		return "nobody saw its end"
	}
}

// spec is what the engine is told of a session.
func (s *Service) spec(one *backendai.Session, image backendai.Image, mounts []engine.Mount) engine.Spec {
	config := control.Config{
		SessionID: one.ID, SessionName: one.Name, Secret: s.opts.Derive(purposeControl, one.ID),
		Home: home, Loopback: loopback, Env: environ(one, image),
		ServicePorts: image.Labels[service.LabelServicePorts], RuntimePath: runtimePath(image), Preopen: one.PreopenPorts,
		Bootstrap: one.Bootstrap, SSH: s.keys(one), MOTD: motd(one),
	}
	if one.Type == backendai.Batch {
		config.Batch = &control.Batch{Command: one.Startup, Timeout: one.BatchTimeout}
	}
	return engine.Spec{
		ID: one.ID, Hostname: hostname, Image: image, Slots: one.Requested, Shmem: one.Shmem,
		Mounts: mounts, Egress: !one.NoEgress, Runner: config,
	}
}
