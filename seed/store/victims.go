package store

import (
	"cmp"
	"slices"
)

// victim is a stripe that may be evicted.
type victim[F tracked] struct {
	file   F
	stripe int64
	bytes  int64  // that are held
	first  uint64 // the class, and then the last use: what is smaller goes first
	serial uint64 // of the file
}

// Classes of stripes, shifted to where victim.first has them.
const (
	outdated uint64 = iota << 32 // of a file that the origin has no more
	foreign                      // another node owns the stripe
	own
)

// compare orders victims: who comes first goes first. Of stripes that are equal
// in all that matters the file met first, and its first stripe, goes first.
func (v *victim[F]) compare(o *victim[F]) int {
	switch {
	case v.first != o.first:
		return cmp.Compare(v.first, o.first)
	case v.serial != o.serial:
		return cmp.Compare(v.serial, o.serial)
	default:
		return cmp.Compare(v.stripe, o.stripe)
	}
}

// pick returns the stripes that go first, of at least n bytes together if there
// are so many, in order, and their bytes. It looks at every stripe that is held
// (20 ns each, and asks who owns it where that decides), but keeps only some
// more than it returns.
func (q *quota[F]) pick(n int64) ([]victim[F], int64) {
	if n <= 0 {
		return nil, 0
	}
	p := picker[F]{need: n}
	for _, f := range q.files() {
		e := f.extentOf()
		best := foreign
		if e.outdated.Load() {
			best = outdated
		}
		e.heldStripes(func(s int64, st *stripe, bytes int64) {
			if st.state.Load() != 0 {
				return
			}
			used := uint64(st.used.Load())
			v := victim[F]{file: f, stripe: s, bytes: bytes, first: best | used, serial: e.serial}
			if p.tooLate(&v) {
				return
			}
			if best == foreign && q.owned != nil && q.owned(e.key, s) {
				v.first = own | used
			}
			p.add(&v)
		})
	}
	p.cut()
	return p.list, p.bytes
}

// picker keeps the first victims of many.
type picker[F tracked] struct {
	need  int64
	list  []victim[F]
	bytes int64
	limit int // the length of list at which it is cut
	// last is the victim beyond which none is wanted, once enough is true.
	last   victim[F]
	enough bool
}

func (p *picker[F]) tooLate(v *victim[F]) bool { return p.enough && v.compare(&p.last) > 0 }

func (p *picker[F]) add(v *victim[F]) {
	if p.tooLate(v) {
		return
	}
	p.list = append(p.list, *v)
	p.bytes += v.bytes
	if p.bytes >= p.need && len(p.list) >= p.limit {
		p.cut()
		p.limit = 2*len(p.list) + 64
	}
}

// cut sorts the list and keeps what is needed.
func (p *picker[F]) cut() {
	slices.SortFunc(p.list, func(a, b victim[F]) int { return a.compare(&b) })
	p.bytes = 0
	for i, v := range p.list {
		if p.bytes += v.bytes; p.bytes >= p.need {
			p.list, p.last, p.enough = p.list[:i+1], v, true
			return
		}
	}
}
