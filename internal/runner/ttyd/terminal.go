package ttyd

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"backendai/internal/control"
)

// Pace of a terminal's output.
const (
	// window is how many bytes of output a viewer of ours may have unprocessed.
	window = 128 << 10
	// paceLag is how far, in bytes, the shell may be ahead of the fastest viewer.
	paceLag = 128 << 10
	// stallTime is how long the shell waits for viewers that take nothing.
	stallTime = 5 * time.Second
	// holdTime is for how long nothing unseen is dropped after the last viewer was cut.
	holdTime = 10 * time.Second
	// lingerTime is how long a terminal whose shell ended waits for a viewer.
	lingerTime = 30 * time.Second
	// resyncSpan is how much of the output a viewer gets that was too slow.
	resyncSpan = 1 << 20
	// resizeTime is the least time between two changes of size.
	resizeTime = 50 * time.Millisecond
	// maxMarks bounds the changes of size that are kept.
	maxMarks = 512
	// maxClients bounds the pages whose input is counted.
	maxClients = 256
)

// terminal is a screen with one shell after another on it.
type terminal struct {
	server   *Server
	name     string
	instance string // tells this terminal from an earlier one of the same name
	started  time.Time

	room chan struct{} // a viewer took output, left or came: the pace may have changed
	ends chan struct{} // closed by end
	once sync.Once

	mu      sync.Mutex // over all below; taken after the server's
	output  ring
	tail    modes // state at output.start
	marks   []sizeMark
	size    size
	want    size   // the last wish, which may still have to become the size
	shell   *shell // nil when it has ended
	exit    exit   // of the last shell; meaningful when shell is nil
	viewers map[*viewer]struct{}
	leader  *viewer           // the last active viewer
	active  int               // counts activity, to find the next leader
	inputs  map[string]uint64 // bytes that came from each page that can repeat its input
	left    time.Time
	lingers bool   // a goroutine will forget the terminal
	hold    uint64 // what the last viewer had seen
}

// exit is how a shell ended, for the page.
type exit struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

func newTerminal(s *Server, name string) *terminal {
	return &terminal{
		server: s, name: name, instance: randomHex(8), started: time.Now(),
		room: make(chan struct{}, 1), ends: make(chan struct{}),
		viewers: map[*viewer]struct{}{}, inputs: map[string]uint64{},
	}
}

func (t *terminal) info() (control.Terminal, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shell == nil {
		return control.Terminal{}, false
	}
	return control.Terminal{
		Name: t.name, Command: t.shell.path, PID: t.shell.child.PID, Viewers: len(t.viewers),
		Rows: t.size.Rows, Cols: t.size.Cols, Started: t.started,
	}, true
}

// end hangs up the shell and disconnects the viewers; it waits for the shell.
func (t *terminal) end() {
	t.once.Do(func() { close(t.ends) })
	t.mu.Lock()
	sh := t.shell
	for v := range t.viewers {
		v.cancel(errEnded)
	}
	t.mu.Unlock()
	if sh != nil {
		<-sh.gone
	}
}

var (
	errEnded    = errors.New("the terminal was ended")
	errReplaced = errors.New("the page has connected anew")
)

// attach makes v a viewer and its size the terminal's.
func (t *terminal) attach(v *viewer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.viewers) >= maxViewers {
		return fmt.Errorf("terminal %q has %d viewers, the most there can be", t.name, maxViewers)
	}
	if v.client != "" {
		t.replace(v.client)
	}
	t.viewers[v] = struct{}{}
	v.term = t
	t.lead(v)
	signal(t.room)
	return nil
}

// replace takes the page's earlier connection off, which it has given up: what
// still comes there the page will repeat. The lock is held.
func (t *terminal) replace(client string) {
	for old := range t.viewers {
		if old.client == client {
			old.client, old.muted = "", true
			old.cancel(errReplaced)
		}
	}
	if _, known := t.inputs[client]; !known && len(t.inputs) >= maxClients {
		t.inputs = map[string]uint64{} // pages that are long gone, but for a few
	}
}

// detach takes v off; the next most recently active viewer leads.
func (t *terminal) detach(v *viewer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.viewers, v)
	if t.leader == v {
		t.leader = nil
		for other := range t.viewers {
			if t.leader == nil || other.active > t.leader.active {
				t.leader = other
			}
		}
		if t.leader != nil {
			t.leader.wake()
			t.resize(t.leader.size)
		}
	}
	if len(t.viewers) == 0 {
		t.left, t.hold = time.Now(), v.seen()
		t.linger()
	}
	signal(t.room)
}

// linger forgets the terminal in a while, if nothing comes of it any more. The
// lock is held.
func (t *terminal) linger() {
	if t.lingers || t.shell != nil || len(t.viewers) > 0 {
		return
	}
	t.lingers = true
	t.server.tasks.Go(func() {
		for wait := lingerTime; wait > 0; {
			select {
			case <-time.After(wait):
				wait = t.server.forget(t)
			case <-t.ends:
				return
			}
		}
	})
}

// abandoned says that the shell has ended and that nobody came for long; else
// how long to wait before asking again, 0 when somebody is there again.
func (t *terminal) abandoned() (bool, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shell != nil || len(t.viewers) > 0 {
		t.lingers = false
		return false, 0
	}
	wait := lingerTime - time.Since(t.left)
	return wait <= 0, wait
}

// idle says whether ending the terminal loses nothing, and since when nobody watches.
func (t *terminal) idle() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left, len(t.viewers) == 0 && (t.shell == nil || t.shell.idle())
}

// lead makes v the viewer whose size counts and who answers queries. The lock is held.
func (t *terminal) lead(v *viewer) {
	t.active++
	v.active = t.active
	if t.leader != v {
		if t.leader != nil {
			t.leader.wake()
		}
		t.leader = v
		v.wake()
	}
	t.resize(v.size)
}

// resize asks for a size; a storm of them becomes a few. The lock is held.
func (t *terminal) resize(z size) {
	if z == t.want {
		return
	}
	t.want = z
	if t.shell != nil {
		t.shell.resize(z)
	} else {
		t.mark(z)
	}
}

// mark writes a change of size into the output's history. The lock is held.
func (t *terminal) mark(z size) {
	if z == t.size {
		return
	}
	t.size = z
	seq := t.marks[len(t.marks)-1].seq + 1
	if t.marks[len(t.marks)-1].at == t.output.end {
		t.marks = t.marks[:len(t.marks)-1] // nothing was written for that size
	}
	t.marks = append(t.marks, sizeMark{at: t.output.end, seq: seq, size: z})
	t.prune()
	t.wakeAll()
}

// prune drops changes of size that are older than the output. The lock is held.
func (t *terminal) prune() {
	for len(t.marks) > 1 && (t.marks[1].at <= t.output.start || len(t.marks) > maxMarks) {
		t.marks = t.marks[1:]
	}
}

// write appends output. The lock is held.
func (t *terminal) write(p []byte) {
	t.output.write(p, t.tail.feed)
	t.prune()
	t.wakeAll()
}

func (t *terminal) wakeAll() {
	for v := range t.viewers {
		v.wake()
	}
}

// pace waits until there is room for more output: until one viewer has nearly
// all, or none can be waited for any longer. It returns early when stop closes.
func (t *terminal) pace(stop <-chan struct{}) {
	var timer *time.Timer
	var deadline time.Time
	var seen uint64 // sum over the viewers, to see that something moves
	for {
		t.mu.Lock()
		wait, total := t.behind()
		if total != seen {
			seen, deadline = total, time.Time{}
		}
		t.mu.Unlock()
		if wait <= 0 {
			return
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(wait)
		}
		if timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
		} else {
			timer.Reset(max(time.Until(deadline), 0))
		}
		select {
		case <-t.room:
		case <-stop:
			return
		case <-timer.C:
			if time.Now().Before(deadline) {
				continue
			}
			t.giveUp()
		}
	}
}

// behind tells how long to wait for viewers, and a sum that changes when one
// takes something. The lock is held.
func (t *terminal) behind() (time.Duration, uint64) {
	var sum uint64
	waiting := false
	for v := range t.viewers {
		sum += v.sent + 1
		if v.stalled {
			continue
		}
		if t.output.end-v.sent <= paceLag {
			return 0, sum
		}
		waiting = true
	}
	if waiting {
		return stallTime, sum
	}
	unseen := t.output.end - min(t.hold, t.output.end)
	if len(t.viewers) == 0 && t.hold >= t.output.start && unseen > ringLimit-readSize {
		return holdTime - time.Since(t.left), sum
	}
	return 0, sum
}

// giveUp counts every viewer as stalled, until it takes something.
func (t *terminal) giveUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for v := range t.viewers {
		v.stalled = true
	}
}

// snapshot copies the newest span bytes of output and what is needed to show them.
func (t *terminal) snapshot(span uint64) (*replay, *modes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &t.output
	r := &replay{start: o.start, end: o.end, marks: append([]sizeMark(nil), t.marks...)}
	r.data = make([]byte, o.end-o.start)
	o.read(r.data, o.start)
	at := t.tail.clone()
	if extra := o.end - o.start; extra > span {
		at.feed(r.data[:extra-span])
		r.data, r.start = r.data[extra-span:], o.end-span
	}
	return r, at
}

// signal wakes who waits on c, which has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
