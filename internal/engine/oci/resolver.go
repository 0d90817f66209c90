package oci

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// The files that name the machine's DNS servers, in order of preference. All but
// the first have the real ones when the first names a resolver on this machine's
// loopback, which no session can reach.
var resolverFiles = []string{
	"/etc/resolv.conf",
	"/run/systemd/resolve/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf",
	"/run/NetworkManager/resolv.conf",
	"/run/dnsmasq/resolv.conf",
	"/run/resolvconf/resolv.conf",
}

// resolver is the part of a resolv.conf that sessions get.
type resolver struct {
	servers []netip.Addr // IPv4 and not this machine's loopback
	options []string     // search and options lines
}

// hostResolver reads the first of the files that names a server which sessions
// can reach. No such server gives an empty resolver.
func hostResolver(files []string) resolver {
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if r := parseResolver(string(b)); len(r.servers) > 0 {
			return r
		}
	}
	return resolver{}
}

func parseResolver(text string) resolver {
	var r resolver
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			a, err := netip.ParseAddr(fields[1])
			// sessions have no IPv6 but on their loopback
			if err == nil && a.Unmap().Is4() && !a.Unmap().IsLoopback() && !a.IsUnspecified() && !slices.Contains(r.servers, a.Unmap()) {
				r.servers = append(r.servers, a.Unmap())
			}
		case "search", "domain", "options":
			r.options = append(r.options, strings.Join(fields, " "))
		}
	}
	return r
}

// file is the resolv.conf of a session.
func (r resolver) file() string {
	if len(r.servers) == 0 {
		return "# no DNS: this session has no way to a name server of its host\n"
	}
	var b strings.Builder
	for _, a := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	for _, line := range r.options {
		b.WriteString(line + "\n")
	}
	return b.String()
}
