package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"backendai"
)

const (
	// poolSize is how many networks with a way to the outside wait for sessions.
	poolSize = 8
	// poolRetry is how long after an error the next one is tried.
	poolRetry = time.Second
)

// insideDevice is the session's end of its network.
const insideDevice = "eth0"

// network is the network of one session: a namespace, kept open, and the number
// of its way to the outside (0 is none), from which its names and its address
// follow.
type network struct {
	ns    *os.File
	index int
}

// path names the namespace for a program that runs while this process lives.
func (n *network) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd())
}

// bridge makes the networks of sessions and keeps some ready: it is the host's
// side of them. It outlives the engine, as sessions do.
type bridge struct {
	names  names
	log    *slog.Logger
	subnet netip.Prefix
	link   netlink.Link
	mtu    int
	handle *netlink.Handle // in the host's network namespace

	mu   sync.Mutex
	used map[int]bool // numbers of networks
	last int

	ready chan *network
	stop  context.CancelFunc
	done  chan struct{}
}

// openBridge makes the host's side, or takes over the one that is there.
func openBridge(n names, r resolver, log *slog.Logger) (_ *bridge, err error) {
	b := &bridge{names: n, log: log, used: map[int]bool{}, ready: make(chan *network, poolSize)}
	if b.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer func() {
		if err != nil {
			b.handle.Close()
		}
	}()
	if err := b.find(); err != nil {
		return nil, err
	}
	if b.link == nil {
		if err := b.make(); err != nil {
			return nil, err
		}
	}
	f := filter{names: n, subnet: b.subnet, servers: r.servers}
	if err := f.install(); err != nil {
		return nil, err
	}
	// the host must forward; it is a router from here on, as with any NAT
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, fmt.Errorf("switch on forwarding: %w", err)
	}
	return b, nil
}

// find takes over the bridge of an earlier run.
func (b *bridge) find() error {
	link, err := b.handle.LinkByName(b.names.bridge())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	addresses, err := undisturbed(func() ([]netlink.Addr, error) { return b.handle.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("read address of bridge: %w", err)
	}
	if len(addresses) != 1 {
		// its making was cut short, so no session has used it
		return b.handle.LinkDel(link)
	}
	a, ok := netip.AddrFromSlice(addresses[0].IP.To4())
	if !ok {
		return fmt.Errorf("read address of bridge: %v", addresses[0])
	}
	b.link, b.mtu = link, link.Attrs().MTU
	b.subnet = netip.PrefixFrom(a, subnetBits).Masked()
	return nil
}

func (b *bridge) make() error {
	routes, err := undisturbed(func() ([]netlink.Route, error) {
		return b.handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	if b.subnet, err = freeSubnet(b.names, routes); err != nil {
		return err
	}
	b.mtu = b.outsideMTU(routes)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = b.names.bridge(), b.mtu
	// an address of its own, or the bridge would change it with its ports
	gateway := nth(b.subnet, 1)
	a := gateway.As4()
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0xba, a[0], a[1], a[2], a[3]}
	if err := b.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	if b.link, err = b.handle.LinkByName(attrs.Name); err != nil {
		return fmt.Errorf("find new bridge: %w", err)
	}
	if err := disableIPv6(attrs.Name); err != nil {
		return err
	}
	if err := b.handle.AddrAdd(b.link, cidr(gateway)); err != nil {
		return fmt.Errorf("give bridge its address: %w", err)
	}
	if err := b.handle.LinkSetUp(b.link); err != nil {
		return fmt.Errorf("bring bridge up: %w", err)
	}
	return nil
}

// freeSubnet gives the first choice of subnet that no route of the host leads into.
func freeSubnet(n names, routes []netlink.Route) (netip.Prefix, error) {
	for attempt := range subnets {
		subnet, taken := n.subnet(attempt), false
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			a, ok := netip.AddrFromSlice(r.Dst.IP.To4())
			bits, _ := r.Dst.Mask.Size()
			if ok && bits > 0 && netip.PrefixFrom(a, bits).Overlaps(subnet) {
				taken = true
				break
			}
		}
		if !taken {
			return subnet, nil
		}
	}
	return netip.Prefix{}, errors.New("find a subnet for sessions: the host has routes into all of 10.64.0.0/10")
}

// outsideMTU is the packet size of the default route's device, which sessions
// must not exceed.
func (b *bridge) outsideMTU(routes []netlink.Route) int {
	for _, r := range routes {
		bits := 0
		if r.Dst != nil {
			bits, _ = r.Dst.Mask.Size()
		}
		if bits != 0 || r.LinkIndex == 0 {
			continue
		}
		if link, err := b.handle.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return link.Attrs().MTU
		}
	}
	return 1500
}

func disableIPv6(device string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 is fine
		return fmt.Errorf("switch off IPv6 on %s: %w", device, err)
	}
	return nil
}

func cidr(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(subnetBits, 32)}}
}

// run keeps networks ready until close.
func (b *bridge) run() {
	ctx, stop := context.WithCancel(context.Background())
	b.stop, b.done = stop, make(chan struct{})
	go func() {
		defer close(b.done)
		for ctx.Err() == nil {
			n, err := b.connect()
			if err != nil {
				b.log.Error("prepare network", "err", err)
				select { // sessions make their own meanwhile and tell their users what is wrong
				case <-time.After(poolRetry):
				case <-ctx.Done():
				}
				continue
			}
			select {
			case b.ready <- n:
			case <-ctx.Done():
				b.discard(n)
			}
		}
	}()
}

// close discards the waiting networks. The host's side stays for sessions that
// run; with none left it goes as well.
func (b *bridge) close(keep bool) error {
	defer b.handle.Close()
	if b.stop != nil {
		b.stop()
		<-b.done
	}
	close(b.ready)
	for n := range b.ready {
		b.discard(n)
	}
	if keep {
		return nil
	}
	err := filter{names: b.names, subnet: b.subnet}.remove()
	return errors.Join(err, b.handle.LinkDel(b.link))
}

// take gives a network, a waiting one when there is one.
func (b *bridge) take() (*network, error) {
	select {
	case n := <-b.ready:
		return n, nil
	default:
		return b.connect()
	}
}

// address is the address of the network with the given number.
func (b *bridge) address(index int) netip.Addr { return nth(b.subnet, index+1) }

// reserve marks a number as used, by a session that was adopted.
func (b *bridge) reserve(index int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[index] = true
}

// number takes a free number. The next is tried first: the kernel may still be
// busy with removing the device of the last one that was freed.
func (b *bridge) number() (int, error) {
	const most = 1<<(32-subnetBits) - 3 // without network, gateway and broadcast
	b.mu.Lock()
	defer b.mu.Unlock()
	for range most {
		b.last = b.last%most + 1
		if !b.used[b.last] {
			b.used[b.last] = true
			return b.last, nil
		}
	}
	return 0, backendai.Errorf(backendai.CodeUnavailable, "all %d session networks of this server are in use", most)
}

// connect makes a network with a way to the outside.
func (b *bridge) connect() (*network, error) {
	for {
		index, err := b.number()
		if err != nil {
			return nil, err
		}
		n := &network{index: index}
		n.ns, err = newNamespace(func(ns *os.File) error {
			if err := prepareNamespace(); err != nil {
				return err
			}
			return b.plug(ns, index)
		})
		if err == nil {
			return n, nil
		}
		b.discard(&network{index: index})
		if !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
	}
}

// isolated makes a network that is nothing but a loopback.
func isolatedNetwork() (*network, error) {
	ns, err := newNamespace(func(*os.File) error { return prepareNamespace() })
	if err != nil {
		return nil, err
	}
	return &network{ns: ns}, nil
}

// prepareNamespace brings up the loopback of the thread's network namespace.
// Devices that come later have no IPv6; users may ping and take low ports.
func prepareNamespace() error {
	for name, value := range map[string]string{
		"ipv6/conf/default/disable_ipv6":  "1",
		"ipv4/ping_group_range":           "1000 1000",
		"ipv4/ip_unprivileged_port_start": "0",
	} {
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in session: %w", err)
	}
	defer h.Close()
	if err := h.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// plug joins the thread's network namespace with the bridge. Ports of the
// bridge do not reach each other.
func (b *bridge) plug(ns *os.File, index int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = b.names.veth(index), b.mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: insideDevice, PeerMTU: uint32(b.mtu), PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := b.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("make network device: %w", err)
	}
	if err := b.handle.LinkSetMaster(veth, b.link); err != nil {
		return fmt.Errorf("join bridge: %w", err)
	}
	if err := b.handle.LinkSetIsolated(veth, true); err != nil {
		return fmt.Errorf("isolate port of bridge: %w", err)
	}
	if err := b.handle.LinkSetUp(veth); err != nil {
		return fmt.Errorf("bring network device up: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in session: %w", err)
	}
	defer h.Close()
	inside, err := h.LinkByName(insideDevice)
	if err != nil {
		return fmt.Errorf("find network device in session: %w", err)
	}
	if err := h.AddrAdd(inside, cidr(b.address(index))); err != nil {
		return fmt.Errorf("give session its address: %w", err)
	}
	if err := h.LinkSetUp(inside); err != nil {
		return fmt.Errorf("bring network device in session up: %w", err)
	}
	gateway := nth(b.subnet, 1)
	if err := h.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route session to the outside: %w", err)
	}
	return nil
}

// discard ends a network that nothing runs in any more: its device is gone when
// it returns.
func (b *bridge) discard(n *network) {
	if n.ns != nil {
		_ = n.ns.Close() // nothing was written
	}
	if n.index == 0 {
		return
	}
	err := b.handle.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: b.names.veth(n.index)}})
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.As(err, &netlink.LinkNotFoundError{}) {
		b.log.Warn("remove network device", "err", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.used, n.index)
}

// maxLists bounds how often a list is asked for again.
const maxLists = 1000

// undisturbed gives a list of the kernel that no change came into while it was read:
// with other servers on the machine, devices come and go all the time.
func undisturbed[T any](list func() ([]T, error)) (all []T, err error) {
	for range maxLists {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// sweep removes devices that belong to no session.
func (b *bridge) sweep() error {
	links, err := undisturbed(b.handle.LinkList)
	if err != nil {
		return fmt.Errorf("list network devices: %w", err)
	}
	for _, link := range links {
		var index int
		n, err := fmt.Sscanf(link.Attrs().Name, "bv"+b.names.key+"-%x", &index)
		if n != 1 || err != nil {
			continue
		}
		b.mu.Lock()
		used := b.used[index]
		b.mu.Unlock()
		if used {
			continue
		}
		if err := b.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove network device: %w", err)
		}
	}
	return nil
}
