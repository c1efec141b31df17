package locate

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// state is what the writer keeps of one supernode, besides the snapshot.
type state struct {
	epoch, seq uint64 // the highest that was applied
	floor      uint64
	floorFrom  *record
	pools      pools
	poolDigest [32]byte
	sum        assignment.HashSum
	log        log
	// low is the number up to which nothing is missing; ahead are those that
	// came after a gap.
	low   uint64
	ahead map[uint64]struct{}
	// sparse: not all tasks are followed. Then steps are what the latest updates
	// changed, in the order in which they came, and low moves by hashes alone.
	sparse bool
	steps  []step
}

// maxAhead bounds the numbers remembered behind a gap. Beyond it they are
// fetched again.
const maxAhead = 4096

// change is the next snapshot while it is being made.
type change struct {
	*snapshot
	m *Map
}

// Apply takes in an update that s.Open has verified. It is idempotent, and the
// order of calls does not matter: of each task, and of the pool, the highest
// (epoch, seq) of a supernode counts, and the first update of a newer epoch
// ends all assignments of the older one; its pool stays in use until the new
// one is whole. Updates of supernodes that are not configured are ignored. Both
// arguments are kept and must not be changed. Cost: 3 to 5 µs for each
// assignment, whatever the size of the map.
func (m *Map) Apply(s assignment.Signed, u assignment.Update) {
	i, ok := slices.BinarySearch(m.cfg.Supernodes, u.Supernode)
	if !ok {
		m.metrics.updates.WithLabelValues("unknown_supernode").Inc()
		return
	}
	if u.Pool != nil {
		m.signers.add(memberIDs(u.Pool.Members))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.snap.Load()
	st := &m.states[i]
	if u.Epoch < st.epoch {
		m.metrics.updates.WithLabelValues("stale").Inc()
		return
	}
	next := *old
	next.serial++
	c := change{&next, m}
	if u.Epoch > st.epoch {
		c.begin(i, u.Epoch)
	}
	news := u.Seq > st.seq
	sum, pool := st.sum, st.poolDigest
	r := st.log.record(s, u)
	st.log.hold(r)
	news = c.assigns(i, u, r) || news
	news = c.floor(i, u.Floor, r) || news
	news = c.pool(i, u, r) || news
	st.log.release(r)
	st.advance(u.Seq)
	st.note(u.Seq, sum, pool)
	if !news {
		m.metrics.updates.WithLabelValues("stale").Inc()
		return
	}
	m.metrics.updates.WithLabelValues("applied").Inc()
	m.heard[i].Store(m.cfg.Now().UnixNano())
	c.evict()
	if st.epoch > next.epoch || st.epoch == next.epoch && st.seq > next.seq {
		next.epoch, next.seq = st.epoch, st.seq
	}
	m.snap.Store(&next)
	m.metrics.entries.Set(float64(next.tasks.n))
}

func memberIDs(members []assignment.Member) []peer.ID {
	ids := make([]peer.ID, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	return ids
}

// begin ends all that a supernode said in earlier epochs, except its pool.
func (c change) begin(i int, epoch uint64) {
	for _, e := range c.tasks.all() {
		c.set(e.task, i, nil)
	}
	c.m.states[i] = state{epoch: epoch, poolDigest: assignment.PoolDigest(nil), sparse: c.m.Follows() != nil}
}

// Forget drops all that a supernode has said, its pool too, and believes no signer
// any more but those in the pools of the others: it was revoked. What it signs is
// not to be applied again.
func (m *Map) Forget(supernode peer.ID) {
	i, ok := slices.BinarySearch(m.cfg.Supernodes, supernode)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := *m.snap.Load()
	if st := m.states[i]; st.seq == 0 && next.pools[i] == nil {
		return
	}
	next.serial++
	c := change{&next, m}
	next.pools = slices.Clone(next.pools)
	next.pools[i] = nil
	c.begin(i, m.states[i].epoch)
	m.heard[i].Store(0)
	var ids []peer.ID
	for _, p := range next.pools {
		if p == nil {
			continue
		}
		ids = append(ids, memberIDs(p.members)...)
		for _, former := range p.former {
			ids = append(ids, memberIDs(former.members)...)
		}
	}
	m.signers.replace(ids)
	m.snap.Store(&next)
	m.metrics.entries.Set(float64(next.tasks.n))
}

// Settle makes another site this node's; empty is near nobody. Reads follow it at
// once.
func (m *Map) Settle(site string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if site == m.cfg.Site {
		return
	}
	m.cfg.Site = site
	m.sited.Store(site != "")
	next := *m.snap.Load()
	next.pools = slices.Clone(next.pools)
	for i, p := range next.pools {
		next.serial++ // each pool has an ID of its own
		if p != nil {
			moved := *p
			moved.id = next.serial
			moved.settle(site)
			next.pools[i] = &moved
		}
	}
	m.snap.Store(&next)
}

// advance notes that an update has come in.
func (st *state) advance(seq uint64) {
	st.seq = max(st.seq, seq)
	if seq > st.low && !st.sparse {
		if st.ahead == nil {
			st.ahead = make(map[uint64]struct{})
		}
		if len(st.ahead) < maxAhead || seq == st.low+1 {
			st.ahead[seq] = struct{}{}
		}
	}
	for {
		if _, ok := st.ahead[st.low+1]; !ok {
			return
		}
		st.low++
		delete(st.ahead, st.low)
	}
}

// assigns takes in those of an update and reports whether any is news.
func (c change) assigns(i int, u assignment.Update, r *record) bool {
	st, news := &c.m.states[i], false
	if u.Seq < st.floor {
		return false
	}
	follows := c.m.Follows()
	for _, a := range u.Assigns {
		if follows != nil && !follows.Has(a.Task[0]) {
			continue
		}
		if old := c.get(a.Task, i); old != nil && old.record.seq >= u.Seq {
			continue
		}
		h := &held{Assign: a, supernode: i, expires: u.Issued.Add(a.Lease).UnixNano(), record: r}
		h.succeed(c.get(a.Task, i), c.m.cfg.Now().UnixNano())
		c.set(a.Task, i, h)
		news = true
	}
	return news
}

// floor withdraws what was assigned under it, and forgets what was withdrawn
// under it: nothing under it can come back.
func (c change) floor(i int, floor uint64, r *record) bool {
	st := &c.m.states[i]
	if floor <= st.floor {
		return false
	}
	st.log.hold(r)
	if st.floorFrom != nil {
		st.log.release(st.floorFrom)
	}
	st.floor, st.floorFrom = floor, r
	st.log.below(floor, func(old *record) {
		for _, task := range old.tasks {
			if h := c.get(task, i); h != nil && h.record == old {
				c.set(task, i, nil)
			}
		}
	})
	return true
}

// pool takes in a page and reports whether it is news.
func (c change) pool(i int, u assignment.Update, r *record) bool {
	if u.Pool == nil {
		return false
	}
	st := &c.m.states[i]
	whole, news := st.pools.add(u, r)
	if whole == nil {
		return news
	}
	for _, page := range whole.records {
		st.log.hold(page)
	}
	for _, page := range st.pools.records {
		st.log.release(page)
	}
	st.pools.records = whole.records
	p := newPool(c.serial, u.Epoch, whole, c.m.cfg.Site)
	p.succeed(c.pools[i], c.m.cfg.Now().UnixNano())
	c.m.interest.poke()
	st.poolDigest = p.digest
	c.pools = slices.Clone(c.pools)
	c.pools[i] = p
	return true
}

// get returns what supernode i holds of a task, or nil.
func (c change) get(task content.TaskID, i int) *held {
	e := c.tasks.get(task)
	if e == nil {
		return nil
	}
	for _, h := range e.held {
		if h.supernode == i {
			return h
		}
	}
	return nil
}

// set makes h, or for nil nothing, what supernode i says of a task, and keeps
// the sums and the log in step.
func (c change) set(task content.TaskID, i int, h *held) {
	st := &c.m.states[i]
	old := c.tasks.get(task)
	e := &entry{task: task, born: c.serial}
	if old != nil {
		e.order, e.born = old.order, old.born
		e.used.Store(old.used.Load())
		for _, other := range old.held {
			if other.supernode != i {
				e.held = append(e.held, other)
				continue
			}
			if other.Lease > 0 {
				st.sum.Toggle(assignment.EntryDigest(other.Assign))
			}
			st.log.release(other.record)
		}
	} else {
		e.order = c.m.order(task[:])
		c.m.queue.push(task, c.serial, c.serial)
	}
	if h != nil {
		e.used.Store(c.serial)
		e.held = append(e.held, h)
		slices.SortFunc(e.held, func(a, b *held) int {
			return cmp.Compare(slices.Index(e.order, uint8(a.supernode)), slices.Index(e.order, uint8(b.supernode)))
		})
		if h.Lease > 0 {
			st.sum.Toggle(assignment.EntryDigest(h.Assign))
		}
		st.log.hold(h.record)
	}
	if i := slices.IndexFunc(e.held, (*held).assigned); i >= 0 {
		e.first = e.held[i]
		now := c.m.cfg.Now().UnixNano()
		e.view.Store(c.m.assignedIn(&e.mine, e, e.first, c.m.poolOf(c.snapshot, e.order, now)))
	}
	if len(e.held) == 0 {
		c.tasks.remove(task, c.serial)
		return
	}
	c.tasks.put(e, c.serial)
}

// evict forgets tasks until the bound is kept.
func (c change) evict() {
	for c.tasks.n > c.m.cfg.MaxTasks {
		e := c.m.queue.oldest(&c.tasks)
		for _, h := range e.held {
			c.set(e.task, h.supernode, nil)
			c.m.states[h.supernode].steps = nil
		}
		c.m.metrics.evicted.Inc()
	}
	c.m.queue.compact(&c.tasks)
}
