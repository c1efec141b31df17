package host

import (
	"context"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

const (
	// lookupTimeout bounds the DHT's search for a peer's addresses in a dial.
	lookupTimeout = 3 * time.Second
	// lostFor is how long the addresses of a peer whose last connection ended are
	// good enough: who cannot be dialled there has gone, and not moved.
	lostFor = 10 * time.Second
	// maxLost bounds the peers that are remembered for it.
	maxLost = 1024
)

// finder is the DHT as the dialer sees it, which asks it for the addresses of a
// peer that has none or cannot be reached at those it has. A search ends in
// bounded time, or a read would wait on a dead peer for minutes; there is none for
// a peer that was connected a moment ago: its readers go elsewhere at once.
type finder struct {
	dht  routing.PeerRouting
	host host.Host
	lost *lru.Cache[peer.ID, time.Time] // when their last connection ended
}

func newFinder(d routing.PeerRouting, h host.Host) (finder, error) {
	lost, err := lru.New[peer.ID, time.Time](maxLost)
	if err != nil {
		return finder{}, err
	}
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if n.Connectedness(c.RemotePeer()) == network.NotConnected {
			lost.Add(c.RemotePeer(), time.Now())
		}
	}})
	return finder{d, h, lost}, nil
}

// FindPeer implements routedhost.Routing.
func (f finder) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	if at, ok := f.lost.Get(id); ok && time.Since(at) < lostFor && len(f.host.Peerstore().Addrs(id)) > 0 {
		return peer.AddrInfo{}, routing.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := f.dht.FindPeer(ctx, id)
	if errors.Is(err, routing.ErrNotFound) {
		// A peer in the routing table whose addresses are forgotten fails at the
		// search's beginning, and counts as unreachable whatever the search finds.
		if found = f.host.Peerstore().PeerInfo(id); len(found.Addrs) > 0 {
			return found, nil
		}
	}
	return found, err
}
