package ttyd

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// modes follows the output of a terminal and knows what of its state a reader
// would miss who starts in the middle: DEC and ANSI modes, alternate screen,
// attributes, character sets, margins, cursor shape, title and colours.
type modes struct {
	scan    scanner
	private map[int]bool // DEC private modes that are not at their default
	insert  bool
	keypad  bool
	alt     int // 47, 1047 or 1049 on the alternate screen, else 0
	style   style
	charset [4]string // designation of G0…G3: intermediate and final
	shifted bool
	margins string
	cursor  string // DECSCUSR parameter
	title   string
	colours map[string]string // OSC 4;n, 10, 11 and 12
}

// tracked are the DEC private modes that a reader must know; the value is the default.
var tracked = map[int]bool{
	1: false, 5: false, 6: false, 7: true, 9: false, 12: false, 25: true, 45: false, 66: false,
	1000: false, 1002: false, 1003: false, 1004: false, 1005: false, 1006: false, 1015: false, 1016: false,
	2004: false, 2031: false,
}

// maxColours bounds the remembered palette.
const maxColours = 260

// clone is an independent copy.
func (m *modes) clone() *modes {
	c := *m
	c.scan.body = bytes.Clone(m.scan.body)
	c.private, c.colours = maps.Clone(m.private), maps.Clone(m.colours)
	c.style = m.style.clone()
	return &c
}

// feed takes the next bytes of output.
func (m *modes) feed(p []byte) {
	for i := 0; i < len(p); i++ {
		if i += m.scan.skip(p[i:]); i == len(p) {
			return
		}
		if m.scan.step(p[i]) {
			m.apply()
		}
	}
}

// apply takes in a completed sequence.
func (m *modes) apply() {
	body, final := string(m.scan.body), m.scan.final
	switch m.scan.kind {
	case 0:
		m.shifted = final == charSO
	case charESC:
		m.escape(body, final)
	case '[':
		m.csi(body, final)
	case ']':
		m.osc(body)
	}
}

func (m *modes) escape(body string, final byte) {
	switch {
	case body == "" && final == 'c': // RIS
		*m = modes{}
	case body == "" && (final == '=' || final == '>'):
		m.keypad = final == '='
	case len(body) == 1:
		if g := strings.IndexByte("()*+", body[0]); g >= 0 {
			m.charset[g] = body + string(final)
		}
	}
}

func (m *modes) csi(body string, final byte) {
	switch final {
	case 'h', 'l':
		m.set(body, final == 'h')
	case 'm':
		if !strings.HasPrefix(body, ">") && !strings.HasPrefix(body, "?") {
			m.style.apply(body)
		}
	case 'r':
		if !strings.HasPrefix(body, "?") {
			m.margins = body
		}
	case 'q':
		if shape, ok := strings.CutSuffix(body, " "); ok {
			m.cursor = shape
		}
	case 'p':
		if body == "!" { // DECSTR
			m.insert, m.keypad, m.shifted, m.margins = false, false, false, ""
			m.style, m.charset = style{}, [4]string{}
			for _, mode := range []int{1, 6, 7, 25, 66} {
				delete(m.private, mode)
			}
		}
	}
}

func (m *modes) set(body string, on bool) {
	list, private := strings.CutPrefix(body, "?")
	for field := range strings.SplitSeq(list, ";") {
		n, err := strconv.Atoi(field)
		initially, known := tracked[n]
		switch {
		case err != nil:
		case !private:
			if n == 4 {
				m.insert = on
			}
		case n == 47 || n == 1047 || n == 1049:
			m.alt = 0
			if on {
				m.alt = n
			}
		case known && on == initially:
			delete(m.private, n)
		case known:
			if m.private == nil {
				m.private = map[int]bool{}
			}
			m.private[n] = on
		}
	}
}

func (m *modes) osc(body string) {
	command, value, _ := strings.Cut(body, ";")
	switch command {
	case "0", "2":
		m.title = value
	case "4":
		index, colour, ok := strings.Cut(value, ";")
		if ok {
			m.colour("4;"+index, colour)
		}
	case "10", "11", "12":
		m.colour(command, value)
	case "104", "110", "111", "112":
		reset := strings.TrimPrefix(command, "1")
		maps.DeleteFunc(m.colours, func(key, _ string) bool {
			return key == reset || command == "104" && strings.HasPrefix(key, "4;") && (value == "" || key == "4;"+value)
		})
	}
}

func (m *modes) colour(key, value string) {
	if strings.Contains(value, "?") || len(value) > 64 || len(m.colours) >= maxColours {
		return
	}
	if m.colours == nil {
		m.colours = map[string]string{}
	}
	m.colours[key] = value
}

// restore is the output that brings a terminal fresh from a reset to this state.
func (m *modes) restore() []byte {
	var b bytes.Buffer
	if m.title != "" {
		fmt.Fprintf(&b, "\x1b]0;%s\x07", m.title)
	}
	for _, key := range slices.Sorted(maps.Keys(m.colours)) {
		fmt.Fprintf(&b, "\x1b]%s;%s\x07", key, m.colours[key])
	}
	if m.alt != 0 {
		fmt.Fprintf(&b, "\x1b[?%dh", m.alt)
	}
	if m.margins != "" {
		fmt.Fprintf(&b, "\x1b[%sr", m.margins)
	}
	for _, mode := range slices.Sorted(maps.Keys(m.private)) {
		letter := 'l'
		if m.private[mode] {
			letter = 'h'
		}
		fmt.Fprintf(&b, "\x1b[?%d%c", mode, letter)
	}
	for _, designation := range m.charset {
		if designation != "" {
			b.WriteString("\x1b" + designation)
		}
	}
	if m.cursor != "" {
		fmt.Fprintf(&b, "\x1b[%s q", m.cursor)
	}
	for _, flag := range []struct {
		on       bool
		sequence string
	}{{m.insert, "\x1b[4h"}, {m.keypad, "\x1b="}, {m.shifted, "\x0e"}} {
		if flag.on {
			b.WriteString(flag.sequence)
		}
	}
	b.WriteString(m.style.restore())
	return b.Bytes()
}
