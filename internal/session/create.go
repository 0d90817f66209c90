package session

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"backendai"
)

// endingPatience is how long a create waits for the end of a session that has
// its name and is being removed.
const endingPatience = 20 * time.Second

// Create implements API. A caller that goes away does not keep the session from
// starting.
func (s *Service) Create(ctx context.Context, caller backendai.Caller, req CreateRequest) (CreateResult, error) {
	if err := s.wait(ctx); err != nil {
		return CreateResult{}, err
	}
	if err := backendai.ValidateSessionName(req.Name); err != nil {
		return CreateResult{}, err
	}
	image, err := s.image(ctx, req)
	if err != nil {
		return CreateResult{}, err
	}
	key := nameKey{caller.Keypair.AccessKey, req.Name}
	var asked *backendai.Session
	for {
		existing, err := s.holder(ctx, key)
		if err != nil {
			return CreateResult{}, err
		}
		if existing != nil {
			if one := existing.now(); !req.Reuse || one.Image != image.Ref {
				return CreateResult{}, s.taken(one, req, image)
			}
			return s.started(ctx, existing, req, false)
		}
		if asked == nil {
			if asked, err = s.plan(ctx, caller, req, image); err != nil {
				return CreateResult{}, err
			}
		}
		l, ok, err := s.enlist(ctx, key, asked)
		if err != nil {
			return CreateResult{}, err
		}
		if ok {
			return s.started(ctx, l, req, true)
		}
	}
}

// holder is the live session that has a name, nil when there is none. One that
// is ending is waited for.
func (s *Service) holder(ctx context.Context, key nameKey) (*live, error) {
	limit := time.NewTimer(endingPatience)
	defer limit.Stop()
	for {
		l := s.byName(key)
		if l == nil {
			return nil, nil
		}
		select {
		case <-l.stored:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		reason, _ := l.asked()
		one := l.now()
		if s.byID(l.id) != l { // it could not be stored, or has just ended
			continue
		}
		if reason == "" && one.Status != backendai.StatusTerminating && one.Status != backendai.StatusError {
			return l, nil
		}
		select {
		case <-l.done:
		case <-limit.C:
			return nil, backendai.Errorf(backendai.CodeSessionExists, "the session %q is still being removed", key.name).
				WithHint("try again in a moment, or choose another name").
				WithData(map[string]string{"existingSessionId": l.id})
		case <-s.stopped:
			return nil, errStopped()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// taken is the error for a name that a live session has.
func (s *Service) taken(one *backendai.Session, req CreateRequest, image backendai.Image) error {
	e := backendai.Errorf(backendai.CodeSessionExists, "there is a session %q already", one.Name).
		WithHint("choose another name, or remove it with: backend.ai rm %s", one.Name).
		WithData(map[string]string{"existingSessionId": one.ID})
	if req.Reuse {
		e.Title += fmt.Sprintf(", of the image %q and not %q", one.Image, image.Ref)
	}
	return e
}

// enlist stores a session and hands it to Run. It is false when another session
// took the name meanwhile.
func (s *Service) enlist(ctx context.Context, key nameKey, one *backendai.Session) (*live, bool, error) {
	l := s.newLive(one)
	s.mu.Lock()
	if s.names[key] != nil {
		s.mu.Unlock()
		return nil, false, nil
	}
	s.names[key] = l
	s.mu.Unlock()
	// A client that goes away in this moment must not leave the name taken.
	err := s.opts.Store.InsertSession(context.WithoutCancel(ctx), one)
	s.mu.Lock()
	if err != nil {
		delete(s.names, key)
	} else {
		s.live[l.id] = l
	}
	s.mu.Unlock()
	close(l.stored)
	if err != nil {
		return nil, false, fmt.Errorf("store session %q: %w", one.Name, err)
	}
	s.tellStep(one, one.History[0])
	if queues(one, s.now()) {
		l.ticket = s.admission.join(one) // here, so that the order is that of the calls
	}
	select {
	case s.begin <- l:
	case <-s.stopped: // the next server finds it in the database
	}
	return l, true, nil
}

// queues tells whether a session waits for nothing but its slots.
func queues(one *backendai.Session, now time.Time) bool {
	return len(one.Dependencies) == 0 && !one.StartsAt.After(now)
}

// started waits until the session runs or has failed, as long as the caller wants to.
func (s *Service) started(ctx context.Context, l *live, req CreateRequest, created bool) (CreateResult, error) {
	if req.EnqueueOnly {
		return CreateResult{Session: copyOf(l.now()), Created: created}, nil
	}
	var late <-chan time.Time
	if req.MaxWait > 0 {
		timer := time.NewTimer(req.MaxWait)
		defer timer.Stop()
		late = timer.C
	}
	for {
		one, changed := l.look()
		failures, _ := l.removal()
		if one.Status == backendai.StatusRunning || one.Status.Final() || failures > 0 {
			return CreateResult{Session: copyOf(l.outcome()), Created: created}, nil
		}
		select {
		case <-changed:
		case <-late:
			return CreateResult{Session: copyOf(one), Created: created, TimedOut: true}, nil
		case <-ctx.Done():
			return CreateResult{}, context.Cause(ctx)
		case <-s.stopped:
			return CreateResult{}, errStopped()
		}
	}
}

// plan checks the whole request and makes the session of it.
func (s *Service) plan(ctx context.Context, caller backendai.Caller, req CreateRequest, image backendai.Image) (*backendai.Session, error) {
	now := s.now()
	one := &backendai.Session{
		ID: uuid.NewString(), Name: req.Name, AccessKey: caller.Keypair.AccessKey,
		UserID: caller.User.ID, UserEmail: caller.User.Email, UserName: caller.User.Username, SSHPublicKey: caller.Keypair.SSHPublicKey,
		Domain: caller.User.Domain, Group: caller.User.Group, Type: req.Type, Image: image.Ref, Architecture: image.Architecture,
		Tag: req.Tag, Priority: req.Priority, Environ: req.Environ, PreopenPorts: req.PreopenPorts, Bootstrap: req.Bootstrap,
		Startup: req.Startup, BatchTimeout: req.BatchTimeout, StartsAt: req.StartsAt, CallbackURL: req.CallbackURL,
		ClusterSize: max(1, req.ClusterSize), Result: backendai.ResultUndefined, CreatedAt: now,
		Status: backendai.StatusPending, StatusChanged: now, History: []backendai.StatusChange{{Status: backendai.StatusPending, At: now}},
	}
	var f faults
	f.checkRequest(caller, req, image)
	one.Requested, one.Shmem = f.resources(req, image, s.capacity)
	if err := f.err(); err != nil {
		return nil, err
	}
	var err error
	if one.Dependencies, err = s.dependencies(ctx, caller, req.Dependencies); err != nil {
		return nil, err
	}
	if one.Mounts, err = s.mounts(ctx, caller, req.Mounts); err != nil {
		return nil, err
	}
	if one.Bootstrap == "" && s.opts.Dotfiles != nil {
		if one.Bootstrap, err = s.opts.Dotfiles.Bootstrap(ctx, one.AccessKey); err != nil {
			return nil, err
		}
	}
	return one, nil
}

// image finds the image and refuses one that this machine cannot run.
func (s *Service) image(ctx context.Context, req CreateRequest) (backendai.Image, error) {
	if req.Image == "" {
		return backendai.Image{}, backendai.Errorf(backendai.CodeInvalidParams, "the image is missing").
			WithData(map[string]string{"image": "is required"})
	}
	asked := req.Architecture
	if name, ok := architectures[asked]; ok {
		asked = name
	}
	image, err := s.opts.Images.Resolve(ctx, req.Image, asked)
	if err != nil {
		return backendai.Image{}, err
	}
	if err := runnable(image); err != nil {
		return backendai.Image{}, err
	}
	return image, nil
}

// dependencies gives the ids of the sessions that are to succeed first. Only
// batch sessions of the caller can, and only if they have not ended otherwise.
func (s *Service) dependencies(ctx context.Context, caller backendai.Caller, refs []string) ([]string, error) {
	refuse := func(format string, args ...any) error {
		return backendai.Errorf(backendai.CodeInvalidParams, format, args...).
			WithHint("a session can wait for batch sessions of yours that have succeeded or still may").
			WithData(map[string]string{"dependencies": fmt.Sprintf(format, args...)})
	}
	if len(refs) > maxDependencies {
		return nil, refuse("there are more than %d dependencies", maxDependencies)
	}
	var ids []string
	for _, ref := range refs {
		one, err := s.Find(ctx, caller, ref, true)
		if err != nil {
			return nil, err
		}
		switch {
		case one.UserID != caller.User.ID:
			return nil, noSession(ref)
		case one.Type != backendai.Batch:
			return nil, refuse("the session %q is %s and so can never succeed", one.Name, one.Type)
		case one.Status == backendai.StatusError || one.Status.Final() && one.Result != backendai.ResultSuccess:
			return nil, refuse("the session %q has ended without success", one.Name)
		}
		ids = append(ids, one.ID)
	}
	return ids, nil
}

// mounts checks what is to be mounted and adds what mounts by itself.
func (s *Service) mounts(ctx context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error) {
	if s.opts.Folders != nil {
		return s.opts.Folders.Resolve(ctx, caller, asked)
	}
	if len(asked) > 0 {
		return nil, backendai.NotFound("folder", asked[0].Source).WithHint("this server has no folders")
	}
	return nil, nil
}
