// Package term is how commands speak to people: messages, tables, progress and
// questions. Data goes to standard output, everything else to standard error.
// It knows nothing of sessions.
package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	xterm "golang.org/x/term"
)

// The glyphs that messages begin with.
const (
	glyphInfo = "∙"
	glyphWait = "⋯"
	glyphDone = "✔"
	glyphFail = "✘"
)

// SGR parameters of the glyphs on a terminal that shows colours.
const (
	cyan   = "36"
	green  = "32"
	red    = "31"
	yellow = "33"
)

const eraseLine = "\r\x1b[2K"

// Printer writes what a command has to say. It is safe for concurrent use.
type Printer struct {
	out, err io.Writer
	tty      bool // err is a terminal
	colour   bool
	quiet    bool // set before anything is written

	mu      sync.Mutex
	waiting bool // the cursor stands behind a message that the next one overwrites
}

// New makes a Printer. Colours and overwriting are for terminals only; NO_COLOR
// in the environment turns colours off (no-color.org).
func New(out, err io.Writer, getenv func(string) string) *Printer {
	tty := IsTerminal(err) && getenv("TERM") != "dumb"
	return &Printer{out: out, err: err, tty: tty, colour: tty && getenv("NO_COLOR") == ""}
}

// Quiet leaves out what tells only that something is going on: programs that
// read the result do not need it. It is called before anything is written.
func (p *Printer) Quiet(quiet bool) { p.quiet = quiet }

// IsTerminal tells whether a stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && xterm.IsTerminal(int(f.Fd()))
}

// Out is where data goes as it is.
func (p *Printer) Out() io.Writer { return p.out }

// Info tells something that is good to know.
func (p *Printer) Info(format string, args ...any) { p.message(glyphInfo, cyan, false, format, args) }

// Wait tells what is going on; on a terminal the next message overwrites it.
func (p *Printer) Wait(format string, args ...any) {
	if !p.quiet {
		p.message(glyphWait, yellow, true, format, args)
	}
}

// Done tells that something has succeeded.
func (p *Printer) Done(format string, args ...any) { p.message(glyphDone, green, false, format, args) }

// Warn tells of a danger or of something that was passed over.
func (p *Printer) Warn(format string, args ...any) {
	p.message(glyphInfo, yellow, false, format, args)
}

// Fail tells that something has failed.
func (p *Printer) Fail(format string, args ...any) { p.message(glyphFail, red, false, format, args) }

// Line shows one line that another program printed.
func (p *Printer) Line(text string) {
	if p.quiet {
		return
	}
	p.settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.err, oneLine(text)+"\n")
}

// message writes one message; its second and later lines are indented.
func (p *Printer) message(glyph, colour string, wait bool, format string, args []any) {
	text := strings.ReplaceAll(Clean(fmt.Sprintf(format, args...)), "\n", "\n  ")
	if p.colour {
		glyph = "\x1b[" + colour + "m" + glyph + "\x1b[0m"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var line strings.Builder
	if p.waiting {
		line.WriteString(eraseLine)
	}
	line.WriteString(glyph + " " + text)
	p.waiting = wait && p.tty && !strings.Contains(text, "\n")
	if !p.waiting {
		line.WriteByte('\n')
	}
	// A terminal that is gone cannot be told so.
	_, _ = io.WriteString(p.err, line.String())
}

// settle ends a message that would be overwritten, so that other output can follow.
func (p *Printer) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		_, _ = io.WriteString(p.err, eraseLine)
		p.waiting = false
	}
}

// Clean takes out of a text what would steer the terminal: control characters
// other than line ends and tabs. Texts come from servers and from sessions.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, text)
}

// JSON writes a value to standard output, indented by two.
func (p *Printer) JSON(v any) error {
	p.settle()
	e := json.NewEncoder(p.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// Text writes to standard output as it is.
func (p *Printer) Text(text string) error {
	p.settle()
	if _, err := io.WriteString(p.out, text); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
