package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// maxAnnounced is how many addresses supernodes publish of a peer.
const maxAnnounced = 8

// mdnsDigits is what RFC 6335 leaves of a service's name of 15 letters.
const mdnsDigits = 7

// nat returns what a node does about NAT, nil where it is on loopback alone.
func (c Config) nat() *host.NAT {
	if allLoopback(c.Listen) {
		return nil
	}
	n := &host.NAT{Reach: host.Reachability(c.Reachability), PortMapping: c.PortMapping, Relay: c.Relay, RelayData: host.RelayData(c.RelayData)}
	if n.Relay && n.Reach == host.ReachUnknown {
		n.Reach = host.ReachPublic
	}
	return n
}

// supernodeNAT returns what a supernode does about NAT: it is where everybody
// reaches it, and a relay.
func supernodeNAT(listen []string, policy string) *host.NAT {
	if allLoopback(listen) {
		return nil
	}
	return &host.NAT{Reach: host.ReachPublic, Relay: true, RelayData: host.RelayData(policy)}
}

// mdnsService returns the name under which this node is to be found on its LANs
// by the members of its swarm; "" for none. It keeps swarms apart, and tells
// nobody which one it is.
func (n *Node) mdnsService() string {
	if !n.cfg.MDNS || n.member == nil || allLoopback(n.cfg.Listen) {
		return ""
	}
	sum := sha256.Sum256([]byte("p2pnode mdns\x00" + string(n.member.swarm) + "\x00" + n.cfg.Swarm))
	return "_p2pnode-" + hex.EncodeToString(sum[:])[:mdnsDigits] + "._udp"
}

// allLoopback reports whether all addresses, which are valid, are on loopback.
func allLoopback(addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(s string) bool {
		a, err := multiaddr.NewMultiaddr(s)
		return err == nil && !manet.IsIPLoopback(a)
	})
}

// announced returns the addresses that supernodes are told.
func (n *Node) announced() []multiaddr.Multiaddr {
	addrs := n.host.Announced()
	return addrs[:min(len(addrs), maxAnnounced)]
}

// reachability returns what supernodes are told of it.
func (n *Node) reachability() heartbeat.Reachability {
	switch n.host.Reachability() {
	case host.ReachPublic:
		return heartbeat.ReachabilityPublic
	case host.ReachPunchable:
		return heartbeat.ReachabilityPrivate
	case host.ReachRelayed:
		return heartbeat.ReachabilityRelayed
	default:
		return heartbeat.ReachabilityUnknown
	}
}

// announce tells the supernodes at once when the node's addresses have changed:
// it moved, or found or lost a relay.
func (n *Node) announce(ctx context.Context) error {
	changed, stop, err := n.host.AddrsChanged()
	if err != nil {
		return err
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			n.control.Nudge()
		}
	}
}

// checkReachability checks the settings about NAT.
func checkReachability(reach, policy string) *FieldError {
	if (host.NAT{Reach: host.Reachability(reach)}).Validate() != nil {
		return &FieldError{"reachability", reach, "is not public, punchable, relayed or empty: leave it out to have it found out"}
	}
	return checkRelayData(policy)
}

func checkRelayData(policy string) *FieldError {
	if (host.NAT{RelayData: host.RelayData(policy)}).Validate() != nil {
		return &FieldError{"relay-data", policy, "is not off, limited or unlimited"}
	}
	return nil
}
