package ttyd

import "slices"

// size of a terminal in cells.
type size struct {
	Cols int `json:"columns"`
	Rows int `json:"rows"`
}

// Bounds of a size that a client may ask for.
const (
	minCols, maxCols = 2, 1000
	minRows, maxRows = 1, 500
)

func (z size) clamp() size {
	return size{min(max(z.Cols, minCols), maxCols), min(max(z.Rows, minRows), maxRows)}
}

// sizeMark says that the output from offset at on was made for a size.
type sizeMark struct {
	at   uint64
	seq  int // grows with each mark
	size size
}

// replay is a copy of a terminal's output, for a viewer that starts anew.
type replay struct {
	start, end uint64
	data       []byte // [start, end)
	marks      []sizeMark
	restore    []byte // brings a reset terminal to its state at start
	redraw     bool   // the alternate screen's beginning is gone: its program must paint it again
}

// boundaryScan is how far a replay looks for the end of a line to start at.
const boundaryScan = 64 << 10

// align moves the start of r, at which the terminal was in state at, to the
// first place where no sequence and no character is torn: best the start of a line.
func (r *replay) align(at *modes) {
	cut, state := r.boundary(at)
	r.data, r.start = r.data[cut:], r.start+uint64(cut)
	r.restore = state.restore()
	for len(r.marks) > 1 && r.marks[1].at <= r.start {
		r.marks = r.marks[1:]
	}
	last := state.clone()
	last.feed(r.data)
	r.redraw = last.alt != 0
}

func (r *replay) boundary(at *modes) (int, *modes) {
	m := at.clone()
	second := -1 // the first place that is at least not torn
	var secondState *modes
	for i := range min(len(r.data), boundaryScan) {
		c := r.data[i]
		if m.scan.state == ground && second < 0 && (c < 0x80 || c >= 0xc0) {
			second, secondState = i, m.clone()
		}
		m.feed(r.data[i : i+1])
		if m.scan.state == ground && c == '\n' {
			return i + 1, m
		}
	}
	if second < 0 {
		return min(len(r.data), boundaryScan), m
	}
	return second, secondState
}

// due looks at the marks behind the one numbered seq, for a reader at offset
// at: the last that counts there, nil if none, and where the next one begins
// if that is before end.
func due(marks []sizeMark, seq int, at, end uint64) (*sizeMark, uint64) {
	i, _ := slices.BinarySearchFunc(marks, seq+1, func(m sizeMark, seq int) int { return m.seq - seq })
	var last *sizeMark
	for ; i < len(marks); i++ {
		if marks[i].at > at {
			return last, min(end, marks[i].at)
		}
		last = &marks[i]
	}
	return last, end
}
