package host

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// searches counts them, and finds nobody.
type searches int

func (n *searches) FindPeer(context.Context, peer.ID) (peer.AddrInfo, error) {
	*n++
	return peer.AddrInfo{}, routing.ErrNotFound
}

// TestNoSearchForWhoHasJustLeft: a peer that cannot be dialled where it was a
// moment ago has gone, and nobody waits for the DHT to say so. It is searched for
// where it was never connected, where its addresses are forgotten, and later.
func TestNoSearchForWhoHasJustLeft(t *testing.T) {
	hosts := p2ptest.Hosts(t, 3)
	h, left, other := hosts[0], hosts[1], hosts[2]
	var n searches
	f, err := newFinder(&n, h)
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, id peer.ID, searched searches) {
		t.Helper()
		n = 0
		_, _ = f.FindPeer(t.Context(), id)
		if n != searched {
			t.Errorf("%s: %d searches, want %d", what, n, searched)
		}
	}
	h.Peerstore().AddAddrs(other.ID(), other.Addrs(), time.Hour)
	want("never connected", other.ID(), 1)
	p2ptest.Connect(t, h, left)
	want("connected", left.ID(), 1)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		_, ok := f.lost.Peek(left.ID())
		return ok && h.Network().Connectedness(left.ID()) == network.NotConnected
	}, "the loss")
	want("just left", left.ID(), 0)
	f.lost.Add(left.ID(), time.Now().Add(-lostFor))
	want("left a while ago", left.ID(), 1)
	f.lost.Add(left.ID(), time.Now())
	h.Peerstore().ClearAddrs(left.ID())
	want("without addresses", left.ID(), 1)
}
