package locate

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// The cache of tasks without an assignment has rankedSets*rankedWays places.
const (
	rankedSets = 2048
	rankedWays = 4
)

// view is what readers need of a task, computed once for as long as the pool
// and the assignment stay.
type view struct {
	from  *held // nil: ranked over the pool
	until int64 // when from expires, Unix ns
	// pool is the ID of the pool that weights and sites are from, and no
	// pointer: views outlive pools.
	pool    uint64
	stripes int64 // of the file; -1 where not known
	// orders are those of the seats for the stripes that were asked for; nil
	// before the first.
	orders atomic.Pointer[orders]
	// sequential: the origin serves no ranges. shared says that some seat leaves
	// stripes to others, spread that some has the whole file.
	sequential, shared, spread bool
	order                      []uint8 // of the supernodes for this task
	// seats are the seeds in the order in which they own stripe 0.
	seats []seat
	few   [3]seat // where the seats of most tasks are
	task  content.TaskID
}

// seat is one seed of a task.
type seat struct {
	content.Member
	excluded *assignment.Runs // what it leaves to others; nil for nothing
	near     bool             // of this node's site
	copies   bool             // it owns nothing: it stands for its site
	whole    bool             // it has every stripe
}

// leaves reports whether the seat leaves the stripes of a run to others.
func (s *seat) leaves(run int) bool { return s.excluded != nil && s.excluded.Has(run) }

// view returns the seeds of a task. It allocates only where the task is new or
// its pool or assignment changed.
func (m *Map) view(task content.TaskID, now int64) *view {
	s := m.snap.Load()
	e := s.tasks.get(task)
	if e != nil {
		if e.used.Load() != s.serial {
			e.used.Store(s.serial)
		}
		v := e.view.Load()
		if v != nil && v.from == e.first && now < v.until && v.pool == m.poolOf(s, v.order, now).key() {
			return v
		}
		if h := e.best(now); h != nil {
			pool := m.poolOf(s, e.order, now)
			if v == nil || v.from != h || v.pool != pool.key() {
				v = m.assignedView(e, h, pool)
				e.view.Store(v)
			}
			return v
		}
	}
	set := &m.ranked[binary.LittleEndian.Uint64(task[:])%rankedSets]
	way, v := set.find(task)
	order := []uint8(nil)
	if v != nil {
		order = v.order
	} else {
		order = m.order(task[:])
	}
	pool := m.poolOf(s, order, now)
	if v == nil || v.pool != pool.key() {
		v = m.rankedView(task, order, pool)
		if way < 0 {
			way = int(uint64(now) / 1024 % rankedWays) // as good as random
		}
		set[way].Store(v)
	}
	return v
}

// rankedSet holds the views of a few tasks without an assignment whose IDs
// meet here.
type rankedSet [rankedWays]atomic.Pointer[view]

// find returns the view of a task and its place, else a free place and nil,
// else -1 and nil.
func (s *rankedSet) find(task content.TaskID) (int, *view) {
	free := -1
	for i := range s {
		v := s[i].Load()
		if v == nil {
			free = i
		} else if v.task == task {
			return i, v
		}
	}
	return free, nil
}

// best returns the assignment that counts: the first live one in the order of
// supernodes, else the first of all, else nil.
func (e *entry) best(now int64) *held {
	var expired *held
	for _, h := range e.held {
		switch {
		case !h.assigned():
		case now < h.expires:
			return h
		case expired == nil:
			expired = h
		}
	}
	return expired
}

// poolOf returns the first pool, in the given order of supernodes, whose
// supernode was heard of in the last 30 s; else, since nobody knows better, the
// first that there is, which is the same on every node that has the same
// pools; else nil.
func (m *Map) poolOf(s *snapshot, order []uint8, now int64) *pool {
	var known *pool
	for _, i := range order {
		p := s.pools[i]
		if p == nil {
			continue
		}
		if now-m.heard[i].Load() < int64(freshFor) {
			return p
		}
		if known == nil {
			known = p
		}
	}
	return known
}

// onlyOne is the order of one supernode.
var onlyOne = []uint8{0}

// order ranks the configured supernodes for a key, unweighted.
func (m *Map) order(key []byte) []uint8 {
	if len(m.cfg.Supernodes) == 1 {
		return onlyOne
	}
	members := make([]content.Member, len(m.cfg.Supernodes))
	for i, id := range m.cfg.Supernodes {
		members[i] = content.Member{ID: id, Weight: 1}
	}
	order := make([]uint8, 0, len(members))
	for _, r := range content.Rank(nil, key, members) {
		i, _ := slices.BinarySearch(m.cfg.Supernodes, r.ID)
		order = append(order, uint8(i))
	}
	return order
}

func (m *Map) assignedView(e *entry, h *held, p *pool) *view {
	return m.assignedIn(new(view), e, h, p)
}

// assignedIn makes the view of an assignment in v, which is empty.
func (m *Map) assignedIn(v *view, e *entry, h *held, p *pool) *view {
	*v = view{task: e.task, order: e.order, pool: p.key(), from: h, until: h.expires, sequential: h.Sequential, stripes: -1}
	v.seats = v.few[:0]
	if layout := (content.Layout{Size: h.Size}); h.Size >= 0 {
		v.stripes = (h.Size + layout.Stripe() - 1) / layout.Stripe()
	}
	for i, id := range h.Seeds[:min(len(h.Seeds), assignment.MaxSeeds)] {
		s := seat{Member: content.Member{ID: id, Weight: 1}, near: p.near(id)}
		if p != nil {
			if at, ok := p.index[id]; ok {
				s.Member = p.ranking[at]
			}
		}
		if i < len(h.Excluded) {
			s.copies = h.Excluded[i] == assignment.AllRuns
			if h.Excluded[i] != (assignment.Runs{}) {
				s.excluded, v.shared = &h.Excluded[i], true
			}
		}
		if i < len(h.Whole) && h.Whole[i] {
			s.whole, v.spread = true, true
		}
		v.seats = append(v.seats, s)
	}
	slices.SortFunc(v.seats, func(a, b seat) int {
		if x, y := a.leaves(0), b.leaves(0); x != y {
			if x {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(content.Score(e.task[:], b.Member), content.Score(e.task[:], a.Member)), cmp.Compare(a.ID, b.ID))
	})
	return v
}

func (m *Map) rankedView(task content.TaskID, order []uint8, p *pool) *view {
	v := &view{task: task, order: order, pool: p.key(), stripes: -1}
	if p != nil {
		ranked := content.Rank(nil, task[:], p.open)
		replicas := min(cmp.Or(p.replicas, m.cfg.Replicas), assignment.MaxSeeds)
		for _, member := range ranked[:min(replicas, len(ranked))] {
			v.seats = append(v.seats, seat{Member: member, near: p.near(member.ID)})
		}
	}
	return v
}

// scores are those of the seeds of a view for one stripe.
type scores [assignment.MaxSeeds]float64

// rank fills in the scores and returns the index of the owner, or -1 where skip
// names all seeds. Sequential tasks have one owner, the head: that of stripe 0.
// A seed that leaves the stripe to others owns it only where all do.
func (v *view) rank(sc *scores, stripe int64, sequential bool, skip []peer.ID) int {
	head := stripe == 0 || sequential || v.sequential
	run := v.run(stripe, head)
	v.score(sc, stripe, head)
	owner, best, leaves := -1, math.Inf(-1), false
	for i := range v.seats {
		s := &v.seats[i]
		if slices.Contains(skip, s.ID) {
			continue
		}
		left := s.leaves(run)
		better := owner < 0 || leaves && !left
		if !better && left == leaves {
			better = sc[i] > best || sc[i] == best && s.ID < v.seats[owner].ID
		}
		if better {
			owner, best, leaves = i, sc[i], left
		}
	}
	return owner
}

// score fills in the scores for a stripe, or others that make the same order.
func (v *view) score(sc *scores, stripe int64, head bool) {
	if head || len(v.seats) == 1 {
		for i := range v.seats {
			sc[i] = -float64(i) // the seats are in this order already
		}
		return
	}
	lane, remembered := v.lane(stripe)
	if remembered && v.recall(sc, lane) {
		return
	}
	// content.StripeKey without its allocation.
	var key [len(v.task) + 8]byte
	copy(key[:], v.task[:])
	binary.BigEndian.PutUint64(key[len(v.task):], uint64(stripe))
	scorer := content.NewScorer(key[:])
	for i := range v.seats {
		sc[i] = scorer.Score(v.seats[i].Member)
	}
	if remembered {
		v.remember(sc, lane)
	}
}

// run returns the run that a stripe is in, of which seats leave all or nothing
// to others.
func (v *view) run(stripe int64, head bool) int {
	if head {
		return 0
	}
	return assignment.RunOf(stripe, v.stripes)
}
