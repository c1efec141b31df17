package locate

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// poolLease is how long a pool that was replaced is looked at for its owners: as
// long as an assignment binds its seeds by default.
const poolLease = 10 * time.Minute

// maxPrevious bounds the peers that Previous names.
const maxPrevious = 4

// Previous appends to dst who owned a stripe under the maps of the last lease
// and is neither its owner now nor this node, at most four peers, of the latest
// map first; nobody where nothing has changed. The peers in skip owned nothing: the
// next in order stood for them. Who has become the owner asks
// them for what they hold before it asks the origin: so moving ownership costs
// no fill. It may allocate: it is for misses.
func (m *Map) Previous(dst []peer.ID, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []peer.ID {
	now := m.cfg.Now().UnixNano()
	s := m.snap.Load()
	f := formerOwners{m: m, current: m.view(task, now), stripe: stripe, sequential: sequential, skip: skip, first: len(dst), dst: dst}
	e := &entry{task: task, order: m.order(task[:])}
	var h *held
	if known := s.tasks.get(task); known != nil {
		h = known.best(now)
	}
	p := m.poolOf(s, e.order, now)
	if h != nil && now-h.since < int64(h.Lease) {
		if h.before != nil {
			f.add(m.assignedView(e, h.before, p))
		} else { // before its first assignment it was ranked over the pool
			f.add(m.rankedView(task, e.order, p))
		}
	}
	if p == nil || now-p.since >= int64(poolLease) {
		return f.dst
	}
	for _, former := range p.former {
		if h != nil {
			f.add(m.assignedView(e, h, former)) // its weights were others
		} else {
			f.add(m.rankedView(task, e.order, former))
		}
		if now-former.since >= int64(poolLease) {
			return f.dst
		}
	}
	if h == nil && len(p.former) < maxFormer {
		// The first pool that this node has seen. Where it had just joined then,
		// what it owned at once had been the next one's.
		f.skip = append(slices.Clone(skip), m.cfg.Self)
		f.add(f.current)
	}
	return f.dst
}

// formerOwners collects the owners of one stripe under other maps.
type formerOwners struct {
	m          *Map
	current    *view
	stripe     int64
	sequential bool
	skip       []peer.ID
	first      int // where they begin in dst
	dst        []peer.ID
}

// add appends the owner under a view.
func (f *formerOwners) add(v *view) {
	var sc scores
	i := v.rank(&sc, f.stripe, f.sequential, f.skip)
	if i < 0 || len(f.dst)-f.first == maxPrevious {
		return
	}
	id := v.seats[i].ID
	if owner := f.current.rank(&sc, f.stripe, f.sequential, nil); owner >= 0 && f.current.seats[owner].ID == id {
		return
	}
	if id != f.m.cfg.Self && !slices.Contains(f.dst[f.first:], id) {
		f.dst = append(f.dst, id)
	}
}

// succeed makes h follow old, which is what the same supernode said before:
// who owned what is remembered for one lease.
func (h *held) succeed(old *held, now int64) {
	h.since = now
	if old == nil || !old.assigned() {
		return
	}
	if sameOwners(&old.Assign, &h.Assign) {
		h.before, h.since = old.before, old.since
		return
	}
	h.before = &held{Assign: old.Assign, supernode: old.supernode, expires: old.expires}
}

// sameOwners reports whether two assignments make the same seed the owner of
// each stripe.
func sameOwners(a, b *assignment.Assign) bool {
	return a.Size == b.Size && slices.Equal(a.Seeds, b.Seeds) && slices.Equal(a.Excluded, b.Excluded)
}
