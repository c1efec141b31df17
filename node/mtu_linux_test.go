package node

import (
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
)

// TestPathMTU: the path to a supernode on this machine carries what loopback does.
func TestPathMTU(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skipf("no loopback: %v", err)
	}
	const addr = "/ip4/127.0.0.1/tcp/1"
	m := ThisMachine(Status{
		Supernodes: []control.Status{{Supernode: "super"}},
		Network:    host.Network{Paths: []host.Path{{Peer: peer.ID("super"), How: host.Direct, Addr: addr}, {Peer: "other", How: host.Direct, Addr: "/ip4/127.0.0.2/tcp/1"}}},
	})
	if len(m.PathMTU) != 1 || m.PathMTU[addr] != min(lo.MTU, 65535) { // of IP
		t.Errorf("paths carry %v, loopback %d", m.PathMTU, lo.MTU)
	}
}
