package host

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// tcpStagger is the head start of one private TCP address over the next.
	tcpStagger = 30 * time.Millisecond
	// quicDelay is how long private TCP addresses are tried alone. Where TCP is
	// refused the dialer goes on at once.
	quicDelay = 250 * time.Millisecond
	// circuitDelay is how long the way through a relay waits for that over the
	// LAN where the peer seems to be on it; its bytes cross the uplink twice, and
	// a connection stays. Where it only has private addresses that may be of
	// another site it waits for privateDelay.
	circuitDelay = 500 * time.Millisecond
	privateDelay = 20 * time.Millisecond
	// publicDelay is how long a peer's public addresses wait where it seems to be
	// on the LAN: the way through the router and back is the slower one, and a
	// connection stays.
	publicDelay = 100 * time.Millisecond
)

// rankDials orders the addresses of one dial. Private and loopback ones: TCP
// first, QUIC where no TCP connection came about. All others: as libp2p does,
// QUIC first. The two groups are dialled in parallel, but for relays, and where
// the peer seems to be on the LAN, which is tried first. onLink says
// that an address is of a network that this machine is on.
func rankDials(addrs []multiaddr.Multiaddr, onLink func(multiaddr.Multiaddr) bool) []network.AddrDelay {
	var private, other []multiaddr.Multiaddr
	for _, a := range addrs {
		if manet.IsPrivateAddr(a) && (isTCP(a) || isQUIC(a)) {
			private = append(private, a)
		} else {
			other = append(other, a)
		}
	}
	// IPv6 before IPv4, and a stable order of dials whatever the peerstore's.
	slices.SortFunc(private, func(a, b multiaddr.Multiaddr) int { return -a.Compare(b) })

	ranked := make([]network.AddrDelay, 0, len(addrs))
	var delay time.Duration
	for _, a := range private {
		if isTCP(a) {
			ranked = append(ranked, network.AddrDelay{Addr: a, Delay: delay})
			delay += tcpStagger
		}
	}
	if len(ranked) > 0 {
		delay += quicDelay
	}
	for _, a := range private {
		if isQUIC(a) {
			ranked = append(ranked, network.AddrDelay{Addr: a, Delay: delay})
			delay += tcpStagger
		}
	}
	direct, public := time.Duration(0), time.Duration(0)
	switch {
	case slices.ContainsFunc(private, onLink):
		direct, public = circuitDelay, publicDelay
	case len(private) > 0:
		direct = privateDelay
	}
	for _, d := range swarm.DefaultDialRanker(other) {
		if isCircuit(d.Addr) {
			d.Delay = max(d.Delay, direct)
		} else {
			d.Delay += public
		}
		ranked = append(ranked, d)
	}
	return ranked
}
