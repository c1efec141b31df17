package locate

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// StandIn returns who reads a stripe from the origin while every seed of the
// task is in skip, and so stands for them until others are elected: the first of
// the pool in rank order that is not in skip. All who found the same peers dead
// agree on it, so that the origin is asked by one node and not by every reader.
// It reports false where a seed is left, or no pool is known. Cost: one hash a
// member of the pool.
func (m *Map) StandIn(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool) {
	now := m.cfg.Now().UnixNano()
	v := m.view(task, now)
	var sc scores
	if v.rank(&sc, stripe, sequential, skip) >= 0 {
		return "", false
	}
	p := m.poolOf(m.snap.Load(), v.order, now)
	if p == nil {
		return "", false
	}
	if sequential || v.sequential {
		stripe = 0
	}
	left := slices.DeleteFunc(slices.Clone(p.open), func(o content.Member) bool { return slices.Contains(skip, o.ID) })
	first, ok := content.First(content.StripeKey(task, stripe), left)
	return first.ID, ok
}
