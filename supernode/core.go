package supernode

import (
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

const (
	// electBatch bounds the tasks elected in one step; the others wait for the
	// next. Among 256 members a first election costs some 100 µs, one that changes
	// nothing 4 µs (BenchmarkElect).
	electBatch = 1024
	// maxAssigns bounds the assignments in one update. An update is kept, and
	// served by fetch, until each of them has been replaced.
	maxAssigns = 32
	// minWithdrawn is the least number of withdrawals that the log keeps.
	minWithdrawn = 1024
	// restoreWait is how long the first pool waits for what the first member
	// remembers of this supernode's last life.
	restoreWait = 500 * time.Millisecond
	// windowPeriods is the width of a window of demand in heartbeat periods, and
	// so in reports of demand. Demand is what two windows hold.
	windowPeriods = 3
)

// core is the supernode's knowledge and its decisions, without clock, network
// or goroutine. Not safe for concurrent use.
type core struct {
	cfg     Config
	self    peer.ID
	epoch   uint64
	behind  uint64 // the highest epoch that peers have proved; see remember
	seq     uint64 // of the last update made
	members *members
	tasks   *tasks
	pool    pool
	past    past
	log     *log
	orders  orders
	gone    []peer.ID // left since the last step
	// electors are the candidates of the step before, without what changes with
	// each election.
	electors  []Candidate
	started   time.Time
	renewed   time.Time // last look at all leases
	appraised time.Time // last look at all demand
}

// newCore takes a Config with its defaults.
func newCore(cfg Config, self peer.ID, started time.Time) *core {
	c := &core{
		cfg: cfg, self: self, started: started, renewed: started, appraised: started,
		past:    past{patience: 2 * cfg.Beat},
		members: newMembers(leasePeriods*cfg.Beat, cfg.MaxPeers),
		tasks:   newTasks(cfg.MaxTasks, cfg.policy(), windowPeriods*cfg.Beat),
		orders:  make(orders),
		pool:    pool{interval: cfg.PoolInterval, joinInterval: cfg.JoinInterval},
	}
	c.begin(uint64(started.UnixMilli()))
	return c
}

// begin begins an epoch with an empty log.
func (c *core) begin(epoch uint64) {
	c.epoch, c.seq, c.log = epoch, 0, newLog(c.self, epoch, max(minWithdrawn, c.cfg.MaxTasks/4))
}

// beat takes in a heartbeat and reports whether it was the peer's first; ok is
// false where the peer found no place. What a peer reported before it was
// started again counts no more.
func (c *core) beat(from peer.ID, b heartbeat.Beat, now time.Time) (joined, ok bool) {
	m, evicted := c.members.touch(from, now)
	if m == nil {
		return false, false
	}
	if evicted != "" {
		c.gone = append(c.gone, evicted)
	}
	if m.beat.Session != 0 && m.beat.Session != b.Session {
		c.tasks.forget([]peer.ID{from})
	}
	joined = c.members.hear(m, b, now)
	if joined && b.Seq > 1 {
		c.past.meet(now)
	}
	return joined, true
}

// remember takes in what this supernode once signed, as a peer gave it back.
// Where it is of a later epoch than this one the clock has gone back: then a new
// epoch begins with the next step, or no peer would listen. That later one is
// returned, else 0.
func (c *core) remember(entries []opened) (later uint64) {
	for _, e := range entries {
		if e.Epoch > max(c.epoch, c.behind) {
			c.behind, later = e.Epoch, e.Epoch
		}
	}
	c.past.restore(entries, max(c.epoch, c.behind+1))
	return later
}

// leave takes out a peer that said goodbye.
func (c *core) leave(id peer.ID) {
	if c.members.remove(id) {
		c.gone = append(c.gone, id)
	}
}

// report takes in what a peer holds and how it was read. It reports false where
// the peer found no place. One that has not yet beaten becomes a member with the
// rights of a reader until it does.
func (c *core) report(from peer.ID, r report.Report, now time.Time) bool {
	m, evicted := c.members.touch(from, now)
	if m == nil {
		return false
	}
	if evicted != "" {
		c.gone = append(c.gone, evicted)
	}
	if slices.Contains(c.gone, from) { // what it says now is newer
		c.forgetGone()
	}
	c.tasks.shares.spend()
	for _, h := range r.Held {
		c.tasks.held(from, h, now)
	}
	for _, id := range r.Dropped {
		c.tasks.dropped(from, id)
	}
	for _, d := range r.Demand {
		c.tasks.demanded(d, now)
	}
	return true
}

// forgetGone takes what peers that left had reported out of the tasks, for all
// of them at once: it looks at every task.
func (c *core) forgetGone() {
	c.tasks.forget(c.gone)
	c.gone = nil
}

// step is what the clock and the news ask for now: updates that are decided,
// and the tasks that an election has to decide.
type step struct {
	updates []assignment.Update
	input   Input
}

// plan decides what does not need an election and collects what does.
func (c *core) plan(now time.Time) step {
	var s step
	if c.behind > c.epoch {
		c.begin(c.behind + 1)
		c.pool.again = true
		c.tasks.retell()
	}
	c.gone = append(c.gone, c.members.expire(now)...)
	c.forgetGone()
	if c.past.settling(now, c.members) {
		return s
	}
	if next, ok := c.pool.update(c.members, c.orders, now); ok {
		for _, page := range assignment.Pages(next, c.cfg.FilterQuery...) {
			page.Replicas = c.cfg.Replicas
			if c.cfg.Shards > 1 {
				page.Shards = c.cfg.Shards
			}
			s.updates = append(s.updates, c.update(now, assignment.Update{Pool: &page}))
		}
	}
	if now.Sub(c.renewed) >= c.cfg.Lease/16 {
		c.renewed = now
		c.tasks.renew(now, c.cfg.Lease)
	}
	if floor, ok := c.floor(now); ok {
		s.updates = append(s.updates, c.update(now, assignment.Update{Floor: floor}))
	}
	var withdrawn []assignment.Assign
	for _, id := range c.tasks.takeWithdrawn() {
		withdrawn = append(withdrawn, assignment.Assign{Task: id, Size: -1})
	}
	s.updates = append(s.updates, c.pack(withdrawn, now)...)
	everything := now.Sub(c.appraised) >= c.cfg.Beat
	if everything {
		c.appraised = now
	}
	c.tasks.appraise(everything, now, c.members.siteOf)
	s.input = c.election(now)
	return s
}

// election collects what is to be elected.
func (c *core) election(now time.Time) Input {
	candidates, electors := c.candidates()
	if !slices.Equal(electors, c.electors) {
		c.electors = electors
		c.tasks.recheck(candidates)
	}
	in := Input{Members: candidates, Replicas: c.cfg.Replicas, MaxReplicas: c.tasks.policy.MaxReplicas}
	if len(candidates) > 0 {
		in.Tasks = c.tasks.takeDirty(electBatch)
	}
	for i := range in.Tasks {
		c.recall(&in.Tasks[i], now)
	}
	return in
}

// recall gives a task without an election the outcome of the one in an earlier
// life of this supernode, and the demand behind it.
func (c *core) recall(t *TaskInput, now time.Time) {
	before, ok := c.past.assigns[t.Task]
	if !ok || len(t.Seeds) > 0 {
		return
	}
	t.Seeds = slices.Clone(before.Seeds)
	if before.Generation == t.Generation {
		t.Excluded = slices.Clone(before.Excluded)
	}
	known, _ := c.tasks.byID.Peek(t.Task)
	if known == nil || known.wish.Replicas != 0 {
		return
	}
	known.wish = Wish{Low: now}
	for i, id := range before.Seeds {
		m := c.members.byID[id]
		switch {
		case !copies(before, i):
			known.wish.Replicas++
		case m != nil && m.beat.Site != "":
			if known.wish.Sites == nil {
				known.wish.Sites = make(map[string]time.Time)
			}
			known.wish.Sites[m.beat.Site] = now
		}
	}
	known.wish.Replicas = min(max(known.wish.Replicas, c.cfg.Replicas), c.tasks.policy.MaxReplicas)
	c.tasks.read[t.Task] = struct{}{}
	t.Replicas, t.Sites = known.wish.Replicas, slices.Sorted(maps.Keys(known.wish.Sites))
}

// floor returns the number below which nothing is assigned any more, where it
// is time to say so: once, when all that counts of an earlier life must have
// been reported again, and when withdrawals pile up.
func (c *core) floor(now time.Time) (uint64, bool) {
	first := c.log.firstAssigned()
	if c.log.floor == nil && now.Sub(c.started) >= c.cfg.Lease {
		c.past.forget()
		return first, true
	}
	return first, len(c.log.withdrawn) > c.log.maxWithdrawn/2 && c.log.withdrawn[0].seq < first
}

// candidates are the members of the published pool that are alive, and the same
// without what changes as they fill.
func (c *core) candidates() (candidates, electors []Candidate) {
	for _, p := range c.pool.members {
		m := c.members.byID[p.ID]
		if m == nil || c.orders.drained(p.ID) {
			continue
		}
		e := Candidate{Member: content.Member{ID: p.ID, Weight: p.Weight}, Site: p.Site}
		e.Cordoned = c.orders[p.ID] == Cordon || m.state == Suspect // it may be dead
		electors = append(electors, e)
		e.Capacity, e.Free, e.Duty = m.beat.Capacity, m.beat.Free, c.tasks.duty[p.ID]
		candidates = append(candidates, e)
	}
	return candidates, electors
}

// commit books an election's outcome and returns the updates that tell it. What
// is as it was, under a lease that is not half over, is not told again.
func (c *core) commit(elected []assignment.Assign, now time.Time) []assignment.Update {
	booked := elected[:0]
	for _, a := range elected {
		t, ok := c.tasks.byID.Peek(a.Task)
		if !ok {
			continue
		}
		a.Lease = c.cfg.Lease
		if sameAssign(a, t.published) && !t.untold && t.leaseEnd.Sub(now) > c.cfg.Lease/2 {
			continue
		}
		c.tasks.book(t, a, now.Add(c.cfg.Lease))
		booked = append(booked, a)
	}
	return c.pack(booked, now)
}

// sameAssign reports whether two assignments say the same, but for their leases.
func sameAssign(a, b assignment.Assign) bool {
	return a.URL == b.URL && a.Generation == b.Generation && a.Size == b.Size && a.Sequential == b.Sequential &&
		slices.Equal(a.Seeds, b.Seeds) && slices.Equal(a.Excluded, b.Excluded) && slices.Equal(a.Whole, b.Whole)
}

// pack puts assignments into as few updates as keep one that is outdated in
// part from being kept for long.
func (c *core) pack(assigns []assignment.Assign, now time.Time) []assignment.Update {
	var out []assignment.Update
	for _, shard := range assignment.ByShard(assigns, c.cfg.Shards) {
		for _, run := range assignment.Split(shard) {
			for part := range slices.Chunk(run, maxAssigns) {
				out = append(out, c.update(now, assignment.Update{Assigns: part}))
			}
		}
	}
	return out
}

// update gives an update its place in the order of all.
func (c *core) update(now time.Time, u assignment.Update) assignment.Update {
	c.seq++
	u.Cursor = assignment.Cursor{Supernode: c.self, Epoch: c.epoch, Seq: c.seq}
	u.Issued = now
	return u
}
