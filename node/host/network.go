package host

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Network is how a host stands in the network.
type Network struct {
	// Reachability is "unknown" where nothing speaks for a NAT.
	Reachability string `json:"reachability"`
	// NAT is what was seen of the NAT before this host, if there is one; Outside
	// are the addresses behind which others see it.
	TCP     Mapping  `json:"nat_tcp"`
	UDP     Mapping  `json:"nat_udp"`
	Outside []string `json:"outside"`
	// Relays are those at which this host is reachable, Relay says that it is one
	// itself.
	Relays []peer.ID `json:"relays"`
	Relay  bool      `json:"relay"`
	Paths  []Path    `json:"paths"`
}

// NetworkStatus says how the host stands in the network; of a host without NAT
// in its Config the paths alone.
func (h *Host) NetworkStatus() Network {
	s := Network{Reachability: "unknown", TCP: MapUnknown, UDP: MapUnknown, Outside: []string{}, Relays: []peer.ID{}, Paths: h.paths.all()}
	if h.nat == nil {
		return s
	}
	s.Reachability = cmp.Or(string(h.nat.reach.now()), "unknown")
	s.TCP, s.UDP = h.nat.reach.mappings()
	for _, a := range h.nat.reach.outside() {
		s.Outside = append(s.Outside, a.String())
	}
	for _, a := range h.Host.Addrs() {
		if isCircuit(a) {
			if id := relayOf(a); !slices.Contains(s.Relays, id) {
				s.Relays = append(s.Relays, id)
			}
		}
	}
	s.Relay = h.nat.relay != nil
	return s
}

// Reachability says who can dial the host, as far as is known.
func (h *Host) Reachability() Reachability {
	if h.nat == nil {
		return ReachUnknown
	}
	return h.nat.reach.now()
}

// Uplink returns the public address behind which peers see the host, where a NAT
// has it: hosts behind one have it in common. False where nobody saw one.
func (h *Host) Uplink() (netip.Addr, bool) {
	if h.nat == nil {
		return netip.Addr{}, false
	}
	return h.nat.reach.uplink(func(id peer.ID) bool { return h.cfg.Gate == nil || h.cfg.Gate.Role(id) != 0 })
}

// Announced returns the addresses to tell others, the best first and in a stable
// order: those of public networks, of the LAN, then those through relays.
// Loopback is told only where there is nothing else.
func (h *Host) Announced() []multiaddr.Multiaddr {
	addrs := h.Host.Addrs()
	class := func(a multiaddr.Multiaddr) int {
		switch {
		case isCircuit(a):
			return 2
		case manet.IsPublicAddr(a):
			return 0
		case manet.IsIPLoopback(a):
			return 3
		}
		return 1
	}
	slices.SortFunc(addrs, func(a, b multiaddr.Multiaddr) int { return cmp.Or(class(a)-class(b), a.Compare(b)) })
	if len(addrs) > 0 && class(addrs[0]) != 3 {
		addrs = slices.DeleteFunc(addrs, func(a multiaddr.Multiaddr) bool { return class(a) == 3 })
	}
	return addrs
}

// AddrsChanged returns a channel that gets an element soon after the host's
// addresses changed, and a function that ends that.
func (h *Host) AddrsChanged() (<-chan any, func(), error) {
	sub, err := h.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		return nil, nil, err
	}
	return sub.Out(), func() { _ = sub.Close() }, nil
}

// MayCarryFiles reports whether files may be read over a connection: not over a
// circuit of a relay that is for talk alone (RelayOff).
func MayCarryFiles(c network.Conn) bool {
	st := c.Stat()
	if !st.Limited {
		return true
	}
	limit, ok := st.Extra[client.StatLimitData].(uint64)
	return !ok || limit == 0 || limit >= FileCircuit
}
