package control

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"backendai"
)

// What a session may say at most. Everything beyond is cut off or refused.
const (
	maxReply     = 1 << 20  // bytes of a reply that is not a stream
	maxHeader    = 16 << 10 // bytes of a reply's headers
	maxTitle     = 512      // bytes of an error's title and hint, and of an event's detail
	maxOutput    = 8 << 10  // bytes of a service's last output in an error
	maxApps      = 256
	maxPorts     = 64 // of one app
	maxNames     = 64 // in a list of allowed arguments or variables
	maxText      = 1024
	maxTerminals = 256
)

// nameRE has no count, which would cost every runner its memory.
var nameRE = regexp.MustCompile(`^[\w.-]+$`)

const maxName = 64

func badName(name string) bool { return len(name) > maxName || !nameRE.MatchString(name) }

// checkApps refuses a list of apps that no honest runner sends.
func checkApps(apps []backendai.App) error {
	if len(apps) > maxApps {
		return fmt.Errorf("it lists %d apps", len(apps))
	}
	protocols := []backendai.Protocol{
		backendai.ProtocolTCP, backendai.ProtocolHTTP, backendai.ProtocolPreopen,
		backendai.ProtocolVNC, backendai.ProtocolRDP,
	}
	for _, a := range apps {
		switch {
		case badName(a.Name):
			return fmt.Errorf("an app's name is %q", cut(a.Name, maxTitle))
		case !slices.Contains(protocols, a.Protocol):
			return fmt.Errorf("the protocol of app %q is %q", a.Name, cut(string(a.Protocol), maxTitle))
		case len(a.Ports) == 0 || len(a.Ports) > maxPorts || slices.ContainsFunc(a.Ports, notAPort):
			return fmt.Errorf("the ports of app %q are none", a.Name)
		case badTexts([]string{a.URLTemplate}) || badTexts(a.AllowedArguments) || badTexts(a.AllowedEnvs):
			return fmt.Errorf("the description of app %q is no text", a.Name)
		}
	}
	return nil
}

func notAPort(p int) bool { return p < 1 || p > 65535 }

// badTexts tells whether there are too many, too long or unprintable ones.
func badTexts(texts []string) bool {
	return len(texts) > maxNames || slices.ContainsFunc(texts, func(s string) bool {
		return len(s) > maxText || line(s, maxText) != s
	})
}

// checkEvent makes an event fit to be told to people, or refuses it.
func checkEvent(e *Event) error {
	if !slices.Contains([]string{EventServiceStarted, EventServiceExited, EventBatchFinished}, e.Type) {
		return fmt.Errorf("there is no event %q", cut(e.Type, maxTitle))
	}
	if e.App != "" && badName(e.App) {
		return fmt.Errorf("an app's name is %q", cut(e.App, maxTitle))
	}
	if e.ExitCode < -1 || e.ExitCode > 255 {
		return fmt.Errorf("an exit code is %d", e.ExitCode)
	}
	e.Reason, e.Detail = line(e.Reason, 64), line(e.Detail, maxTitle)
	return nil
}

// checkTerminals makes a list of terminals fit to be shown, or refuses it.
func checkTerminals(terminals []Terminal) error {
	if len(terminals) > maxTerminals {
		return fmt.Errorf("it lists %d terminals", len(terminals))
	}
	for i, t := range terminals {
		if t.Name == "" || len(t.Name) > 128 || line(t.Name, 128) != t.Name {
			return fmt.Errorf("a terminal's name is %q", cut(t.Name, maxTitle))
		}
		terminals[i].Command = line(t.Command, maxTitle)
	}
	return nil
}

// line makes a hostile text a single printable line of at most limit bytes, so
// that it can neither forge lines nor steer the reader's terminal.
func line(s string, limit int) string {
	return strings.TrimSpace(printable(cut(s, limit), func(r rune) rune { return ' ' }))
}

// lines does the same for a text of several lines, of which the newest stay.
func lines(s string, limit int) string {
	if len(s) > limit {
		s = strings.ToValidUTF8(s[len(s)-limit:], "")
	}
	return printable(s, func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return -1
	})
}

func printable(s string, replace func(rune) rune) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return replace(r)
		}
		return r
	}, s)
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
