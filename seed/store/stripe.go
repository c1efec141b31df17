package store

import (
	"runtime"
	"sync/atomic"

	"github.com/p2pnode/p2pnode/internal/content"
)

// stripe is the state of the unit of eviction.
type stripe struct {
	// state counts the leases in its low bits; above them are two flags. A
	// stripe is evicted only from 0, that is, by who swaps 0 for evicting.
	state atomic.Uint32
	used  atomic.Uint32 // the clock of the last read or write; 0 for none
}

const (
	pinned   = 1 << 30
	evicting = 1 << 31
)

// acquire takes a lease. When it returns, no block goes from the stripe by
// eviction until the release.
func (s *stripe) acquire() {
	if s.state.Add(1)&evicting != 0 {
		s.settle()
	}
}

func (s *stripe) release() { s.state.Add(^uint32(0)) }

// settle waits for an eviction to have cleared the bits of its blocks, which
// takes no I/O and no lock.
func (s *stripe) settle() {
	for s.state.Load()&evicting != 0 {
		runtime.Gosched()
	}
}

// seize reports whether nobody uses or has pinned the stripe, and keeps it so
// until unseize. Others wait actively meanwhile.
func (s *stripe) seize() bool { return s.state.CompareAndSwap(0, evicting) }

func (s *stripe) unseize() { s.state.And(^uint32(evicting)) }

// pin sets or clears the flag and reports whether it was otherwise before.
func (s *stripe) pin(on bool) bool {
	if !on {
		return s.state.And(^uint32(pinned))&pinned != 0
	}
	old := s.state.Or(pinned)
	if old&evicting != 0 {
		s.settle()
	}
	return old&pinned == 0
}

func (s *stripe) isPinned() bool { return s.state.Load()&pinned != 0 }

// stripe returns the state of stripe s, which must be in the file.
func (e *extent) stripe(s int64) (*page, *stripe) {
	i := s << e.shift
	p := e.page(i)
	return p, &p.stripes[i%pageBlocks>>e.shift]
}

// Lease keeps stripes from being evicted: what is held of them stays until
// Release, unless it is dropped or deleted by name or found corrupt. The zero
// Lease keeps nothing. Not safe for concurrent use.
type Lease struct {
	e          *extent
	first, end int64
}

// Release ends the lease. It may be called more than once.
func (l *Lease) Release() {
	for s := l.first; s < l.end; s++ {
		_, st := l.e.stripe(s)
		st.release()
	}
	*l = Lease{}
}

// lease takes a lease on the stripes of r.
func (e *extent) lease(r content.Range, now uint32) Lease {
	if e.wanted.Load() != now {
		e.wanted.Store(now)
	}
	first, end := e.stripesOf(r)
	for s := first; s < end; s++ {
		_, st := e.stripe(s)
		st.acquire()
	}
	return Lease{e, first, end}
}

// use takes a lease on stripe s and counts it as a use.
func (e *extent) use(s int64, now uint32) *stripe {
	p, st := e.stripe(s)
	st.acquire()
	if st.used.Load() != now {
		st.used.Store(now)
		if !p.touched.Load() {
			p.touched.Store(true)
		}
	}
	return st
}

// idle reports whether nobody holds a lease on the file or has pinned a part of
// it, and no block of it is held.
func (e *extent) idle() bool {
	if e.Count() != 0 {
		return false
	}
	for at := range e.pages {
		if p := e.pages[at].Load(); p != nil {
			for s := range p.stripes {
				if p.stripes[s].state.Load() != 0 {
					return false
				}
			}
		}
	}
	return true
}

// unpinned returns the bytes, held or not, of those stripes of [first, end) that
// are not pinned; it stops counting above limit.
func (e *extent) unpinned(first, end, limit int64) (bytes int64) {
	for s := first; s < end && bytes <= limit; s++ {
		if p := e.pages[s<<e.shift/pageBlocks].Load(); p != nil && p.stripes[s<<e.shift%pageBlocks>>e.shift].isPinned() {
			continue
		}
		bytes += e.layout.StripeRange(s).Len
	}
	return bytes
}

// run is the stripes [first, end).
type run struct{ first, end int64 }

// pin sets or clears the pins of the stripes [first, end) and returns those that
// were otherwise before.
func (e *extent) pin(first, end int64, on bool) (changed []run) {
	for s := first; s < end; s++ {
		if p := e.pages[s<<e.shift/pageBlocks].Load(); p == nil && !on {
			continue
		}
		if _, st := e.stripe(s); st.pin(on) {
			changed = appendRun(changed, s)
		}
	}
	return changed
}

// pins returns the pinned stripes.
func (e *extent) pins() (out []run) {
	for at := range e.pages {
		if p := e.pages[at].Load(); p != nil {
			for k := range p.stripes {
				if p.stripes[k].isPinned() {
					out = appendRun(out, int64(at*pageBlocks>>e.shift+k))
				}
			}
		}
	}
	return out
}

func appendRun(runs []run, s int64) []run {
	if n := len(runs); n > 0 && runs[n-1].end == s {
		runs[n-1].end++
		return runs
	}
	return append(runs, run{s, s + 1})
}

// bytesIn returns the bytes of runs, held or not.
func (e *extent) bytesIn(runs []run) (n int64) {
	for _, r := range runs {
		for s := r.first; s < r.end; s++ {
			n += e.layout.StripeRange(s).Len
		}
	}
	return n
}
