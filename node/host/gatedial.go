package host

import (
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// maxSpurned bounds the peers that are remembered for having refused.
const maxSpurned = 1024

// spurned is a peer with which a hello failed.
type spurned struct {
	fails int
	until time.Time
}

// spurn takes note of a hello that ended with a verdict. Until a pause is over,
// which doubles up to 15 s, the peer is not dialled, whoever wants it:
// GossipSub and the DHT would try at once.
func (g *Gate) spurn(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if len(g.spurned) >= maxSpurned {
		clear(g.spurned) // each then costs one dial more
	}
	s := g.spurned[id]
	s.fails++
	s.until = now.Add(pause(s.fails, maxPause))
	g.spurned[id] = s
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *Gate) InterceptPeerDial(id peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return !time.Now().Before(g.spurned[id].until) && !g.cfg.Revocations.Peer(id)
}

// InterceptAddrDial implements connmgr.ConnectionGater; it allows all.
func (g *Gate) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return true }

// InterceptAccept implements connmgr.ConnectionGater; it allows all.
func (g *Gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater. It refuses peers whose
// certificates are void for ever.
func (g *Gate) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return !g.cfg.Revocations.Peer(id)
}

// InterceptUpgraded implements connmgr.ConnectionGater; it allows all.
func (g *Gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
