package ttyd

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ownPage refuses what a page of somebody else has a browser send.
//
// The name that the browser was led by must be one that only its user could
// have chosen: an attacker can let a name of his lead to this machine (DNS
// rebinding) but no IP address and not localhost. And whoever says where a
// request comes from, as browsers do for every WebSocket, must come from here.
func (s *Server) ownPage(r *http.Request) error {
	if !s.knownHost(r.Host) {
		return fmt.Errorf("the host name %.100q is not known here: open the terminal as localhost or by its IP address", r.Host)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); r.URL.Path != "/" && site != "" && site != "same-origin" && site != "none" {
		return fmt.Errorf("a page of another site asked for this (%.20q)", site)
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
			return fmt.Errorf("the page at %.100q may not use this terminal", origin)
		}
	}
	return nil
}

// knownHost judges a Host header.
func (s *Server) knownHost(hostport string) bool {
	host := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if bare, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(bare, "]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(s.opts.Hosts, func(known string) bool { return strings.EqualFold(known, host) })
}

// equal compares secrets in constant time.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
