package ttyd

import "bytes"

// scanner finds the control sequences of a terminal's output (ECMA-48 and
// xterm's), byte by byte, as the page's emulator does. The zero value is ready.
type scanner struct {
	state scanState
	kind  byte   // of the sequence: '[' CSI, ']' OSC, 'P' 'X' '^' '_' strings, 0x1b ESC, 0 a shift
	body  []byte // parameters and intermediates, or the string; cut at scanLimit
	final byte
	whole bool // the last step completed a sequence
}

type scanState uint8

const (
	ground scanState = iota
	inEscape
	inCSI
	inString
)

// scanLimit bounds what is kept of one sequence.
const scanLimit = 4096

const (
	charESC = 0x1b
	charBEL = 0x07
	charCAN = 0x18
	charSUB = 0x1a
	charSO  = 0x0e
	charSI  = 0x0f
)

// step takes one byte and says whether it completed a sequence, which is then
// in kind, body and final until the next step.
func (s *scanner) step(c byte) bool {
	if s.whole {
		s.whole, s.body = false, s.body[:0]
	}
	switch s.state {
	case ground:
		switch c {
		case charESC:
			s.enter(inEscape, charESC)
		case charSO, charSI:
			s.kind, s.final, s.whole = 0, c, true
		}
	case inString:
		switch {
		case c == charESC: // the start of ST, or of whatever follows an unfinished string
			s.state, s.whole = inEscape, true
		case c == charBEL && s.kind == ']':
			s.state, s.whole = ground, true
		case c == charCAN || c == charSUB:
			s.state = ground
		default:
			s.keep(c)
		}
	default:
		s.control(c)
	}
	return s.whole
}

// control takes a byte after ESC or inside CSI.
func (s *scanner) control(c byte) {
	switch {
	case c == charESC:
		s.enter(inEscape, charESC)
	case c == charCAN || c == charSUB:
		s.state = ground
	case c < 0x20 || c >= 0x7f: // executed or ignored inside a sequence
	case s.state == inCSI && c >= 0x40, s.state == inEscape && c >= 0x30 && !opens(c, s.body):
		if s.state == inEscape {
			s.kind = charESC
		}
		s.final, s.state, s.whole = c, ground, true
	case s.state == inEscape && c == '[':
		s.enter(inCSI, c)
	case s.state == inEscape && c >= 0x30:
		s.enter(inString, c)
	default:
		s.keep(c)
	}
}

// opens says that c after ESC starts a longer sequence.
func opens(c byte, intermediates []byte) bool {
	return len(intermediates) == 0 && bytes.IndexByte([]byte("[]PX^_"), c) >= 0
}

func (s *scanner) enter(state scanState, kind byte) {
	s.state, s.kind, s.body = state, kind, s.body[:0]
}

func (s *scanner) keep(c byte) {
	if len(s.body) < scanLimit {
		s.body = append(s.body, c)
	}
}

// skip is the length of the text at the start of p that step would ignore.
func (s *scanner) skip(p []byte) int {
	if s.state != ground {
		return 0
	}
	for i, c := range p {
		if c == charESC || c == charSO || c == charSI {
			return i
		}
	}
	return len(p)
}

// query says that the completed sequence asks the terminal for an answer, or
// touches the clipboard: what must not happen again when output is replayed.
func (s *scanner) query() bool {
	switch s.kind {
	case charESC:
		return s.final == 'Z' && len(s.body) == 0 // DECID
	case '[':
		switch s.final {
		case 'c', 'n', 'x': // DA1–3, DSR, DECREQTPARM
			return true
		case 'p': // DECRQM
			return bytes.HasSuffix(s.body, []byte("$"))
		case 'q': // XTVERSION
			return bytes.HasPrefix(s.body, []byte(">"))
		case 'u': // keyboard protocol
			return bytes.HasPrefix(s.body, []byte("?"))
		case 't': // window reports
			return len(s.body) == 2 && (s.body[0] == '1' || s.body[0] == '2') && s.body[1] != '2' && s.body[1] != '3'
		}
	case ']':
		return bytes.HasPrefix(s.body, []byte("52;")) || bytes.HasSuffix(s.body, []byte(";?"))
	case 'P':
		return bytes.HasPrefix(s.body, []byte("$q")) || bytes.HasPrefix(s.body, []byte("+q"))
	}
	return false
}

// withoutQueries is output, which starts outside of any sequence, less what a
// client would answer.
func withoutQueries(output []byte) []byte {
	var s scanner
	kept := make([]byte, 0, len(output))
	from := 0 // where the current sequence starts
	for i := 0; i < len(output); i++ {
		if s.state == ground {
			n := s.skip(output[i:])
			kept = append(kept, output[i:i+n]...)
			if i += n; i == len(output) {
				return kept
			}
			from = i
		}
		done := s.step(output[i])
		end := i + 1
		if done && s.state == inEscape {
			end = i // the ESC that ends a string starts the next sequence
		}
		if done && !s.query() || !done && s.state == ground {
			kept = append(kept, output[from:end]...)
		}
		if done {
			from = end
		}
	}
	return append(kept, output[min(from, len(output)):]...)
}
