package vfolder

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"backendai"
)

// keptTasks is how many tasks that are over can still be asked for.
const keptTasks = 1000

// TaskState is how far a task has come; Done and Err are set at its end.
type TaskState struct {
	ID      string
	Message string
	Current int64 // bytes
	Total   int64
	Done    bool
	Err     error
}

// task is work that goes on after the request that asked for it was answered.
type task struct {
	user string

	mu      sync.Mutex
	state   TaskState
	changed chan struct{} // closed and made anew at each change
}

// tasks are the running ones and the last that are over.
type tasks struct {
	mu    sync.Mutex
	byID  map[string]*task
	order []string
	work  sync.WaitGroup
	// ctx is that of Run: tasks end with it. Nil before Run has begun.
	ctx context.Context //nolint:containedctx // the life of the service is that of its tasks
}

// begins starts a task of a user. It runs until it is over or the service ends.
func (s *Service) begins(user string, work func(ctx context.Context, t *task) error) (id string, err error) {
	s.tasks.mu.Lock()
	defer s.tasks.mu.Unlock()
	if s.tasks.ctx == nil || s.tasks.ctx.Err() != nil {
		return "", backendai.Errorf(backendai.CodeUnavailable, "the server is starting or stopping").WithHint("try again")
	}
	t := &task{user: user, state: TaskState{ID: uuid.NewString()}, changed: make(chan struct{})}
	if s.tasks.byID == nil {
		s.tasks.byID = map[string]*task{}
	}
	s.tasks.byID[t.state.ID] = t
	s.tasks.order = append(s.tasks.order, t.state.ID)
	if len(s.tasks.order) > keptTasks {
		delete(s.tasks.byID, s.tasks.order[0])
		s.tasks.order = s.tasks.order[1:]
	}
	ctx := s.tasks.ctx
	s.tasks.work.Go(func() {
		err := work(ctx, t)
		t.set(func(state *TaskState) { state.Done, state.Err = true, err })
	})
	return t.state.ID, nil
}

// set changes the state and wakes who follows it.
func (t *task) set(edit func(*TaskState)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	edit(&t.state)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *task) look() (TaskState, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state, t.changed
}

// FollowTask calls step with each state of a task of the caller that it sees, the
// last of them being the end.
func (s *Service) FollowTask(ctx context.Context, caller backendai.Caller, id string, step func(TaskState) error) error {
	s.tasks.mu.Lock()
	t := s.tasks.byID[id]
	s.tasks.mu.Unlock()
	if t == nil || t.user != caller.User.ID && !caller.Superadmin() {
		return backendai.NotFound("task", id)
	}
	for {
		state, changed := t.look()
		if err := step(state); err != nil || state.Done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
