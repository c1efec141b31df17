package host_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// A relay reserves for members alone, and over it two members say hello to one
// another, end to end: the relay's word counts for nobody.
func TestGateRelay(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	one := func(role membership.Role, relay bool) *host.Host {
		key, chain := newKey(t), s.chain
		if role == membership.Supernode {
			key = s.superKey
		} else {
			chain = s.issue(t, key, role, time.Hour)
		}
		return newHost(t, host.Config{
			Key: key, NAT: &host.NAT{Relay: relay}, Listen: []multiaddr.Multiaddr{maddr(t, tcpAny)},
			Gate: host.NewGate(host.GateConfig{Swarm: s.id, Chain: chain, Logger: slog.New(slog.DiscardHandler)}),
		})
	}
	relay := one(membership.Supernode, true)
	a, b := one(membership.Seed, false), one(membership.Reader, false)
	listenEcho(a, echo)
	connect(t, a, relay)
	if _, err := client.Reserve(t.Context(), a, info(relay)); err != nil {
		t.Fatalf("a member reserves: %v", err)
	}
	through := info(relay).Addrs[0].String() + "/p2p/" + relay.ID().String() + "/p2p-circuit"
	if err := b.Connect(network.WithAllowLimitedConn(t.Context(), "test"), peer.AddrInfo{ID: a.ID(), Addrs: []multiaddr.Multiaddr{maddr(t, through)}}); err != nil {
		t.Fatalf("a member connects through the relay: %v", err)
	}
	if err := say(network.WithAllowLimitedConn(t.Context(), "test"), b, a.ID(), echo); err != nil {
		t.Errorf("a stream over the relay: %v", err)
	}

	stranger := newHost(t, host.Config{NAT: &host.NAT{}})
	connect(t, stranger, relay)
	if _, err := client.Reserve(t.Context(), stranger, info(relay)); err == nil {
		t.Error("a stranger has a reservation")
	}
	if err := stranger.Connect(network.WithAllowLimitedConn(t.Context(), "test"), peer.AddrInfo{ID: a.ID(), Addrs: []multiaddr.Multiaddr{maddr(t, through)}}); err == nil {
		t.Error("a stranger gets a circuit")
	}
}
