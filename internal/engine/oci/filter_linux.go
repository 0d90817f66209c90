package oci

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// filter is the packet filter of an engine: one table of its own, and rules in
// a foreign firewall where that would drop what ours allows.
type filter struct {
	names   names
	subnet  netip.Prefix
	servers []netip.Addr // name servers, which may be this host or link-local
}

var metadata = netip.MustParsePrefix("169.254.0.0/16")

// install replaces the engine's table by a fresh one in one transaction.
func (f filter) install() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	table := &nftables.Table{Name: f.names.table(), Family: nftables.TableFamilyINet}
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)
	bridge := f.names.bridge()

	// Before any address translation: what is for the host itself goes no
	// further, under whatever address, published ports of others included. Only
	// its name server answers, where sessions are told to ask it.
	early := f.chain(c, table, "early", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainTypeFilter)
	f.admitQueries(c, early)
	rule(c, early, from(bridge), toHost(), drop())
	input := f.chain(c, table, "input", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	f.admitQueries(c, input)
	rule(c, input, from(bridge), drop())

	forward := f.chain(c, table, "forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	rule(c, forward, from(bridge), toDevices(devicePrefix), drop())
	f.admitQueries(c, forward)
	rule(c, forward, from(bridge), toNet(metadata), drop())
	rule(c, forward, to(bridge), established(), accept())
	rule(c, forward, to(bridge), drop())

	// Nobody on the host reaches what a session binds to all its addresses.
	output := f.chain(c, table, "output", nftables.ChainHookOutput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter)
	rule(c, output, to(bridge), established(), accept())
	rule(c, output, to(bridge), drop())

	nat := f.chain(c, table, "postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainTypeNAT)
	rule(c, nat, fromNet(f.subnet), notTo(bridge), []expr.Any{&expr.Masq{}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install packet filter: %w", err)
	}
	return f.openForeign()
}

// admitQueries lets the sessions' packets to their name servers pass a chain.
func (f filter) admitQueries(c *nftables.Conn, chain *nftables.Chain) {
	for _, server := range f.servers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			rule(c, chain, from(f.names.bridge()), toNet(netip.PrefixFrom(server, 32)), toPort(protocol, 53), accept())
		}
	}
}

func (f filter) chain(c *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, kind nftables.ChainType) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Name: name, Table: t, Hooknum: hook, Priority: priority, Type: kind})
}

// foreignChains are chains of a firewall such as Docker's in the table that
// iptables makes. A packet must pass every table, so that its drop by default
// would end what ours lets through; our own table still has its say.
var foreignChains = []string{"DOCKER-USER", "FORWARD"}

// openForeign puts two accepting rules first into the foreign chain.
func (f filter) openForeign() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	chain, err := foreignChain(c)
	if err != nil || chain == nil {
		return err
	}
	if err := f.closeForeign(); err != nil {
		return err
	}
	tag := []byte(f.names.table())
	for _, match := range [][]expr.Any{from(f.names.bridge()), to(f.names.bridge())} {
		c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: append(match, accept()...), UserData: tag})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("open the host's firewall: %w", err)
	}
	return nil
}

// closeForeign takes the rules out again.
func (f filter) closeForeign() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	chain, err := foreignChain(c)
	if err != nil || chain == nil {
		return err
	}
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return fmt.Errorf("list rules of the host's firewall: %w", err)
	}
	for _, r := range rules {
		if string(r.UserData) == f.names.table() {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("remove rule: %w", err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove rules from the host's firewall: %w", err)
	}
	return nil
}

// foreignChain finds the first of the foreign chains, or nil.
func foreignChain(c *nftables.Conn) (*nftables.Chain, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, name := range foreignChains {
		for _, chain := range chains {
			if chain.Name == name && chain.Table.Name == "filter" {
				return chain, nil
			}
		}
	}
	return nil, nil
}

// remove takes away all that install made.
func (f filter) remove() error {
	if err := f.closeForeign(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	table := &nftables.Table{Name: f.names.table(), Family: nftables.TableFamilyINet}
	c.AddTable(table)
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove packet filter: %w", err)
	}
	return nil
}

func rule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: all})
}

func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func device(key expr.MetaKey, op expr.CmpOp, name []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

func whole(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func from(name string) []expr.Any  { return device(expr.MetaKeyIIFNAME, expr.CmpOpEq, whole(name)) }
func to(name string) []expr.Any    { return device(expr.MetaKeyOIFNAME, expr.CmpOpEq, whole(name)) }
func notTo(name string) []expr.Any { return device(expr.MetaKeyOIFNAME, expr.CmpOpNeq, whole(name)) }

// toDevices matches every device whose name begins so.
func toDevices(prefix string) []expr.Any {
	return device(expr.MetaKeyOIFNAME, expr.CmpOpEq, []byte(prefix))
}

// toHost matches packets to any address of the host, broadcast and multicast
// included: those that are not for a single other machine.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	}
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// The offsets of the addresses in an IPv4 header.
const (
	sourceOffset      = 12
	destinationOffset = 16
)

func fromNet(p netip.Prefix) []expr.Any { return address(sourceOffset, p) }
func toNet(p netip.Prefix) []expr.Any   { return address(destinationOffset, p) }

func address(offset uint32, p netip.Prefix) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits()))
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func toPort(protocol byte, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}
