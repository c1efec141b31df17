package supernode

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// maxAddrs bounds the addresses published of one member.
const maxAddrs = 8

// pool is the set of peers that may be seeds, as it was last published. Not
// safe for concurrent use.
type pool struct {
	interval     time.Duration // between changes
	joinInterval time.Duration // between changes that add members, while small
	members      []assignment.Member
	changed      time.Time
	// seen is the count of changes that was looked at; waiting says that one is
	// to be published when it is time.
	seen    uint64
	waiting bool
	// again says that it has to be published whether it changed or not.
	again bool
}

// update returns the pool to publish now, and false where nothing is to be
// published now: nothing changed, or the last change is too recent. The first
// members go out at once and joins soon while the pool is small, so that a
// small swarm is of use within a second of its start; in a large one every
// change costs each peer the whole pool. An empty pool is never published: the
// last one is a better hint than none. It costs nothing while nothing changes.
func (p *pool) update(all *members, orders orders, now time.Time) ([]assignment.Member, bool) {
	if all.changes == p.seen && !p.waiting && !p.again {
		return nil, false
	}
	p.seen, p.waiting = all.changes, false
	next := p.choose(all.sorted(), orders)
	joined, changed := difference(p.members, next)
	wait := p.interval
	if joined {
		wait = min(wait, p.joinInterval*time.Duration(1+len(p.members)/8))
	}
	switch {
	case len(next) == 0 || !changed && !p.again:
		return nil, false
	case len(p.members) > 0 && !p.again && now.Sub(p.changed) < wait:
		p.waiting = true
		return nil, false
	}
	p.members, p.changed, p.again = next, now, false
	return next, true
}

// choose selects from the members those who offer to be seeds and are not being
// drained, in the order of their IDs. Where there are too many, those who are in the pool stay, and the
// heaviest and then the oldest of the others fill it.
func (p *pool) choose(all []*member, orders orders) []assignment.Member {
	var seeds []*member
	for _, m := range all {
		if m.beat.Seed && !orders.drained(m.id) {
			seeds = append(seeds, m)
		}
	}
	if len(seeds) > assignment.MaxPool {
		in := p.ids()
		rank := func(m *member) int {
			if in[m.id] {
				return 0
			}
			return 1
		}
		slices.SortFunc(seeds, func(a, b *member) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.weight, a.weight), a.joined.Compare(b.joined), cmp.Compare(a.id, b.id))
		})
		seeds = seeds[:assignment.MaxPool]
	}
	slices.SortFunc(seeds, func(a, b *member) int { return cmp.Compare(a.id, b.id) })
	out := make([]assignment.Member, len(seeds))
	for i, m := range seeds {
		out[i] = assignment.Member{
			ID: m.id, Addrs: m.beat.Addrs[:min(len(m.beat.Addrs), maxAddrs)], Site: m.beat.Site, Weight: m.weight,
			Cordoned: orders[m.id] == Cordon,
		}
	}
	return out
}

func (p *pool) ids() map[peer.ID]bool {
	ids := make(map[peer.ID]bool, len(p.members))
	for _, m := range p.members {
		ids[m.ID] = true
	}
	return ids
}

// difference compares two pools, both in the order of their IDs.
func difference(old, next []assignment.Member) (joined, changed bool) {
	byID := make(map[peer.ID]assignment.Member, len(old))
	for _, m := range old {
		byID[m.ID] = m
	}
	same := 0
	for _, m := range next {
		before, ok := byID[m.ID]
		if !ok {
			joined, changed = true, true
			continue
		}
		same++
		if before.Site != m.Site || before.Weight != m.Weight || before.Cordoned != m.Cordoned || !slices.EqualFunc(before.Addrs, m.Addrs, multiaddr.Multiaddr.Equal) {
			changed = true
		}
	}
	return joined, changed || same < len(old)
}
