package session

import (
	"context"
	"sync"
	"time"

	"backendai"
	"backendai/internal/control"
)

// eventsPause is the wait before the runner's events are asked for again.
const eventsPause = time.Second

// watchBatch gives the end of the command of a batch session. A nil channel is
// one of a session that has none. leave ends the watch.
func (s *Service) watchBatch(ctx context.Context, l *live) (finished <-chan control.Event, leave func()) {
	if l.now().Type != backendai.Batch {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	end := make(chan control.Event, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			err := l.control.Events(ctx, func(e control.Event) bool {
				if e.Type != control.EventBatchFinished {
					return true
				}
				end <- e
				return false
			})
			if err == nil {
				return
			}
			// A runner that has ended is told by the engine; another may answer again.
			timer := time.NewTimer(eventsPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	})
	return end, func() {
		cancel()
		watching.Wait()
	}
}

// batchEnding makes an ending of the end of a batch command. The runner's word
// is the tenant's own, and decides only over the tenant's session.
func batchEnding(e control.Event) ending {
	why := ending{reason: backendai.ReasonTaskFailed, message: e.Detail, exit: &e.ExitCode, result: backendai.ResultFailure}
	switch {
	case e.Reason == backendai.ReasonTaskTimeout, e.Reason == backendai.ReasonOutOfMemory:
		why.reason = e.Reason
	case e.ExitCode == 0:
		why.reason, why.result, why.message = backendai.ReasonTaskFinished, backendai.ResultSuccess, ""
	}
	return why
}
