package host

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

// A hundred nodes behind one NAT address come at once, all over both transports,
// and stay; a flood from one address ends at its bound and leaves room for the
// others.
func TestManyNodesOfOneAddress(t *testing.T) {
	m, err := newResourceManager(defaultMaxPeers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	open := func(format string, port int) error {
		a, err := multiaddr.NewMultiaddr(fmt.Sprintf(format, port))
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.OpenConnection(network.DirInbound, true, a)
		if err == nil {
			t.Cleanup(c.Done)
		}
		return err
	}
	const site, flood, other = "/ip4/192.0.2.1/tcp/%d", "/ip6/2001:db8::1/tcp/%d", "/ip4/192.0.2.2/tcp/%d"
	for i := range 100 {
		if err := open(site, 1000+i); err != nil {
			t.Fatalf("node %d of a site: %v", i, err)
		}
		if err := open("/ip4/192.0.2.1/udp/%d/quic-v1", 1000+i); err != nil {
			t.Fatalf("node %d of a site over QUIC: %v", i, err)
		}
	}
	held := 0
	for i := range 2000 {
		if open(flood, i+1) == nil {
			held++
		}
	}
	if held == 0 || held > defaultMaxPeers/2 {
		t.Errorf("%d connections of one network are held, of a host that is made for %d", held, defaultMaxPeers)
	}
	if err := open(other, 1); err != nil {
		t.Errorf("another address beside a flood: %v", err)
	}
	if err := open(site, 2000); err != nil {
		t.Errorf("one more of the site beside a flood: %v", err)
	}
}
