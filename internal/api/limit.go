package api

import (
	"math"
	"strconv"
	"sync"
	"time"

	"backendai"
)

// limitWindow is the time in which a keypair's requests are counted.
const limitWindow = 15 * time.Minute

// unlimited is what clients are told of a keypair without a limit.
const unlimited = math.MaxInt32

// limiter counts requests by access key in a rolling window. It keeps two
// numbers per key: the requests of the current and of the last fixed window,
// of which the last counts as far as the rolling window still covers it.
type limiter struct {
	mu    sync.Mutex
	start time.Time // of the current window
	now   map[string]int
	last  map[string]int
}

// count adds one request and returns how many the key made in the last window.
func (l *limiter) count(key string, at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch passed := at.Sub(l.start); {
	case passed >= 2*limitWindow || l.now == nil:
		l.start, l.now, l.last = at, map[string]int{}, map[string]int{}
	case passed >= limitWindow:
		l.start, l.now, l.last = l.start.Add(limitWindow), map[string]int{}, l.now
	}
	l.now[key]++
	rest := 1 - float64(at.Sub(l.start))/float64(limitWindow)
	return l.now[key] + int(float64(l.last[key])*min(1, max(0, rest)))
}

// count tells the client its limit and refuses what is beyond.
func (h *Handler) count(c *call) error {
	limit := c.signer.Keypair.RateLimit
	n := h.limiter.count(c.signer.Keypair.AccessKey, h.now())
	if limit <= 0 {
		limit = unlimited
	}
	header := c.w.Header()
	header.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	header.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, limit-n)))
	header.Set("X-RateLimit-Window", strconv.Itoa(int(limitWindow.Seconds())))
	if n > limit {
		header.Set("Retry-After", strconv.Itoa(int(limitWindow.Seconds())))
		return backendai.Errorf(backendai.CodeRateLimit, "more than %d requests in %s with access key %s", limit, limitWindow, c.signer.Keypair.AccessKey).
			WithHint("wait, or ask an administrator to raise the limit of the keypair")
	}
	return nil
}
