package ttyd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	// frameSize is the most output in one message.
	frameSize = 32 << 10
	// gatherTime is how long a message waits for more when output does not end:
	// every hop on the way to the viewer costs the same for small messages.
	gatherTime = time.Millisecond
	// maxClient is how long a page's name for itself may be.
	maxClient = 64
	// typedEvery is after how many bytes of input a page is told that they came.
	typedEvery = 8 << 10
	// helloTime is how long a client may take to say the first message.
	helloTime = 10 * time.Second
	// pingTime is how often a viewer is asked whether it lives, and how long it may take.
	pingTime = 20 * time.Second
)

// viewer is one WebSocket that shows a terminal.
type viewer struct {
	conn     *websocket.Conn
	extended bool // speaks our extension
	cancel   context.CancelCauseFunc
	woken    chan struct{}
	term     *terminal

	// Owned by the goroutine that sends.
	pending [][]byte // messages that go before everything else
	replay  *replay  // sent before the ring, as far as it reaches
	markSeq int      // last size that was sent
	answers bool     // what was last sent of it
	told    bool     // that the shell ended
	frame   []byte

	// Guarded by the terminal's lock.
	size    size
	sent    uint64 // offset of the next byte to send
	acked   uint64 // offset that an extended viewer has processed
	paused  bool
	stalled bool // takes nothing: the shell does not wait for it
	active  int
	client  string // names a page over its reconnects; "" for one that cannot repeat input
	muted   bool   // the page has another connection by now
	unacked int    // bytes of input since the page was told
}

func (v *viewer) wake() { signal(v.woken) }

// seen is the offset up to which the viewer surely has the output. The
// terminal's lock is held.
func (v *viewer) seen() uint64 {
	if v.extended {
		return v.acked
	}
	return v.sent
}

// view serves one WebSocket until it closes or ctx ends.
func (s *Server) view(ctx context.Context, conn *websocket.Conn, name, token string) error {
	conn.SetReadLimit(maxMessage)
	h, err := readHello(ctx, conn)
	if err != nil {
		return err
	}
	if token != "" && !equal(h.AuthToken, token) {
		return closing{websocket.StatusPolicyViolation, "the token is not this server's: reload the page"}
	}
	if h.size == (size{}) {
		h.size = size{80, 24}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &viewer{
		conn: conn, extended: h.Resume != nil, cancel: cancel, size: h.clamp(),
		woken: make(chan struct{}, 1), frame: make([]byte, 0, frameSize+1),
	}
	if v.extended && len(h.Resume.Client) <= maxClient {
		v.client = h.Resume.Client
	}
	t, err := s.join(name, v)
	if err != nil {
		return closing{websocket.StatusTryAgainLater, err.Error()}
	}
	defer t.detach(v)
	v.greet(h)
	var tasks sync.WaitGroup
	for _, task := range []func(context.Context) error{v.send, v.ping, v.receive} {
		tasks.Go(func() { cancel(task(ctx)) })
	}
	<-ctx.Done()
	hangUp(conn, context.Cause(ctx)) // ends what waits for the connection
	tasks.Wait()
	return context.Cause(ctx)
}

// greet prepares the first messages: title, preferences, and the output from
// where the client has it, or a replay.
func (v *viewer) greet(h hello) {
	t := v.term
	v.push(msgPrefs, []byte("{}"))
	t.mu.Lock()
	from, to := t.output.start, t.output.end
	fresh := h.Resume == nil || h.Resume.Instance != t.instance || h.Resume.Offset < from || h.Resume.Offset > to
	if !fresh {
		v.sent, v.acked = h.Resume.Offset, h.Resume.Offset
	}
	title := t.title()
	if !fresh {
		v.state(state{Offset: h.Resume.Offset, Live: h.Resume.Offset})
	}
	t.mu.Unlock()
	if fresh {
		v.push(msgTitle, []byte(title))
		v.restart(ringLimit)
	}
}

// title is the one that a terminal has by itself. The lock is held.
func (t *terminal) title() string {
	host, err := os.Hostname()
	if err != nil || t.shell == nil {
		return t.name
	}
	return fmt.Sprintf("%s (%s)", filepath.Base(t.shell.path), host)
}

// restart begins a replay of the newest span bytes.
func (v *viewer) restart(span uint64) {
	t := v.term
	r, at := t.snapshot(span)
	if r.start > 0 {
		r.align(at)
	}
	v.markSeq, v.told = 0, false
	t.mu.Lock()
	v.sent, v.acked = r.start, r.start
	if v.extended {
		v.replay = r
		v.state(state{Offset: r.start, Live: r.end, Reset: true})
		v.push(msgModes, r.restore)
	} else {
		v.sent = r.end
	}
	t.mu.Unlock()
	if !v.extended && r.end > 0 {
		v.push(msgOutput, []byte("\x1bc"))
		v.push(msgOutput, r.restore)
		for output := withoutQueries(r.data); len(output) > 0; {
			n := min(len(output), frameSize)
			v.push(msgOutput, output[:n])
			output = output[n:]
		}
	}
	if r.redraw && r.start > 0 {
		t.redraw()
	}
}

func (v *viewer) push(letter byte, payload []byte) {
	v.pending = append(v.pending, append([]byte{letter}, payload...))
}

func (v *viewer) pushJSON(letter byte, payload any) {
	text, _ := json.Marshal(payload) // plain structs
	v.push(letter, text)
}

// state tells an extended client where it stands. The terminal's lock is held.
func (v *viewer) state(s state) {
	if v.extended {
		s.Terminal, s.Instance = v.term.name, v.term.instance
		s.Input = v.term.inputs[v.client]
		v.pushJSON(msgState, s)
	}
}

// send writes messages as they become due, until ctx ends. It does not write
// under ctx, whose end would break the connection before it is closed well.
func (v *viewer) send(ctx context.Context) error {
	gather := time.NewTimer(0)
	defer gather.Stop()
	for ctx.Err() == nil {
		message, err := v.next()
		if err != nil {
			return err
		}
		if message == nil {
			select {
			case <-v.woken:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := v.conn.Write(context.WithoutCancel(ctx), websocket.MessageBinary, message); err != nil {
			return err
		}
		if message[0] == msgOutput && v.trickles() {
			gather.Reset(gatherTime)
			select {
			case <-gather.C:
			case <-ctx.Done():
			}
		}
	}
	return context.Cause(ctx)
}

// trickles tells whether more output has come while the last was sent, but less
// than fills a message. The echo of a key is not followed by more.
func (v *viewer) trickles() bool {
	t := v.term
	t.mu.Lock()
	defer t.mu.Unlock()
	return v.replay == nil && v.sent < t.output.end && t.output.end-v.sent < frameSize
}

// next is the message that is due, nil for none. It is valid until the next call.
func (v *viewer) next() ([]byte, error) {
	if len(v.pending) == 0 {
		if err := v.advance(); err != nil {
			return nil, err
		}
	}
	if len(v.pending) > 0 {
		message := v.pending[0]
		v.pending = v.pending[1:]
		return message, nil
	}
	if len(v.frame) > 1 {
		message := v.frame
		v.frame = v.frame[:0]
		return message, nil
	}
	return nil, nil
}

// advance finds what is due: output into frame, all else into pending.
func (v *viewer) advance() error {
	t := v.term
	t.mu.Lock()
	defer t.mu.Unlock()
	if answers := t.leader == v; answers != v.answers && v.extended {
		v.answers = answers
		v.push(msgAnswers, strconv.AppendInt(nil, int64(btoi(answers)), 10))
		return nil
	}
	if v.unacked >= typedEvery {
		v.unacked = 0
		v.push(msgTyped, strconv.AppendUint(nil, t.inputs[v.client], 10))
		return nil
	}
	if v.replay != nil && v.sent >= v.replay.end {
		v.replay = nil
	}
	if v.replay == nil && v.sent < t.output.start {
		t.mu.Unlock()
		v.restart(resyncSpan)
		t.mu.Lock()
		return nil
	}
	marks, end := t.marks, t.output.end
	if v.replay != nil {
		marks, end = v.replay.marks, v.replay.end
	}
	mark, end := due(marks, v.markSeq, v.sent, end)
	if mark != nil {
		v.markSeq = mark.seq
		if v.extended {
			v.pushJSON(msgSize, mark.size)
			return nil
		}
	}
	if v.extended {
		end = min(end, v.acked+window)
	}
	switch {
	case t.shell != nil && v.told:
		v.told = false
		v.state(state{Offset: v.sent, Live: v.sent})
	case v.paused:
	case end > v.sent:
		v.take(min(int(end-v.sent), frameSize))
	case v.sent == t.output.end && t.shell == nil && !v.told:
		v.told = true
		if !v.extended {
			return closing{websocket.StatusNormalClosure, ""}
		}
		v.pushJSON(msgExit, t.exit)
	}
	return nil
}

// take moves the next n bytes of output into frame. The terminal's lock is held.
func (v *viewer) take(n int) {
	v.frame = append(v.frame[:0], msgOutput)
	v.frame = v.frame[:1+n]
	if v.replay != nil {
		copy(v.frame[1:], v.replay.data[v.sent-v.replay.start:])
	} else {
		v.term.output.read(v.frame[1:], v.sent)
	}
	v.sent += uint64(n)
	v.stalled = false
	signal(v.term.room)
}

// ping ends the viewer when it does not answer any more.
func (v *viewer) ping(ctx context.Context) error {
	ticker := time.NewTicker(pingTime)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		limit, cancel := context.WithTimeout(ctx, pingTime)
		err := v.conn.Ping(limit)
		cancel()
		if err != nil {
			return fmt.Errorf("ping viewer: %w", err)
		}
	}
}
