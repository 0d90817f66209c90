package session

import (
	"context"

	"backendai"
)

// Apps implements API. A running session is asked, because its user may have
// installed more; should it not answer, what it had at its start is told.
func (s *Service) Apps(ctx context.Context, caller backendai.Caller, ref string) ([]backendai.App, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return nil, err
	}
	apps, err := l.control.Apps(ctx)
	if err != nil {
		s.log.Warn("ask for apps", "session", l.id, "err", err)
		return l.now().Apps, nil
	}
	return apps, nil
}

// ShutdownApp implements API.
func (s *Service) ShutdownApp(ctx context.Context, caller backendai.Caller, ref, app string) error {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return err
	}
	if !appRE.MatchString(app) {
		return backendai.NotFound("app service", app)
	}
	l.forgetListening()
	return l.control.Stop(ctx, app)
}

// way finds a running session for a call to its runner.
func (s *Service) way(ctx context.Context, caller backendai.Caller, ref string) (*live, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.running(caller, ref)
}

// Terminals implements API.
func (s *Service) Terminals(ctx context.Context, caller backendai.Caller, ref string) ([]Terminal, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return nil, err
	}
	return l.control.Terminals(ctx)
}

// EndTerminal implements API.
func (s *Service) EndTerminal(ctx context.Context, caller backendai.Caller, ref, name string) error {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return err
	}
	return l.control.EndTerminal(ctx, name)
}

// Interrupt implements API.
func (s *Service) Interrupt(ctx context.Context, caller backendai.Caller, ref string) error {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return err
	}
	return l.control.Interrupt(ctx)
}
