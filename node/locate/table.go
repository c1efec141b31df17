package locate

import (
	"hash/maphash"
	"iter"
	"slices"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	// shardSlots is the number of places in a shard, a power of two; at most
	// fullShard of them are taken, so that a search ends soon, and in a table that
	// has grown meanShard on average.
	shardSlots = 64
	fullShard  = 48
	meanShard  = 24
)

// table is a persistent map of entries by task ID, in shards: what a change does
// not touch is shared between the old and the new table. A look-up touches a
// pointer, one place in a shard as a rule, and the entry: in a map of 100,000
// tasks each is a cache miss, which costs as much as a hash.
//
// put and remove make shards that carry the caller's serial, and change those of
// that serial in place: within one batch each is copied once. A table that
// readers may see must not be changed again with the serial it was made with.
type table struct {
	// seed spreads the IDs, which others may choose so that they meet.
	seed   maphash.Seed
	serial uint64
	bits   int // of the number of shards
	shards []*shard
	n      int
}

type shard struct {
	serial uint64
	n      int
	slots  [shardSlots]slot
}

// slot is a place: none is free between the one that an entry's tag names and
// the one where it is.
type slot struct {
	tag   uint64 // 0 where it is free
	entry *entry
}

func newTable() table {
	return table{seed: maphash.MakeSeed(), shards: make([]*shard, 1)}
}

// place returns the shard of a task and its tag.
func (t *table) place(id *content.TaskID) (shard int, tag uint64) {
	tag = maphash.Bytes(t.seed, id[:]) | 1
	return t.of(tag), tag
}

// of returns the shard of a tag: the first bits count it.
func (t *table) of(tag uint64) int { return int(tag >> 1 >> (63 - t.bits)) }

// find returns the place of a task, or the free one where its search ends.
func (s *shard) find(id *content.TaskID, tag uint64) *slot {
	for at := tag >> 1; ; at++ {
		p := &s.slots[at%shardSlots]
		if p.tag == 0 || p.tag == tag && p.entry.task == *id {
			return p
		}
	}
}

// get returns the entry of a task, or nil. It allocates nothing.
func (t *table) get(id content.TaskID) *entry {
	at, tag := t.place(&id)
	s := t.shards[at]
	if s == nil {
		return nil
	}
	return s.find(&id, tag).entry
}

// own returns a shard that may be changed.
func (t *table) own(at int, serial uint64) *shard {
	if t.serial != serial {
		t.shards, t.serial = slices.Clone(t.shards), serial
	}
	s := t.shards[at]
	switch {
	case s == nil:
		s = &shard{serial: serial}
	case s.serial != serial:
		c := *s
		c.serial, s = serial, &c
	}
	t.shards[at] = s
	return s
}

// put adds e, or replaces the entry of its task.
func (t *table) put(e *entry, serial uint64) {
	at, tag := t.place(&e.task)
	s := t.own(at, serial)
	p := s.find(&e.task, tag)
	if p.tag == 0 && (s.n == fullShard || t.n >= meanShard<<t.bits) {
		t.grow(serial)
		t.put(e, serial)
		return
	}
	if p.tag == 0 {
		s.n++
		t.n++
	}
	*p = slot{tag, e}
}

// grow doubles the number of shards.
func (t *table) grow(serial uint64) {
	old := t.shards
	t.bits, t.serial = t.bits+1, serial
	t.shards = make([]*shard, 1<<t.bits)
	for _, s := range old {
		if s == nil {
			continue
		}
		for _, p := range s.slots { // of one shard two: neither has more
			if p.tag != 0 {
				t.own(t.of(p.tag), serial).add(p)
			}
		}
	}
}

// add puts in a place's content that is not there yet.
func (s *shard) add(p slot) {
	*s.find(&p.entry.task, p.tag) = p
	s.n++
}

// remove takes out the entry of a task, if there is one.
func (t *table) remove(id content.TaskID, serial uint64) {
	at, tag := t.place(&id)
	if s := t.shards[at]; s == nil || s.find(&id, tag).tag == 0 {
		return
	}
	s := t.own(at, serial)
	rest := shard{serial: serial}
	for _, p := range s.slots {
		if p.tag != 0 && p.entry.task != id {
			rest.add(p)
		}
	}
	*s = rest
	t.n--
}

// entries yields them in no order.
func (t *table) entries() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, s := range t.shards {
			if s == nil {
				continue
			}
			for i := range s.slots {
				if e := s.slots[i].entry; e != nil && !yield(e) {
					return
				}
			}
		}
	}
}

// all returns the entries in the order of their IDs.
func (t *table) all() []*entry {
	return slices.SortedFunc(t.entries(), func(a, b *entry) int { return slices.Compare(a.task[:], b.task[:]) })
}
