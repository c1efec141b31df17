package locate

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Prefer orders peers that are equally likely to have what is asked, such as
// those that the DHT names: this node's site first, those whose breaker is open
// last, and among equals at random, the faster the sooner: see draw.
func (m *Map) Prefer(peers []peer.ID) {
	now := m.cfg.Now().UnixNano()
	p := m.ownPool(now)
	type ranked struct {
		id    peer.ID
		class int
		draw  float64
	}
	order := make([]ranked, len(peers))
	for i, id := range peers {
		order[i] = ranked{id: id, class: 1, draw: m.health.draw(id)}
		switch {
		case m.health.broken(id, now):
			order[i].class = 2
		case p.near(id):
			order[i].class = 0
		}
	}
	slices.SortFunc(order, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(b.draw, a.draw), cmp.Compare(a.id, b.id))
	})
	for i := range order {
		peers[i] = order[i].id
	}
}

// Far reports whether it would cost an uplink to have a reader read from a holder
// instead of from this node: the holder is at a site, neither the reader's nor
// this node's; or the reader is at this node's site, and the holder is not. Of
// peers that are in no pool nothing is known.
func (m *Map) Far(reader, holder peer.ID) bool {
	p := m.ownPool(m.cfg.Now().UnixNano())
	to, from := p.site(reader), p.site(holder)
	if to == from {
		return false
	}
	return from != "" && from != p.home || to != "" && to == p.home
}

// Near reports whether a peer of the pool is at this node's site.
func (m *Map) Near(id peer.ID) bool {
	p := m.ownPool(m.cfg.Now().UnixNano())
	return p != nil && p.home != "" && p.site(id) == p.home
}
