package supernode

import (
	"slices"
	"sort"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// entry is one published update. It is kept while anything in it is the latest
// word on something.
type entry struct {
	seq      uint64
	signed   assignment.Signed
	prefixes []byte // first bytes of its tasks
	kept     int    // things in it that are the latest: assigns, withdrawals, a page, the floor
	assigned int    // of these, assigns
}

type latest struct {
	entry     *entry
	withdrawn bool
	digest    [32]byte
}

type withdrawal struct {
	task content.TaskID
	seq  uint64
}

// log holds what was published and still counts, in the order of the sequence
// numbers: the latest assignment of each task, the withdrawals above the floor,
// the pages of the latest pool, and the latest floor. Its size is bounded by the
// tasks (whoever appends withdraws one before there is one too many), the pool,
// and maxWithdrawn: beyond it the oldest withdrawal is dropped, and a peer that
// missed it keeps a stale hint until the next floor. Not safe for concurrent use.
type log struct {
	supernode    peer.ID
	epoch, seq   uint64
	maxWithdrawn int

	entries   []*entry // in order of seq; those with kept == 0 await compaction
	dead      int
	byTask    map[content.TaskID]latest
	withdrawn []withdrawal // in order of seq; some may be outdated
	pages     []*entry
	floor     *entry

	all         assignment.HashSum                    // of all assignments
	assigns     [content.MaxShards]assignment.HashSum // by the first bytes of tasks
	members     []assignment.Member
	poolHash    [32]byte
	filterQuery []string
}

func newLog(supernode peer.ID, epoch uint64, maxWithdrawn int) *log {
	return &log{
		supernode: supernode, epoch: epoch, maxWithdrawn: maxWithdrawn,
		byTask: make(map[content.TaskID]latest), poolHash: assignment.PoolDigest(nil),
	}
}

// append adds the next update, which must come after all others. The pages of a
// pool must come one after another.
func (l *log) append(u assignment.Update, s assignment.Signed) {
	e := &entry{seq: u.Seq, signed: s}
	for _, a := range u.Assigns {
		if b := a.Task[0]; !slices.Contains(e.prefixes, b) {
			e.prefixes = append(e.prefixes, b)
		}
	}
	l.seq = u.Seq
	l.entries = append(l.entries, e)
	for _, a := range u.Assigns {
		l.put(a, e)
	}
	if u.Pool != nil {
		l.page(u.Pool, e)
	}
	if u.Floor > 0 {
		l.release(l.floor)
		l.floor = e
		e.kept++
		l.dropWithdrawn(func(w withdrawal) bool { return w.seq < u.Floor })
	}
	if over := len(l.withdrawn) - l.maxWithdrawn; over > 0 {
		limit := l.withdrawn[over-1].seq
		l.dropWithdrawn(func(w withdrawal) bool { return w.seq <= limit })
	}
	if e.kept == 0 {
		l.dead++
	}
	l.compact()
}

// wanted reports whether an entry has no tasks, or one of those that want names.
func (e *entry) wanted(want *content.Prefixes) bool {
	return want == nil || len(e.prefixes) == 0 || slices.ContainsFunc(e.prefixes, want.Has)
}

func (l *log) put(a assignment.Assign, e *entry) {
	if old, ok := l.byTask[a.Task]; ok {
		if !old.withdrawn {
			old.entry.assigned--
			l.toggle(a.Task, old.digest)
		}
		l.release(old.entry)
	}
	next := latest{entry: e, withdrawn: a.Lease == 0}
	e.kept++
	if next.withdrawn {
		l.withdrawn = append(l.withdrawn, withdrawal{a.Task, e.seq})
	} else {
		e.assigned++
		next.digest = assignment.EntryDigest(a)
		l.toggle(a.Task, next.digest)
	}
	l.byTask[a.Task] = next
}

func (l *log) page(p *assignment.PoolPage, e *entry) {
	if p.Page == 0 {
		for _, old := range l.pages {
			l.release(old)
		}
		l.pages, l.members, l.filterQuery = nil, nil, p.FilterQuery
	}
	e.kept++
	l.pages = append(l.pages, e)
	l.members = append(l.members, p.Members...)
	if p.Page == p.Pages-1 {
		l.poolHash = assignment.PoolDigest(l.members, l.filterQuery...)
		l.members = nil
	}
}

func (l *log) release(e *entry) {
	if e == nil {
		return
	}
	e.kept--
	if e.kept == 0 && e.seq != l.seq {
		l.dead++
	}
}

// dropWithdrawn forgets withdrawals that are outdated or that drop names.
func (l *log) dropWithdrawn(drop func(withdrawal) bool) {
	l.withdrawn = slices.DeleteFunc(l.withdrawn, func(w withdrawal) bool {
		current, ok := l.byTask[w.task]
		if !ok || !current.withdrawn || current.entry.seq != w.seq {
			return true
		}
		if !drop(w) {
			return false
		}
		delete(l.byTask, w.task)
		l.release(current.entry)
		return true
	})
}

func (l *log) compact() {
	if l.dead > 64 && l.dead > len(l.entries)/2 {
		l.entries = slices.DeleteFunc(l.entries, func(e *entry) bool { return e.kept == 0 })
		l.dead = 0
	}
}

// firstAssigned returns the number of the oldest entry that holds a live
// assignment, or the next number where none does: the floor below which nothing
// is live.
func (l *log) firstAssigned() uint64 {
	for _, e := range l.entries {
		if e.assigned > 0 {
			return e.seq
		}
	}
	return l.seq + 1
}

// hash sums up what the log says of the tasks that want names, nil for all, as of
// its last entry.
func (l *log) hash(want *content.Prefixes) [32]byte {
	if want == nil {
		return assignment.Hash(l.epoch, l.all, l.poolHash)
	}
	var sum assignment.HashSum
	for b := range l.assigns {
		if want.Has(byte(b)) {
			sum.Toggle(l.assigns[b])
		}
	}
	return assignment.Hash(l.epoch, sum, l.poolHash)
}

// toggle puts an assignment into the sums, or takes it out.
func (l *log) toggle(task content.TaskID, digest [32]byte) {
	l.all.Toggle(digest)
	l.assigns[task[0]].Toggle(digest)
}

// since returns what follows the cursor of this supernode of the tasks that want
// names, nil for all, at most maxBytes or one entry, and whether there is more. Without a cursor, or with one of an
// earlier epoch, it starts with the oldest entry that counts; for one of a later
// epoch there is nothing.
func (l *log) since(cursors []assignment.Cursor, want *content.Prefixes, maxBytes int) ([]assignment.Signed, bool) {
	var after uint64
	for _, c := range cursors {
		switch {
		case c.Supernode != l.supernode:
		case c.Epoch == l.epoch:
			after = max(after, c.Seq)
		case c.Epoch > l.epoch:
			after = l.seq
		}
	}
	first := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].seq > after })
	var out []assignment.Signed
	size := 0
	for _, e := range l.entries[first:] {
		if e.kept == 0 || !e.wanted(want) {
			continue
		}
		n := e.signed.Size()
		if len(out) > 0 && size+n > maxBytes {
			return out, true
		}
		out = append(out, e.signed)
		size += n
	}
	return out, false
}
