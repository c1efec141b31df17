package locate

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Gateway returns the peer through which this node's site reads a stripe, so that
// it crosses the site's uplink once: the first, in rank order for the stripe, of
// the pool's members at the site that take duties, are not in skip and have no
// open breaker. All nodes of a site with the same pool agree on it from the
// first read on. It reports false where that is this node, where the stripe's
// owner or a seed that has the whole file is at the site, and where there is no
// site. No lock, no allocation; one hash a member at the site.
func (m *Map) Gateway(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool) {
	if !m.sited.Load() {
		return "", false
	}
	now := m.cfg.Now().UnixNano()
	v := m.view(task, now)
	p := m.poolOf(m.snap.Load(), v.order, now)
	if p == nil || len(p.local) == 0 || v.isNear(m, stripe, sequential, skip, now) {
		return "", false
	}
	first, ok := m.reader(p, task, stripe, sequential || v.sequential, skip, now)
	return first, ok && first != m.cfg.Self
}

// SiteReader returns the peer that Gateway names, this node or another, also where
// the stripe's owner or one who has the whole file is at the site: it may be reading
// the stripe by an earlier map. It reports false where there is no site, or nobody
// of it in the pool.
func (m *Map) SiteReader(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool) {
	if !m.sited.Load() {
		return "", false
	}
	now := m.cfg.Now().UnixNano()
	v := m.view(task, now)
	p := m.poolOf(m.snap.Load(), v.order, now)
	if p == nil {
		return "", false
	}
	return m.reader(p, task, stripe, sequential || v.sequential, skip, now)
}

// AtSite appends the other members of the pool that stand at this node's site to
// dst, but for cordoned ones, and returns it; nobody where there is no site.
func (m *Map) AtSite(dst []peer.ID) []peer.ID {
	p := m.ownPool(m.cfg.Now().UnixNano())
	if p == nil {
		return dst
	}
	for _, o := range p.local {
		if o.ID != m.cfg.Self {
			dst = append(dst, o.ID)
		}
	}
	return dst
}

// reader returns the first at this node's site in rank order for a stripe, but
// for those in skip and others whose breaker is open.
func (m *Map) reader(p *pool, task content.TaskID, stripe int64, sequential bool, skip []peer.ID, now int64) (peer.ID, bool) {
	if sequential {
		stripe = 0
	}
	// content.StripeKey without its allocation.
	var buf [len(task) + 8]byte
	key := append(buf[:0], task[:]...)
	if stripe != 0 {
		key = binary.BigEndian.AppendUint64(key, uint64(stripe))
	}
	scorer := content.NewScorer(key)
	var first peer.ID
	best := math.Inf(-1)
	for _, o := range p.local {
		if slices.Contains(skip, o.ID) || o.ID != m.cfg.Self && m.health.broken(o.ID, now) {
			continue
		}
		if score := scorer.Score(o); score > best || score == best && o.ID < first {
			first, best = o.ID, score
		}
	}
	return first, first != ""
}

// isNear reports whether one at this node's site, who is to be asked, has the
// stripe or reads it from the origin.
func (v *view) isNear(m *Map, stripe int64, sequential bool, skip []peer.ID, now int64) bool {
	var sc scores
	owner := v.rank(&sc, stripe, sequential, skip)
	for i := range v.seats {
		s := &v.seats[i]
		if i == owner && s.ID == m.cfg.Self {
			return true
		}
		if s.near && (i == owner || s.whole) && s.ID != m.cfg.Self && !slices.Contains(skip, s.ID) && !m.health.broken(s.ID, now) {
			return true
		}
	}
	return false
}
