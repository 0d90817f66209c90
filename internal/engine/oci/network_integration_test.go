//go:build integration && linux

package oci

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	hostAddress    = "198.51.100.1"
	outsideAddress = "198.51.100.2"
	cloudAddress   = "169.254.169.254"
)

// world is a machine beyond the tests' own, which serves what sessions may and
// may not reach.
type world struct{ ns *os.File }

// openWorld connects the tests' network with a machine outside.
func openWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	var err error
	if w.ns, err = newNamespace(func(ns *os.File) error { return prepareNamespace() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "up0", 1400
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "out0", PeerNamespace: netlink.NsFd(w.ns.Fd())}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(netlink.LinkAdd(link))
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	up := func(name string, addresses ...string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a).To4(), Mask: net.CIDRMask(24, 32)}}); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	}
	check(up("up0", hostAddress))
	check(inNamespace(w.ns, func() error { return up("out0", outsideAddress, cloudAddress) }))
	check(netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(outsideAddress)}))
	for _, address := range []string{outsideAddress + ":80", outsideAddress + ":53", cloudAddress + ":80"} {
		check(inNamespace(w.ns, func() error { return greet(t, address, "outside") }))
	}
	return w
}

// greet serves a word on a TCP address of the thread's network.
func greet(t *testing.T, address, word string) error {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", address)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = io.WriteString(c, word+" "+c.RemoteAddr().String()+"\n")
			_ = c.Close()
		}
	}()
	return nil
}

// reach tells what a session reads from an address.
func reach(t *testing.T, e *Engine, id, address string, port int) string {
	t.Helper()
	out, _ := shell(t, e, id, fmt.Sprintf("nc -w 1 %s %d </dev/null 2>&1", address, port))
	return out
}

func natEngine(t *testing.T, dir string) *Engine {
	t.Helper()
	o := options(dir)
	o.Network = NetworkNAT
	e := openEngine(t, o)
	if e.bridge == nil {
		t.Fatal("there is no network")
	}
	return e
}

func addressOf(t *testing.T, e *Engine, id string) string {
	t.Helper()
	return e.bridge.address(e.byID[id].snapshot().Net).String()
}

// useResolver lets the engine believe that the machine has a name server.
func useResolver(t *testing.T, text string) {
	t.Helper()
	old := resolverFiles
	resolverFiles = []string{filepath.Join(t.TempDir(), "resolv.conf")}
	t.Cleanup(func() { resolverFiles = old })
	if err := os.WriteFile(resolverFiles[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWayToTheOutside(t *testing.T) {
	openWorld(t)
	useResolver(t, "nameserver 127.0.0.53\nnameserver "+hostAddress+"\nsearch example.org\n")
	e := natEngine(t, t.TempDir())
	a, b := spec(), spec()
	a.Egress, b.Egress = true, true
	create(t, e, a)
	create(t, e, b)

	if got := reach(t, e, a.ID, outsideAddress, 80); !strings.HasPrefix(got, "outside "+hostAddress) {
		t.Errorf("the way to the outside: %q", got)
	}
	if got, want := must(t, e, a.ID, "cat /etc/resolv.conf"), "nameserver "+hostAddress+"\nsearch example.org"; got != want {
		t.Errorf("resolv.conf is %q, want %q", got, want)
	}
	if got := must(t, e, a.ID, "cat /sys/class/net/eth0/mtu"); got != "1400" {
		t.Errorf("the size of packets is %s", got)
	}

	gateway := nth(e.bridge.subnet, 1).String()
	for _, address := range []string{hostAddress + ":80", gateway + ":80", "0.0.0.0:81", hostAddress + ":53", gateway + ":53"} {
		if err := greet(t, address, "served"); err != nil {
			t.Fatal(err)
		}
	}
	if got := reach(t, e, a.ID, hostAddress, 53); !strings.HasPrefix(got, "served ") {
		t.Errorf("the host's name server: %q", got)
	}
	for _, closed := range []struct {
		address string
		port    int
	}{
		{hostAddress, 80}, {hostAddress, 81}, {gateway, 80}, {gateway, 81}, {gateway, 53}, {"127.0.0.1", 81}, {cloudAddress, 80},
	} {
		if got := reach(t, e, a.ID, closed.address, closed.port); strings.Contains(got, "served") || strings.Contains(got, "outside") {
			t.Errorf("a session reaches %s port %d: %q", closed.address, closed.port, got)
		}
	}
	// b listens on all its addresses: neither a nor the host reaches it.
	must(t, e, b.ID, "(while :; do echo neighbour | nc -l -p 8080; done) >/dev/null 2>&1 &")
	for _, address := range []string{addressOf(t, e, b.ID), "10.127.255.255", "255.255.255.255"} {
		if got := reach(t, e, a.ID, address, 8080); strings.Contains(got, "neighbour") {
			t.Errorf("a session reaches its neighbour at %s", address)
		}
	}
	c, err := (&net.Dialer{Timeout: patience / 30}).DialContext(t.Context(), "tcp", addressOf(t, e, b.ID)+":8080")
	if err == nil {
		_ = c.Close()
		t.Error("the host reaches a port of a session by its address")
	}
	// … but the engine does, by the session's own loopback.
	inside, err := e.DialPort(t.Context(), b.ID, 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if got, err := io.ReadAll(inside); err != nil || string(got) != "neighbour\n" {
		t.Errorf("the app in the session says %q, %v", got, err)
	}
}

func TestNoIPv6(t *testing.T) {
	openWorld(t)
	e := natEngine(t, t.TempDir())
	s := spec()
	s.Egress = true
	create(t, e, s)
	for line := range strings.Lines(must(t, e, s.ID, "cat /proc/net/if_inet6 2>/dev/null || true")) {
		if fields := strings.Fields(line); fields[len(fields)-1] != "lo" {
			t.Errorf("a session has IPv6: %s", line)
		}
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + e.names.bridge() + "/disable_ipv6"); err == nil && strings.TrimSpace(string(b)) != "1" {
		t.Error("the bridge has IPv6")
	}
}

// A session without egress has nothing but its loopback, whatever the engine's
// network is.
func TestNoWayOut(t *testing.T) {
	openWorld(t)
	e := natEngine(t, t.TempDir())
	s := create(t, e, spec())
	if got := must(t, e, s.ID, "ls /sys/class/net"); got != "lo" {
		t.Errorf("the session has %s", got)
	}
	if got := reach(t, e, s.ID, outsideAddress, 80); strings.Contains(got, "outside") {
		t.Error("the session reaches the outside")
	}
}

// Another program's firewall drops what it does not know, as Docker's does.
func TestForeignFirewall(t *testing.T) {
	openWorld(t)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	policy := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Policy: &policy,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	})
	e := natEngine(t, t.TempDir())
	s := spec()
	s.Egress = true
	create(t, e, s)
	if got := reach(t, e, s.ID, outsideAddress, 80); !strings.HasPrefix(got, "outside ") {
		t.Errorf("behind another firewall: %q", got)
	}
	shut(t, e)
	rules, err := c.GetRules(table, chain)
	if err != nil || len(rules) != 0 {
		t.Errorf("the engine leaves %d rules in another firewall, %v", len(rules), err)
	}
}

// Two servers live side by side: neither reaches nor sweeps what is the other's.
func TestTwoEngines(t *testing.T) {
	openWorld(t)
	one, two := natEngine(t, t.TempDir()), natEngine(t, t.TempDir())
	if one.bridge.subnet.Overlaps(two.bridge.subnet) {
		t.Errorf("both have the subnet %v", one.bridge.subnet)
	}
	a, b := spec(), spec()
	a.Egress, b.Egress = true, true
	create(t, one, a)
	create(t, two, b)
	must(t, two, b.ID, "(while :; do echo neighbour | nc -l -p 8080; done) >/dev/null 2>&1 &")
	if got := reach(t, one, a.ID, addressOf(t, two, b.ID), 8080); strings.Contains(got, "neighbour") {
		t.Error("a session reaches one of another server")
	}
	third := natEngine(t, t.TempDir()) // its sweep is over when it is open
	shut(t, third)
	shut(t, one)
	if got := reach(t, two, b.ID, outsideAddress, 80); !strings.HasPrefix(got, "outside ") {
		t.Errorf("after others have closed: %q", got)
	}
	if err := two.byID[b.ID].signal(unix.Signal(0)); err != nil {
		t.Error(err)
	}
}

// A new engine keeps the networks of sessions that go on.
func TestNetworkAfterRestart(t *testing.T) {
	openWorld(t)
	dir := t.TempDir()
	o := options(dir)
	o.Network = NetworkNAT
	first, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := spec()
	s.Egress = true
	create(t, first, s)
	address := addressOf(t, first, s.ID)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := natEngine(t, dir)
	if got := addressOf(t, second, s.ID); got != address {
		t.Errorf("the session has the address %s, had %s", got, address)
	}
	if got := reach(t, second, s.ID, outsideAddress, 80); !strings.HasPrefix(got, "outside ") {
		t.Errorf("after a restart of the engine: %q", got)
	}
	used := map[netip.Addr]bool{netip.MustParseAddr(address): true}
	for range poolSize + 2 {
		n, err := second.bridge.take()
		if err != nil {
			t.Fatal(err)
		}
		defer second.bridge.discard(n)
		if a := second.bridge.address(n.index); used[a] {
			t.Errorf("the address %v is given twice", a)
		} else {
			used[a] = true
		}
	}
}
