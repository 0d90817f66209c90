package ttyd

// ring keeps the newest bytes of a stream, addressed by their offset in it.
// The zero value is empty; its owner locks.
type ring struct {
	buf        []byte // its length is a power of two, at most ringLimit
	start, end uint64 // offsets: buf holds [start, end)
}

const (
	ringFirst = 32 << 10
	ringLimit = 4 << 20 // 10,000 lines of 400 bytes
)

// write appends p, at most ringLimit bytes, and gives what has to go to drop,
// in order, while it is still readable.
func (r *ring) write(p []byte, drop func([]byte)) {
	used := int(r.end - r.start)
	if need := used + len(p); need > len(r.buf) && len(r.buf) < ringLimit {
		r.grow(min(need, ringLimit))
	}
	if over := used + len(p) - len(r.buf); over > 0 {
		for over > 0 {
			piece := r.view(r.start, over)
			drop(piece)
			r.start += uint64(len(piece))
			over -= len(piece)
		}
	}
	for len(p) > 0 {
		at := int(r.end) & (len(r.buf) - 1)
		n := copy(r.buf[at:], p)
		r.end += uint64(n)
		p = p[n:]
	}
}

// grow makes room for need bytes.
func (r *ring) grow(need int) {
	size := max(len(r.buf), ringFirst)
	for size < need {
		size *= 2
	}
	buf := make([]byte, size)
	for at := r.start; at < r.end; {
		piece := r.view(at, int(r.end-at))
		for len(piece) > 0 {
			n := copy(buf[int(at)&(size-1):], piece)
			at += uint64(n)
			piece = piece[n:]
		}
	}
	r.buf = buf
}

// view is at most n bytes from offset at, fewer where the buffer wraps round;
// valid until the next write.
func (r *ring) view(at uint64, n int) []byte {
	from := int(at) & (len(r.buf) - 1)
	return r.buf[from:min(from+n, len(r.buf))]
}

// read copies bytes from offset at, which must be held, into p.
func (r *ring) read(p []byte, at uint64) {
	for len(p) > 0 && at < r.end {
		n := copy(p, r.view(at, int(r.end-at)))
		p, at = p[n:], at+uint64(n)
	}
}
