package ttyd

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/coder/websocket"
)

// receive handles the client's messages until the connection closes.
func (v *viewer) receive(ctx context.Context) error {
	for {
		_, p, err := v.conn.Read(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		if len(p) == 0 {
			continue
		}
		if err := v.handle(ctx, p[0], p[1:]); err != nil {
			return err
		}
	}
}

var errProtocol = closing{websocket.StatusUnsupportedData, "a message that is none of the protocol's"}

func (v *viewer) handle(ctx context.Context, letter byte, payload []byte) error {
	if letter == msgInput {
		v.input(ctx.Done(), payload)
		return nil
	}
	t := v.term
	t.mu.Lock()
	switch letter {
	case msgResize:
		var z size
		if err := json.Unmarshal(payload, &z); err != nil {
			t.mu.Unlock()
			return errProtocol
		}
		v.size = z.clamp()
		t.lead(v)
	case msgPause:
		v.paused = true
	case msgResume:
		v.paused = false
		v.wake()
	case msgAck:
		offset, err := strconv.ParseUint(string(payload), 10, 64)
		if err != nil {
			t.mu.Unlock()
			return errProtocol
		}
		if offset > v.acked && offset <= v.sent {
			v.acked = offset
			v.wake()
		}
	case msgNew:
		if v.extended && t.shell == nil && !t.ending() {
			t.startShell()
			t.wakeAll()
		}
	case '{': // a second hello changes nothing
	default:
		t.mu.Unlock()
		return errProtocol
	}
	t.mu.Unlock()
	return nil
}

// input gives the shell what was typed. It waits while too much is queued, but no
// longer than until stop closes: what came from a viewer that is cut counts. To
// count and to queue is one step, or what the page sends over its next connection
// could overtake this.
func (v *viewer) input(stop <-chan struct{}, p []byte) {
	t := v.term
	for stopped := false; ; {
		t.mu.Lock()
		sh := t.shell
		if done := v.muted || sh == nil || sh.queue(p, stopped); done {
			if !v.muted {
				t.lead(v)
				v.count(len(p))
			}
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		select {
		case <-sh.space:
		case <-sh.gone:
		case <-stop:
			stopped = true
		}
	}
}

// count counts input of a page that would repeat it. The terminal's lock is held.
func (v *viewer) count(n int) {
	if v.client == "" {
		return
	}
	v.term.inputs[v.client] += uint64(n) //nolint:gosec // a length
	if v.unacked += n; v.unacked >= typedEvery {
		v.wake()
	}
}

// ending says that the terminal is being ended.
func (t *terminal) ending() bool {
	select {
	case <-t.ends:
		return true
	default:
		return false
	}
}
