package oci

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"

	"backendai"
)

// names are the engine's names on the machine, all derived from its state
// directory: no two servers share one, and one server has the same after a
// restart.
type names struct{ key string }

func newNames(stateDir string) names {
	sum := sha256.Sum256([]byte(stateDir))
	return names{hex.EncodeToString(sum[:4])}
}

// devicePrefix begins the name of every bridge of every engine on a machine, so
// that the packet filter of one can refuse the way to all others.
const devicePrefix = "bai-"

// probeCgroup is the cgroup beside those of sessions for trying the runtime; no
// session has such an id.
const probeCgroup = ".probe"

func (n names) cgroup() string           { return "/backend.ai-" + n.key }
func (n names) session(id string) string { return n.cgroup() + "/" + id }
func (n names) bridge() string           { return devicePrefix + n.key }
func (n names) table() string            { return "backend.ai-" + n.key }

// veth names the host's end of the network with the given number. Interfaces
// have at most 15 characters.
func (n names) veth(index int) string { return fmt.Sprintf("bv%s-%x", n.key, index) }

// subnets is how many subnets the engines of a machine choose from, and
// subnetBits the size of each.
const (
	subnets    = 1024
	subnetBits = 20
)

// subnet gives the attempt-th choice of a subnet in 10.64.0.0/10.
func (n names) subnet(attempt int) netip.Prefix {
	raw, err := hex.DecodeString(n.key)
	if err != nil {
		panic(err) // the key is hex by construction
	}
	i := (binary.BigEndian.Uint32(raw) + uint32(attempt)) % subnets
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|64<<16|i<<(32-subnetBits))
	return netip.PrefixFrom(netip.AddrFrom4(a), subnetBits)
}

// nth gives the n-th address of a subnet; the gateway is the first.
func nth(subnet netip.Prefix, n int) netip.Addr {
	a := subnet.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
	return netip.AddrFrom4(a)
}

var idRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$`)

// checkID refuses what must not become a file, cgroup or container name.
func checkID(id string) error {
	if !idRE.MatchString(id) {
		return backendai.Errorf(backendai.CodeInvalidParams, "invalid session id %q", id)
	}
	return nil
}
