package host

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

// interfaces looks up the addresses of the machine's interfaces, at most once a
// second.
type interfaces struct {
	mu sync.Mutex
	// mu guards the following.
	at   time.Time
	last []netip.Prefix
}

// prefixes returns the addresses, each with the network that it is on. They are
// shared and not to be changed.
func (i *interfaces) prefixes() []netip.Prefix {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Since(i.at) < time.Second {
		return i.last
	}
	return i.look()
}

// fresh is prefixes as of now.
func (i *interfaces) fresh() []netip.Prefix {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.look()
}

// look looks the addresses up. The caller holds mu.
func (i *interfaces) look() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return i.last
	}
	i.at, i.last = time.Now(), nil
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			if bits := p.Bits() - p.Addr().BitLen() + p.Addr().Unmap().BitLen(); bits >= 0 {
				i.last = append(i.last, netip.PrefixFrom(p.Addr().Unmap(), bits))
			}
		}
	}
	return i.last
}

// addrs returns the addresses.
func (i *interfaces) addrs() []netip.Addr {
	var out []netip.Addr
	for _, p := range i.prefixes() {
		out = append(out, p.Addr())
	}
	return out
}

// onLink reports whether a TCP or QUIC address is of a network that one of the
// interfaces is on, and so reached without a router; or may be of one that has
// the same numbers elsewhere.
func (i *interfaces) onLink(a multiaddr.Multiaddr) bool {
	if isCircuit(a) {
		return false
	}
	at, _, ok := addrPort(a)
	return ok && slices.ContainsFunc(i.prefixes(), func(p netip.Prefix) bool { return p.Contains(at.Addr()) })
}

// Far reports whether a connection leaves the links of this machine.
func (h *Host) Far(c network.Conn) bool { return !h.links.onLink(c.RemoteMultiaddr()) }
