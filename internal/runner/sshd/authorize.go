//go:build linux

package sshd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// grantKey is where authenticate leaves the grant in ssh.Permissions.
type grantKey struct{}

// grant is what a key may do once it has logged in.
type grant struct {
	fingerprint string
	forced      bool   // command replaces whatever the client asks for
	command     string // may be empty, which then runs nothing
	noPTY       bool
	noAgent     bool
	noX11       bool
	noForward   bool
	noTouch     bool     // security keys need no touch
	open        []string // permitopen: host:port with "*" for any; nil is any
	listen      []string // permitlisten, as open
	from        string   // pattern list of addresses; empty is any
	expires     time.Time
}

var errKeyRefused = errors.New("key is not authorized")

// authenticate is asked for each key that a client offers.
func (s *Server) authenticate(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	fingerprint := ssh.FingerprintSHA256(key)
	if conn.User() != s.opts.User {
		s.log.Warn("ssh login refused: wrong user name", "user", clip(conn.User()), "hint", "log in as "+s.opts.User)
		return nil, errKeyRefused
	}
	lines, err := s.opts.AuthorizedKeys()
	if err != nil {
		s.log.Warn("read authorized keys", "err", err)
		return nil, errKeyRefused
	}
	for len(lines) > 0 {
		candidate, _, options, rest, err := ssh.ParseAuthorizedKey(lines)
		if err != nil {
			break // no key in what is left
		}
		lines = rest
		if string(candidate.Marshal()) != string(key.Marshal()) {
			continue
		}
		g, err := parseGrant(options)
		if err == nil {
			err = g.admits(conn.RemoteAddr(), time.Now())
		}
		if err != nil { // another line may have the same key with other options
			s.log.Warn("ssh key refused by its line in authorized_keys", "key", fingerprint, "err", err)
			continue
		}
		g.fingerprint = fingerprint
		p := &ssh.Permissions{ExtraData: map[any]any{grantKey{}: g}}
		if g.noTouch {
			p.Extensions = map[string]string{"no-touch-required": ""}
		}
		return p, nil
	}
	s.log.Info("ssh key is not authorized", "key", fingerprint)
	return nil, errKeyRefused
}

// clip keeps what a client says about itself short in the log.
func clip(text string) string {
	if len(text) > 64 {
		text = text[:64]
	}
	return strings.ToValidUTF8(text, "?")
}

// parseGrant reads the options of a line (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
// An option that is unknown or cannot be enforced refuses the whole line.
func parseGrant(options []string) (*grant, error) {
	g := &grant{}
	for _, option := range options {
		name, value, hasValue := strings.Cut(option, "=")
		name = strings.ToLower(name)
		if hasValue {
			var ok bool
			if value, ok = unquote(value); !ok {
				return nil, fmt.Errorf("option %q has no quoted value", clip(name))
			}
		}
		if known := g.flag(name); known && !hasValue {
			continue
		}
		if !hasValue {
			return nil, fmt.Errorf("option %q is not supported", clip(name))
		}
		if err := g.set(name, value); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// flag applies an option without value and says whether there is such a one.
func (g *grant) flag(name string) bool {
	switch name {
	case "restrict":
		g.noPTY, g.noAgent, g.noX11, g.noForward = true, true, true, true
	case "pty":
		g.noPTY = false
	case "no-pty":
		g.noPTY = true
	case "agent-forwarding":
		g.noAgent = false
	case "no-agent-forwarding":
		g.noAgent = true
	case "x11-forwarding":
		g.noX11 = false
	case "no-x11-forwarding":
		g.noX11 = true
	case "port-forwarding":
		g.noForward = false
	case "no-port-forwarding":
		g.noForward = true
	case "no-touch-required":
		g.noTouch = true
	case "user-rc", "no-user-rc": // there is no rc file to run
	default:
		return false
	}
	return true
}

// set applies an option with a value.
func (g *grant) set(name, value string) error {
	switch name {
	case "command":
		if g.forced {
			return errors.New("two commands")
		}
		g.forced, g.command = true, value
	case "from":
		if g.from != "" {
			return errors.New("two from lists")
		}
		if g.from = value; value == "" {
			return errors.New("an empty from list")
		}
	case "expiry-time":
		at, err := parseExpiry(value)
		if err != nil {
			return err
		}
		if g.expires.IsZero() || at.Before(g.expires) {
			g.expires = at
		}
	case "permitopen":
		if _, _, err := net.SplitHostPort(value); err != nil {
			return fmt.Errorf("permitopen %q is not host:port", clip(value))
		}
		g.open = append(g.open, value)
	case "permitlisten":
		if !strings.Contains(value, ":") {
			value = "*:" + value
		}
		if _, _, err := net.SplitHostPort(value); err != nil {
			return fmt.Errorf("permitlisten %q is not [host:]port", clip(value))
		}
		g.listen = append(g.listen, value)
	case "environment", "tunnel": // neither is offered, to any key
	default:
		return fmt.Errorf("option %q is not supported", clip(name))
	}
	return nil
}

// unquote reads an option's value: in double quotes, with \" for a quote.
func unquote(value string) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	return strings.ReplaceAll(value[1:len(value)-1], `\"`, `"`), true
}

// parseExpiry reads YYYYMMDD[HHMM[SS]][Z] in local time, or UTC with the Z.
func parseExpiry(value string) (time.Time, error) {
	digits, utc := strings.CutSuffix(value, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	const full = "20060102150405"
	for _, length := range []int{8, 12, 14} {
		if len(digits) == length {
			return time.ParseInLocation(full[:length], digits, zone)
		}
	}
	return time.Time{}, fmt.Errorf("expiry-time %q is not a time", clip(value))
}

// admits says why a key may not log in from there now, or nil.
func (g *grant) admits(remote net.Addr, now time.Time) error {
	if !g.expires.IsZero() && !now.Before(g.expires) {
		return errors.New("the key has expired")
	}
	if g.from == "" {
		return nil
	}
	address, err := netip.ParseAddrPort(remote.String())
	if err != nil || !matchAddress(g.from, address.Addr().Unmap()) {
		return fmt.Errorf("the from option does not list %s, where every connection through the server comes from", remote)
	}
	return nil
}

// matchAddress follows ssh_config(5), PATTERNS: one match is needed, and none
// of a pattern that starts with "!".
func matchAddress(list string, address netip.Addr) bool {
	matched := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(strings.TrimSpace(pattern), "!")
		hit := false
		if prefix, err := netip.ParsePrefix(pattern); err == nil {
			hit = prefix.Contains(address)
		} else if !strings.ContainsAny(pattern, `[\`) { // of path.Match, patterns have only * and ?
			hit, _ = path.Match(pattern, address.String())
		}
		if hit && negated {
			return false
		}
		matched = matched || hit
	}
	return matched
}

// mayOpen says whether the key may connect to host and port.
func (g *grant) mayOpen(host string, port uint32) bool {
	return !g.noForward && permits(g.open, host, port)
}

// mayListen says whether the key may listen there.
func (g *grant) mayListen(host string, port uint32) bool {
	return !g.noForward && permits(g.listen, host, port)
}

// mayUseSockets says whether the key may forward unix sockets, which no
// permitopen or permitlisten can name.
func (g *grant) mayUseSockets() bool {
	return !g.noForward && g.open == nil && g.listen == nil
}

func permits(list []string, host string, port uint32) bool {
	if list == nil {
		return true
	}
	for _, entry := range list {
		h, p, err := net.SplitHostPort(entry)
		if err != nil {
			continue
		}
		if (h == "*" || strings.EqualFold(h, host)) && (p == "*" || p == strconv.FormatUint(uint64(port), 10)) {
			return true
		}
	}
	return false
}
