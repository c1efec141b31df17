package node

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/p2pnode/p2pnode/internal/content"
	p2phost "github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/node/read"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// sources lets the filler read the seed map.
type sources struct{ *locate.Map }

// Sources implements read.Map.
func (s sources) Sources(dst []read.Source, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []read.Source {
	var buf [16]locate.Source
	for _, src := range s.Map.Sources(buf[:0], task, stripe, sequential, skip) {
		dst = append(dst, read.Source{Peer: src.Peer, Held: src.Kind == locate.SiteSeed})
	}
	return dst
}

// seedMap is the map that control feeds: of a pool the addresses are kept, so
// that a read dials a seed without looking it up; and the DHT hears of the tasks
// of which this node becomes a seed, or is one no more.
type seedMap struct {
	*locate.Map
	host      host.Host
	providers *locate.Providers
	filters   *filters
	seed      bool            // this node takes duties
	pooled    chan<- struct{} // gets an element with a pool, where there is room
	believes  func(peer.ID) bool
}

// Apply implements control.Map.
func (m seedMap) Apply(s assignment.Signed, u assignment.Update) {
	m.Map.Apply(s, u)
	if !m.believes(u.Supernode) { // it was revoked between the check of the signature and now
		m.Forget(u.Supernode)
		m.filters.adopt(m.FilterQuery)
		return
	}
	for _, a := range u.Assigns {
		switch {
		case m.IsSeed(a.Task): // by the map, in which another word may count
			m.providers.Add(a.Task, locate.Duty)
		case m.seed:
			m.providers.Remove(a.Task, locate.Duty)
		}
	}
	if u.Pool == nil {
		return
	}
	m.filters.adopt(m.FilterQuery)
	for _, p := range u.Pool.Members {
		if p.ID != m.host.ID() {
			m.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
		}
	}
	select {
	case m.pooled <- struct{}{}:
	default:
	}
}

// providers lets the filler find peers in the DHT, the best first, with the
// addresses that it names, which may be newer than the pool's.
type providers struct {
	*locate.Providers
	host  *p2phost.Host
	seeds *locate.Map
}

// Find implements read.Providers.
func (p providers) Find(ctx context.Context, task content.TaskID) []peer.ID {
	var out []peer.ID
	for _, info := range p.Providers.Find(ctx, task) {
		p.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
		out = append(out, info.ID)
	}
	p.seeds.Prefer(out)
	return out
}

// Neighbours implements read.Providers: those of the pool's members at the site
// that are connected, and whom the host has found near.
func (p providers) Neighbours() []peer.ID {
	out := p.seeds.AtSite(p.host.Near())
	slices.Sort(out)
	out = slices.DeleteFunc(slices.Compact(out), func(id peer.ID) bool {
		return p.host.Network().Connectedness(id) != network.Connected // through a relay the uplink would carry it
	})
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// maxHolderAddrs bounds the addresses of a peer that a source named.
const maxHolderAddrs = 8

// Met implements read.Providers.
func (p providers) Met(info peer.AddrInfo) {
	p.host.Peerstore().AddAddrs(info.ID, info.Addrs[:min(len(info.Addrs), maxHolderAddrs)], peerstore.TempAddrTTL)
}

// reach implements seed.Config.Reach: a peer that is connected just now.
func reach(h host.Host, p peer.ID) (peer.AddrInfo, bool) {
	switch h.Network().Connectedness(p) {
	case network.Connected, network.Limited:
		addrs := h.Peerstore().Addrs(p)
		return peer.AddrInfo{ID: p, Addrs: addrs[:min(len(addrs), maxHolderAddrs)]}, true
	default:
		return peer.AddrInfo{}, false
	}
}

// neighbours is how many peers of the pool each node keeps connections to, and
// how many others.
const neighbours = 4

// wanted returns the peers to keep connections to, so that gossip does not
// depend on the supernode alone: the first four of Rank(own ID, pool), and of
// those that this node has met, and that are in no pool, the first four again.
// Where the pool does not hold the whole swarm its members have no room for all
// the others in their meshes, and these would hear gossip late.
func wanted(pool []assignment.Member, met []peer.AddrInfo, self peer.ID, supernodes []peer.AddrInfo) []peer.AddrInfo {
	known := map[peer.ID]bool{self: true} // not to be named, or not again
	for _, s := range supernodes {
		known[s.ID] = true
	}
	infos := make(map[peer.ID]peer.AddrInfo, len(pool)+len(met))
	var members, others []content.Member
	for _, p := range pool {
		if !known[p.ID] {
			known[p.ID], infos[p.ID] = true, peer.AddrInfo{ID: p.ID, Addrs: p.Addrs}
			members = append(members, content.Member{ID: p.ID, Weight: p.Weight})
		}
	}
	for _, p := range met {
		if !known[p.ID] {
			known[p.ID], infos[p.ID] = true, p
			others = append(others, content.Member{ID: p.ID, Weight: 1})
		}
	}
	var out []peer.AddrInfo
	for _, all := range [][]content.Member{members, others} {
		for _, p := range content.Rank(nil, []byte(self), all)[:min(len(all), neighbours)] {
			out = append(out, infos[p.ID])
		}
	}
	return out
}
