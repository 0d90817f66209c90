package account

import (
	"context"
	"sync"
)

// hold is what all holders of a keypair share.
type hold struct {
	ctx     context.Context //nolint:containedctx // it is what holders get
	end     context.CancelCauseFunc
	holders int
}

// Hold implements API.
func (s *Service) Hold(ctx context.Context, accessKey string) (context.Context, func(), error) {
	s.mu.Lock()
	h := s.holds[accessKey]
	if h == nil || h.ctx.Err() != nil {
		h = &hold{}
		h.ctx, h.end = context.WithCancelCause(context.Background())
		s.holds[accessKey] = h
	}
	h.holders++
	s.mu.Unlock()
	release := sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h.holders--; h.holders > 0 {
			return
		}
		h.end(nil)
		if s.holds[accessKey] == h {
			delete(s.holds, accessKey)
		}
	})
	// It may have been deactivated just before changed could know of the hold.
	if _, err := s.Lookup(ctx, accessKey); err != nil {
		release()
		return nil, nil, err
	}
	return h.ctx, release, nil
}
