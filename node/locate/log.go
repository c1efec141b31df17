package locate

import (
	"slices"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// maxLogBytes bounds the signed updates that are kept for serving fetch, over
// all of one supernode's. Beyond it the oldest are no longer served; what they
// said stays in the map.
const maxLogBytes = 64 << 20

// record is one signed update and what of the map still rests on it.
type record struct {
	seq    uint64
	signed assignment.Signed // empty where it is not served any more
	tasks  []content.TaskID  // that it assigned or withdrew
	size   int               // bytes it takes to serve; 0 where it is not
	refs   int
}

// log holds the updates of one supernode and epoch that something in the map
// still rests on, in the order of their numbers.
type log struct {
	records map[uint64]*record
	order   []uint64 // ascending; numbers without a record are leftovers
	bytes   int
	trimmed int // index into order: what is before it is not served
}

// record returns the record of an update: the one that is there, or a new one
// that is not yet in the log.
func (l *log) record(s assignment.Signed, u assignment.Update) *record {
	if r := l.records[u.Seq]; r != nil {
		return r
	}
	r := &record{seq: u.Seq, signed: s, size: s.Size()}
	for _, a := range u.Assigns {
		r.tasks = append(r.tasks, a.Task)
	}
	return r
}

// hold adds one reference to r, and r to the log with the first one.
func (l *log) hold(r *record) {
	r.refs++
	if r.refs > 1 {
		return
	}
	if l.records == nil {
		l.records = make(map[uint64]*record)
	}
	l.records[r.seq] = r
	l.bytes += r.size
	if n := len(l.order); n == 0 || l.order[n-1] < r.seq {
		l.order = append(l.order, r.seq)
	} else if i, found := slices.BinarySearch(l.order, r.seq); !found {
		l.order = slices.Insert(l.order, i, r.seq)
		if i < l.trimmed {
			l.trimmed++
		}
	}
	for ; l.bytes > maxLogBytes && l.trimmed < len(l.order); l.trimmed++ {
		if old := l.records[l.order[l.trimmed]]; old != nil {
			l.bytes -= old.size
			old.signed, old.size = assignment.Signed{}, 0
		}
	}
}

// release takes one reference off r, and r out of the log with the last one.
func (l *log) release(r *record) {
	r.refs--
	if r.refs > 0 || l.records[r.seq] != r {
		return
	}
	delete(l.records, r.seq)
	l.bytes -= r.size
	if len(l.order) > 2*len(l.records)+64 {
		l.order = slices.DeleteFunc(l.order, func(seq uint64) bool { return l.records[seq] == nil })
		l.trimmed = 0
	}
}

// wanted reports whether a record has no tasks, or one of those that want names.
func (r *record) wanted(want *content.Prefixes) bool {
	return want == nil || len(r.tasks) == 0 || slices.ContainsFunc(r.tasks, func(t content.TaskID) bool { return want.Has(t[0]) })
}

// since appends what is wanted and comes after seq to dst, at least one entry where there is
// any, until maxBytes are used up; it returns the bytes left, and whether more
// was there.
func (l *log) since(dst []assignment.Signed, seq uint64, want *content.Prefixes, left int) ([]assignment.Signed, int, bool) {
	first, found := slices.BinarySearch(l.order, seq)
	if found {
		first++
	}
	for _, n := range l.order[first:] {
		r := l.records[n]
		if r == nil || r.size == 0 || !r.wanted(want) {
			continue
		}
		if r.size > left && len(dst) > 0 {
			return dst, left, true
		}
		left -= r.size
		dst = append(dst, r.signed)
	}
	return dst, left, false
}

// below yields the records with a number under seq to f.
func (l *log) below(seq uint64, f func(*record)) {
	var hit []*record // f may change the log
	for _, n := range l.order {
		if n >= seq {
			break
		}
		if r := l.records[n]; r != nil {
			hit = append(hit, r)
		}
	}
	for _, r := range hit {
		f(r)
	}
}
