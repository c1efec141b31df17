package locate

import (
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// interest is what decides of which tasks a map keeps the assignments, where
// supernodes publish them in shards. A peer that may be elected needs them all;
// any other those of the shards that it uses, and ranks other tasks over the
// pool, as with tasks that nobody has heard of.
type interest struct {
	// used has the first bytes of the tasks that were used in this period, and
	// before in the one before it, as content.Prefixes does.
	used, before [content.MaxShards / 64]atomic.Uint64
	wake         chan struct{}
	// follows is the outcome; nil: all. The Map's mu guards its writing.
	follows atomic.Pointer[content.Prefixes]
}

// Use notes that this node reads or holds a task, so that it follows the task's
// shard. It takes no lock and does not allocate.
func (m *Map) Use(task content.TaskID) {
	word, bit := &m.interest.used[task[0]/64], uint64(1)<<(task[0]%64)
	if word.Load()&bit != 0 {
		return
	}
	word.Or(bit)
	m.interest.poke()
}

// Reconsider returns a channel that has a token whenever Follow may decide
// otherwise than it last did.
func (m *Map) Reconsider() <-chan struct{} { return m.interest.wake }

func (in *interest) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// Follows returns the first bytes of the tasks whose assignments are kept; nil
// for all. They are shared and not to be changed.
func (m *Map) Follows() *content.Prefixes { return m.interest.follows.Load() }

// Shards returns the numbers of shards, those above one, in which known
// supernodes publish, in ascending order.
func (m *Map) Shards() []int {
	var out []int
	for _, p := range m.snap.Load().pools {
		if p != nil && p.shards > 1 {
			out = append(out, p.shards)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Follow decides anew whose assignments are kept: all, where a supernode
// publishes in one shard, or this node may be elected, or no supernode was
// heard of; else those of the shards that were used in this period or the one before. over
// begins a new period. What is not followed any more is forgotten. It returns
// what is followed newly, which is to be fetched; nil for nothing.
func (m *Map) Follow(over bool) (added *content.Prefixes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var used content.Prefixes
	for i := range m.interest.used {
		if over {
			m.interest.before[i].Store(m.interest.used[i].Swap(0))
		}
		binary.LittleEndian.PutUint64(used[8*i:], m.interest.used[i].Load()|m.interest.before[i].Load())
	}
	old, next := m.interest.follows.Load(), (*content.Prefixes)(nil)
	if n := m.cut(); n > 1 {
		wide := used.Widen(n)
		next = &wide
	}
	if content.SamePrefixes(old, next) {
		return nil
	}
	m.interest.follows.Store(next)
	m.forgetOthers(next)
	if old == nil {
		return nil
	}
	more := content.AllPrefixes
	if next != nil {
		more = *next
	}
	if more = more.Without(*old); more == (content.Prefixes{}) {
		return nil
	}
	return &more
}

// cut returns the number of shards of which this node needs not all: the least
// that a known supernode has; 1 where it needs all.
func (m *Map) cut() int {
	least := content.MaxShards + 1
	for _, p := range m.snap.Load().pools {
		if p == nil {
			continue
		}
		if _, member := p.index[m.cfg.Self]; member {
			return 1
		}
		least = min(least, max(1, p.shards))
	}
	if least > content.MaxShards {
		return 1
	}
	return least
}

// forgetOthers drops the assignments of tasks that are not followed, the caller
// holding mu.
func (m *Map) forgetOthers(follows *content.Prefixes) {
	next := *m.snap.Load()
	next.serial++
	c := change{&next, m}
	for i := range m.states {
		st := &m.states[i]
		st.sparse, st.ahead, st.steps = follows != nil, nil, nil
	}
	if follows == nil {
		return
	}
	for _, e := range c.tasks.all() {
		if follows.Has(e.task[0]) {
			continue
		}
		for _, h := range e.held {
			c.set(e.task, h.supernode, nil)
		}
	}
	m.snap.Store(&next)
	m.metrics.entries.Set(float64(next.tasks.n))
}

// maxSteps bounds the updates whose effect is remembered. Beyond it a map may
// seem to lack something, and fetch it.
const maxSteps = 4096

// step is what one update changed. A map that does not follow all shards sees
// gaps in the numbers that are none: what it lacks only the supernode's hash can
// say, also where later updates have come since. Steps turn the map back to it.
type step struct {
	seq  uint64
	sum  assignment.HashSum
	pool [32]byte // before
}

// note remembers what update seq has changed.
func (st *state) note(seq uint64, sum assignment.HashSum, pool [32]byte) {
	if !st.sparse || sum == st.sum && pool == st.poolDigest {
		return
	}
	sum.Toggle(st.sum)
	st.steps = append(st.steps, step{seq, sum, pool})
	if len(st.steps) > maxSteps {
		st.steps = slices.Delete(st.steps, 0, maxSteps/2)
	}
}

// asOf returns what the hash was before the updates behind seq.
func (st *state) asOf(seq uint64) [32]byte {
	sum, pool := st.sum, st.poolDigest
	for _, s := range slices.Backward(st.steps) {
		if s.seq > seq {
			sum.Toggle(s.sum)
			pool = s.pool
		}
	}
	return assignment.Hash(st.epoch, sum, pool)
}
