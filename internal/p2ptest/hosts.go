package p2ptest

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// Hosts returns n plain libp2p hosts that listen on loopback with TCP and TLS,
// know nothing of one another, have no resource limits, and close with the
// test.
func Hosts(t testing.TB, n int) []host.Host {
	t.Helper()
	hosts := make([]host.Host, n)
	for i := range hosts {
		h, err := libp2p.New(
			libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
			libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
			libp2p.Security(libp2ptls.ID, libp2ptls.New),
			libp2p.ResourceManager(&network.NullResourceManager{}),
			libp2p.DisableRelay(),
			libp2p.DisableMetrics(),
		)
		if err != nil {
			t.Fatalf("make host %d of %d: %v", i, n, err)
		}
		t.Cleanup(func() { _ = h.Close() })
		hosts[i] = h
	}
	return hosts
}

// Pair returns two hosts of Hosts that are connected, a having dialled b.
func Pair(t testing.TB) (a, b host.Host) {
	t.Helper()
	hosts := Hosts(t, 2)
	Connect(t, hosts[0], hosts[1])
	return hosts[0], hosts[1]
}

// Connect has one host dial another and waits for the connection.
func Connect(t testing.TB, from, to host.Host) {
	t.Helper()
	err := from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()})
	if err != nil {
		t.Fatalf("connect %s to %s: %v", from.ID(), to.ID(), err)
	}
}

// Key returns a new identity.
func Key(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}
