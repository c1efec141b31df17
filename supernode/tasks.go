package supernode

import (
	"container/list"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// maxHolders bounds the holders kept a task; those who come later count only
// when another has left. Seeds are always kept.
const maxHolders = 64

// task is what reports say of one file, and the duty that was given out.
type task struct {
	id         content.TaskID
	url        string
	generation content.Generation
	size       int64
	sequential bool
	holders    map[peer.ID]Holding
	seen       time.Time     // last report that holds it or demands it
	reporter   *reporter     // whose task it is,
	list       *list.List    // in which of its lists,
	place      *list.Element // and where

	flow *flow // nil where nobody reads it
	wish Wish

	published assignment.Assign // no seeds before the first election
	leaseEnd  time.Time         // of what was published
	untold    bool              // what was published counts no more
}

// assign returns the task's metadata with the seeds that were published, as the
// next election takes it. What seeds leave to others counts for one generation.
func (t *task) assign() assignment.Assign {
	a := assignment.Assign{
		Task: t.id, URL: t.url, Generation: t.generation, Size: t.size, Sequential: t.sequential,
		Seeds: slices.Clone(t.published.Seeds),
	}
	if t.published.Generation == t.generation {
		a.Excluded = slices.Clone(t.published.Excluded)
	}
	return a
}

// tasks is the table of all tasks that were reported. At its bound, of whoever
// reported most of them, the task goes that was reported or read longest ago, and
// its assignment is withdrawn. Not safe for concurrent use.
type tasks struct {
	policy Policy
	width  time.Duration // of a window of demand
	limit  int
	byID   *simplelru.LRU[content.TaskID, *task]
	shares shares
	// dirty tasks are to be elected, or published again.
	dirty map[content.TaskID]struct{}
	// read tasks have demand, or a wish that outlives it; stirred ones got some
	// since the last look.
	read, stirred map[content.TaskID]struct{}
	// withdrawn lists tasks that left the table while assigned.
	withdrawn []content.TaskID
	// duty sums up Duties by seed, over all tasks.
	duty map[peer.ID]int64
}

func newTasks(limit int, policy Policy, width time.Duration) *tasks {
	t := &tasks{
		policy: policy, width: width, limit: limit,
		dirty: make(map[content.TaskID]struct{}),
		read:  make(map[content.TaskID]struct{}), stirred: make(map[content.TaskID]struct{}),
		duty: make(map[peer.ID]int64),
	}
	byID, err := simplelru.NewLRU(limit, func(id content.TaskID, old *task) {
		delete(t.dirty, id)
		delete(t.read, id)
		delete(t.stirred, id)
		t.bind(old, -1)
		t.shares.remove(old)
		if len(old.published.Seeds) > 0 {
			t.withdrawn = append(t.withdrawn, id)
		}
	})
	if err != nil {
		panic("supernode: " + err.Error()) // only a limit below 1, which Config excludes
	}
	t.byID = byID
	return t
}

// bind adds a task's duties to those of its seeds, or with -1 takes them away.
// What they derive from must not change between the two.
func (t *tasks) bind(known *task, sign int64) {
	a := known.assign()
	for i, d := range Duties(a) {
		t.duty[a.Seeds[i]] += sign * d
		if t.duty[a.Seeds[i]] == 0 {
			delete(t.duty, a.Seeds[i])
		}
	}
}

// book notes what was elected for a task, and until when.
func (t *tasks) book(known *task, a assignment.Assign, leaseEnd time.Time) {
	t.bind(known, -1)
	known.published, known.leaseEnd, known.untold = a, leaseEnd, false
	t.bind(known, 1)
}

// retell marks all that was elected to be published again.
func (t *tasks) retell() {
	for _, known := range t.byID.Values() {
		if len(known.published.Seeds) > 0 {
			known.untold = true
			t.dirty[known.id] = struct{}{}
		}
	}
}

// held takes in what one peer says it holds of a task.
func (t *tasks) held(from peer.ID, h report.Held, now time.Time) {
	known, ok := t.byID.Get(h.Task)
	if !ok {
		known = &task{id: h.Task, size: -1, holders: make(map[peer.ID]Holding)}
		if t.byID.Len() >= t.limit {
			t.byID.Remove(t.shares.victim(from).id)
		}
		t.byID.Add(h.Task, known)
		t.shares.add(known, from)
		t.dirty[h.Task] = struct{}{}
	}
	known.seen = now
	t.shares.touch(known)
	t.bind(known, -1)
	changed := known.describe(from, h)
	t.bind(known, 1)
	if changed || !known.leaseEnd.IsZero() && !now.Before(known.leaseEnd) {
		t.dirty[h.Task] = struct{}{}
	}
	if known.generation == h.Generation && known.hold(from, h) && known.wish.Hot(t.policy) {
		t.dirty[h.Task] = struct{}{}
	}
}

// demanded takes in how a task was read from one peer. Of a task that nobody
// holds nothing is kept.
func (t *tasks) demanded(d report.Demand, now time.Time) {
	known, ok := t.byID.Get(d.Task)
	if !ok {
		return
	}
	known.seen = now
	t.shares.touch(known)
	if known.flow == nil {
		known.flow = new(flow)
	}
	known.flow.add(d, now, t.width)
	t.read[d.Task], t.stirred[d.Task] = struct{}{}, struct{}{}
}

// appraise looks at the demand of the tasks that got some since the last look,
// or of all that are read, and marks those that need other seeds.
func (t *tasks) appraise(all bool, now time.Time, site func(reader uint64) string) {
	look := t.stirred
	if all {
		look = t.read
	}
	for id := range look {
		known, ok := t.byID.Peek(id)
		if !ok {
			continue
		}
		var d Demand
		if known.flow != nil {
			d = known.flow.demand(now, t.width, site)
		}
		next := known.wish.Next(d, t.policy, now)
		if !next.same(known.wish) && !(known.wish.Replicas == 0 && next.same(Wish{Replicas: t.policy.Replicas})) {
			t.dirty[id] = struct{}{}
		}
		known.wish = next
		if known.flow != nil && known.flow.idle() {
			known.flow = nil
		}
		if known.flow == nil && next.same(Wish{Replicas: t.policy.Replicas}) {
			delete(t.read, id)
		}
	}
	clear(t.stirred)
}

// describe takes over a report's metadata and reports whether they are news.
// Where two peers speak of different generations the head is right: it is the
// one that asks the origin. So another's word counts only while the head holds
// nothing of the task.
func (t *task) describe(from peer.ID, h report.Held) (changed bool) {
	if t.url == "" && h.URL != "" {
		t.url, changed = h.URL, true
	}
	if h.Generation.IsZero() {
		return changed
	}
	if !t.generation.IsZero() && h.Generation != t.generation {
		if seeds := t.published.Seeds; len(seeds) > 0 && seeds[0] != from {
			if _, headKnows := t.holders[seeds[0]]; headKnows {
				return changed
			}
		}
		clear(t.holders)
		t.size = -1
	}
	size := t.size
	if h.Size >= 0 {
		size = h.Size
	}
	if t.generation != h.Generation || t.sequential != h.Sequential || t.size != size {
		t.generation, t.sequential, t.size = h.Generation, h.Sequential, size
		changed = true
	}
	return changed
}

// hold takes over what a peer has, and reports whether a seed has thereby got
// the whole file, or lost it.
func (t *task) hold(from peer.ID, h report.Held) (turned bool) {
	old, known := t.holders[from]
	seed := slices.Contains(t.published.Seeds, from)
	if !known && len(t.holders) >= maxHolders && !seed {
		return false
	}
	next := Holding{Blocks: h.Blocks(), Begun: begunRuns(h)}
	t.holders[from] = next
	all := content.Layout{Size: max(t.size, 0)}.Blocks()
	return seed && (old.Blocks >= all) != (next.Blocks >= all)
}

// begunRuns returns the runs of stripes of which a block is held. It is empty
// where the size is not known.
func begunRuns(h report.Held) (runs assignment.Runs) {
	if h.Size < 0 {
		return runs
	}
	layout := content.Layout{Size: h.Size}
	stripes := (h.Size + layout.Stripe() - 1) / layout.Stripe()
	for i, b := range h.Present {
		for bit := 0; b != 0; b, bit = b>>1, bit+1 {
			if b&1 == 0 {
				continue
			}
			// A run of blocks may be longer than a stripe.
			first := (int64(i)*8 + int64(bit)) << h.Shift * content.BlockSize
			last := min(first+content.BlockSize<<h.Shift, h.Size) - 1
			for s := assignment.RunOf(layout.StripeOf(first), stripes); s <= assignment.RunOf(layout.StripeOf(last), stripes); s++ {
				runs.Add(s)
			}
		}
	}
	return runs
}

// dropped takes in that a peer no longer holds a task. Its duty, if it has one,
// stays: it may fetch the bytes again.
func (t *tasks) dropped(from peer.ID, id content.TaskID) {
	known, ok := t.byID.Peek(id)
	if !ok {
		return
	}
	delete(known.holders, from)
	if known.wish.Hot(t.policy) && slices.Contains(known.published.Seeds, from) {
		t.dirty[id] = struct{}{}
	}
}

// forget takes out all that was known from peers that are gone.
func (t *tasks) forget(gone []peer.ID) {
	if len(gone) == 0 {
		return
	}
	for _, known := range t.byID.Values() {
		for _, id := range gone {
			delete(known.holders, id)
		}
	}
}

// recheck marks the tasks that an election over these candidates would serve
// better: a seed is none of them, or a place is free.
func (t *tasks) recheck(candidates []Candidate) {
	live := make(map[peer.ID]bool, len(candidates))
	open := 0
	for _, c := range candidates {
		live[c.ID] = true
		if !c.Cordoned {
			open++
		}
	}
	for _, known := range t.byID.Values() {
		n := 0
		for _, id := range known.published.Seeds {
			if live[id] {
				n++
			}
		}
		wanted := min(max(t.policy.Replicas, known.wish.Replicas), open)
		if n < len(known.published.Seeds) || n < wanted || len(known.wish.Sites) > 0 {
			t.dirty[known.id] = struct{}{}
		}
	}
}

// takeDirty returns up to limit tasks to elect, and takes them for done.
func (t *tasks) takeDirty(limit int) []TaskInput {
	var out []TaskInput
	for id := range t.dirty {
		if len(out) == limit {
			break
		}
		delete(t.dirty, id)
		known, ok := t.byID.Peek(id)
		if !ok {
			continue
		}
		out = append(out, TaskInput{
			Assign: known.assign(), Holders: maps.Clone(known.holders), Replicas: known.wish.Replicas,
			Sites: slices.Sorted(maps.Keys(known.wish.Sites)), Hot: known.wish.Hot(t.policy),
		})
	}
	return out
}

// takeWithdrawn returns the tasks whose assignments are to be withdrawn.
func (t *tasks) takeWithdrawn() []content.TaskID {
	out := t.withdrawn
	t.withdrawn = nil
	return out
}

// renew marks the tasks whose lease is half over and that somebody holds or
// asked for in the last lease, and gives up those whose lease is over.
func (t *tasks) renew(now time.Time, lease time.Duration) {
	for _, id := range t.byID.Keys() {
		known, _ := t.byID.Peek(id)
		used := len(known.holders) > 0 || now.Sub(known.seen) < lease
		if len(known.published.Seeds) == 0 {
			if !used {
				t.byID.Remove(id)
			}
			continue
		}
		switch left := known.leaseEnd.Sub(now); {
		case used && left <= lease/2:
			t.dirty[id] = struct{}{}
		case left <= 0:
			t.byID.Remove(id)
		}
	}
}
