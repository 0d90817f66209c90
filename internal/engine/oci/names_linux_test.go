package oci

import (
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestNames(t *testing.T) {
	a, b := newNames("/var/lib/a"), newNames("/var/lib/b")
	for _, pair := range [][2]string{
		{a.cgroup(), b.cgroup()}, {a.bridge(), b.bridge()}, {a.table(), b.table()}, {a.veth(1), b.veth(1)}, {a.veth(1), a.veth(2)},
	} {
		if pair[0] == pair[1] {
			t.Errorf("two things have the name %s", pair[0])
		}
	}
	const most = 15 // characters of an interface's name
	for _, name := range []string{a.bridge(), a.veth(1<<(32-subnetBits) - 1)} {
		if len(name) > most {
			t.Errorf("%s is too long a name for an interface", name)
		}
	}
	if !strings.HasPrefix(a.bridge(), devicePrefix) {
		t.Errorf("other engines would not know %s", a.bridge())
	}
}

func TestFreeSubnet(t *testing.T) {
	n := newNames("/var/lib/a")
	first, err := freeSubnet(n, nil)
	if err != nil || first != n.subnet(0) {
		t.Fatalf("without routes the subnet is %v, %v", first, err)
	}
	route := func(text string) netlink.Route {
		_, dst, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Route{Dst: dst}
	}
	taken, err := freeSubnet(n, []netlink.Route{{}, route("0.0.0.0/0"), route("192.0.2.0/24"), route(first.String())})
	if err != nil || taken != n.subnet(1) {
		t.Errorf("with a route into the first subnet it is %v, %v", taken, err)
	}
	if got, err := freeSubnet(n, []netlink.Route{route("10.0.0.0/8")}); err == nil {
		t.Errorf("with all taken the subnet is %v", got)
	}
	if got := nth(n.subnet(0), 1); !n.subnet(0).Contains(got) || got == n.subnet(0).Addr() {
		t.Errorf("the gateway of %v is %v", n.subnet(0), got)
	}
}

func TestCheckID(t *testing.T) {
	for id, good := range map[string]bool{
		"a": true, "0b5e2c1e-5b0e-4d3a-9c0e-2a1f8c4d7e6f": true, "A_b": true,
		"": false, ".probe": false, "-x": false, "a/b": false, "a.b": false, "a b": false, strings.Repeat("x", 65): false,
	} {
		if err := checkID(id); (err == nil) != good {
			t.Errorf("checkID(%q) = %v", id, err)
		}
	}
}
