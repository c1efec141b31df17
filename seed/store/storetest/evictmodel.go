package storetest

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// testEvictionModel does random operations on a small store, restarts and kills
// it, beside a model that knows each stripe's state. It checks of every eviction
// that there was need for it, that the stripe could go, and that none had to go
// before it; and of every refusal that nothing could go.
func testEvictionModel(t *testing.T, h Harness) {
	evictions, refusals := 0, 0
	for seed := range uint64(8) {
		m := newEvictionModel(t, h, seed)
		for range 250 {
			m.step()
			if t.Failed() {
				t.Fatalf("with seed %d", seed)
			}
		}
		evictions, refusals = evictions+m.evictions, refusals+m.refusals
	}
	if evictions < 120 || refusals < 20 {
		t.Errorf("only %d evictions and %d refusals", evictions, refusals)
	}
}

const modelCapacity = 12 * mib

type evictionModel struct {
	t     *testing.T
	h     Harness
	s     store.Store
	rng   *rand.Rand
	clock *clock
	files []*modelFile
	told  []toldEviction

	evictions, refusals int
}

type modelFile struct {
	*TestFile
	blocks   []int64 // that are used in the test
	held     map[int64]bool
	stripes  map[int64]*modelStripe
	touched  bool // a stripe was used since the times were written
	outdated bool
}

type modelStripe struct {
	used   int64
	saved  int64 // what used was when the times were written
	pinned bool
	leases []store.Lease
}

type toldEviction struct {
	key    store.Key
	stripe int64
	whole  bool
}

func newEvictionModel(t *testing.T, h Harness, seed uint64) *evictionModel {
	m := &evictionModel{t: t, h: h, rng: rand.New(rand.NewPCG(seed, 3)), clock: newClock()}
	for k, f := range []*TestFile{NewFile(60, 5*mib), NewFile(61, 4*mib+77), NewFile(62, 20*mib), NewLargeFile(63, 3<<30)} {
		mf := &modelFile{TestFile: f, held: map[int64]bool{}, stripes: map[int64]*modelStripe{}}
		for i := range min(f.Blocks(), 14) {
			mf.blocks = append(mf.blocks, i)
		}
		if k == 3 {
			mf.blocks = append(mf.blocks, f.Blocks()-1)
		}
		for _, i := range mf.blocks {
			mf.stripes[mf.stripeOf(i)] = &modelStripe{}
		}
		m.files = append(m.files, mf)
	}
	m.s = h.Open(t, Options{
		Capacity: modelCapacity, Owned: modelOwned, Now: m.clock.now,
		Evicted: func(key store.Key, stripe int64, whole bool) {
			m.told = append(m.told, toldEviction{key, stripe, whole})
		},
	})
	for _, f := range m.files {
		f.Create(t, m.s)
	}
	return m
}

func modelOwned(key store.Key, stripe int64) bool { return (int64(key.Task[0])+stripe)%2 == 0 }

func (f *modelFile) stripeOf(i int64) int64 { return f.Info.Layout().StripeOf(i * mib) }

func (f *modelFile) use(s, now int64) {
	f.touched = f.touched || f.stripes[s].used != now
	f.stripes[s].used = now
}

// save writes the times of use, which are all in one page.
func (f *modelFile) save() {
	if !f.touched {
		return
	}
	f.touched = false
	for _, st := range f.stripes {
		st.saved = st.used
	}
}

// bytesOf returns the bytes held of stripe s.
func (f *modelFile) bytesOf(s int64) (n int64) {
	for i := range f.held {
		if f.stripeOf(i) == s {
			n += f.Info.Layout().Block(i).Len
		}
	}
	return n
}

func (m *evictionModel) used() (n int64) {
	for _, f := range m.files {
		for i := range f.held {
			n += f.Info.Layout().Block(i).Len
		}
	}
	return n
}

// pinned returns the bytes of all pinned stripes.
func (m *evictionModel) pinned() (n int64) {
	for _, f := range m.files {
		n += f.pinned()
	}
	return n
}

func (f *modelFile) pinned() (n int64) {
	for s, st := range f.stripes {
		if st.pinned {
			n += f.Info.Layout().StripeRange(s).Len
		}
	}
	return n
}

// before compares what decides which of two stripes goes first.
func (m *evictionModel) before(f *modelFile, s int64, g *modelFile, r int64) bool {
	return cmp.Or(cmp.Compare(f.class(s), g.class(r)), cmp.Compare(f.stripes[s].used, g.stripes[r].used)) < 0
}

func (f *modelFile) class(s int64) int {
	switch {
	case f.outdated:
		return 0
	case !modelOwned(f.Key, s):
		return 1
	default:
		return 2
	}
}

func (f *modelFile) canGo(s int64) bool {
	st := f.stripes[s]
	return !st.pinned && len(st.leases) == 0 && f.bytesOf(s) > 0
}

func (m *evictionModel) step() {
	m.clock.advance(time.Duration(m.rng.IntN(3)) * time.Second)
	now := m.clock.seconds.Load()
	f := m.files[m.rng.IntN(len(m.files))]
	i := f.blocks[m.rng.IntN(len(f.blocks))]
	st := f.stripes[f.stripeOf(i)]
	file := open(m.t, m.s, f.Key)
	switch op := m.rng.IntN(32); {
	case op == 0 && m.h.Reopen != nil && m.rng.IntN(3) == 0:
		m.reopen()
	case op > 29:
		maintain(m.t, m.s)
		for _, f := range m.files {
			f.save()
		}
	case op < 12:
		m.write(f, file, i, now)
	case op < 18:
		m.read(f, file, i, now)
	case op == 18:
		if err := file.Drop(i); err != nil {
			m.t.Error(err)
		}
		delete(f.held, i)
	case op == 19:
		f.outdated = m.rng.IntN(3) == 0
		file.Outdate(f.outdated)
	case op == 20:
		m.pin(f, file, i)
	case op == 21:
		if err := file.Unpin(blockRange(i)); err != nil {
			m.t.Error(err)
		}
		st.pinned = false
	case op < 29:
		st.leases = append(st.leases, file.Lease(blockRange(i)))
	default:
		m.release()
	}
	m.compare()
}

// release ends about half of all leases.
func (m *evictionModel) release() {
	for _, f := range m.files {
		for _, i := range f.blocks {
			st := f.stripes[f.stripeOf(i)]
			for len(st.leases) > 0 && m.rng.IntN(2) == 0 {
				st.leases[0].Release()
				st.leases = st.leases[1:]
			}
		}
	}
}

// reopen ends the store, well or by a kill, and opens it again: leases and what
// is outdated are forgotten, and of stripes whose last use was not written it is
// taken to be now.
func (m *evictionModel) reopen() {
	again, kill := m.h.Reopen, m.rng.IntN(2) == 0
	if kill {
		again = m.h.Kill
	}
	for _, f := range m.files {
		if !kill {
			f.save()
		}
		f.touched = false
		for _, st := range f.stripes {
			for k := range st.leases {
				st.leases[k].Release()
			}
			st.leases = nil
			st.used = st.saved
		}
		for i := range f.held {
			if st := f.stripes[f.stripeOf(i)]; st.used == 0 {
				st.used = m.clock.seconds.Load()
			}
		}
		f.outdated = false
	}
	m.s = again(m.t, m.s)
}

func (m *evictionModel) pin(f *modelFile, file store.File, i int64) {
	s := f.stripeOf(i)
	n := f.Info.Layout().StripeRange(s).Len
	fits := f.stripes[s].pinned || m.pinned()+n <= modelCapacity*3/4
	if !fits && m.pinned()+n <= modelCapacity {
		return // leave room for the others
	}
	err := file.Pin(blockRange(i))
	if fits != (err == nil) || err != nil && !errors.Is(err, store.ErrFull) {
		m.t.Errorf("pin stripe %d beside %d bytes: %v", s, m.pinned(), err)
	}
	f.stripes[s].pinned = fits
}

func (m *evictionModel) read(f *modelFile, file store.File, i, now int64) {
	n := int64(1 + m.rng.IntN(2))
	r := content.Range{Off: i*mib + m.rng.Int64N(f.Info.Layout().Block(i).Len), Len: n * mib}
	r = r.Intersect(content.Range{Len: f.Info.Size})
	all := true
	for b := r.Off / mib; b <= (r.End()-1)/mib; b++ {
		if f.stripes[f.stripeOf(b)] == nil {
			return // none that the test uses
		}
		all = all && f.held[b]
	}
	for b, there := r.Off/mib, true; there && b <= (r.End()-1)/mib; b++ { // to the first that is missing
		f.use(f.stripeOf(b), now)
		there = f.held[b]
	}
	if err := file.ReadAt(make([]byte, r.Len), r.Off, m.rng.IntN(2) == 0); all != (err == nil) {
		m.t.Errorf("read %v, all held %t: %v", r, all, err)
	}
	if part := content.Span(r.Off, min(r.End(), (i+1)*mib)); all {
		f.Want(m.t, file, part.Off, int(part.Len), true)
	}
}

// write writes a block and judges the evictions.
func (m *evictionModel) write(f *modelFile, file store.File, i, now int64) {
	s, n, held := f.stripeOf(i), f.Info.Layout().Block(i).Len, f.held[i]
	f.use(s, now)
	missing := m.used() + n - modelCapacity
	m.told = nil
	err := f.tryWrite(file, i)
	if err != nil && !errors.Is(err, store.ErrFull) {
		m.t.Fatal(err)
	}
	if (held || missing <= 0) && (err != nil || len(m.told) > 0) {
		m.t.Errorf("held %t, %d bytes missing: %v, evicted %v", held, missing, err, m.told)
	}
	if held {
		return
	}
	if err != nil {
		m.refused(f, s, missing)
		return
	}
	m.judge(f, s, missing)
	f.held[i] = true
}

// refused checks that the stripes that could go are not enough.
func (m *evictionModel) refused(writing *modelFile, s, missing int64) {
	m.refusals++
	var there int64
	for _, f := range m.files {
		for r := range f.stripes {
			if f.canGo(r) && (f != writing || r != s) {
				there += f.bytesOf(r)
			}
		}
	}
	if there >= missing || len(m.told) > 0 {
		m.t.Errorf("refused a block for which %d bytes are missing, where %d can go; evicted %v", missing, there, m.told)
	}
}

// judge checks evictions and takes them over.
func (m *evictionModel) judge(writing *modelFile, s, missing int64) {
	spare := (modelCapacity - m.pinned()) / 20
	for _, e := range m.told {
		m.evictions++
		f := m.files[e.key.Task[0]-60]
		if missing+spare <= 0 {
			m.t.Errorf("evicted %v without need", e)
		}
		if !f.canGo(e.stripe) || f == writing && e.stripe == s {
			m.t.Errorf("evicted %v, which is in use or empty", e)
			return
		}
		for _, g := range m.files {
			for r := range g.stripes {
				if g.canGo(r) && (g != writing || r != s) && m.before(g, r, f, e.stripe) {
					m.t.Errorf("evicted %v (class %d, used at %d) before %d:%d (class %d, used at %d)", e, f.class(e.stripe),
						f.stripes[e.stripe].used, g.Key.Task[0], r, g.class(r), g.stripes[r].used)
				}
			}
		}
		missing -= f.bytesOf(e.stripe)
		for _, i := range f.blocks {
			if f.stripeOf(i) == e.stripe {
				delete(f.held, i)
			}
		}
		if e.whole != (len(f.held) == 0) {
			m.t.Errorf("%v with %d blocks left", e, len(f.held))
		}
	}
	if missing > 0 {
		m.t.Errorf("%d bytes too few were evicted", missing)
	}
}

func (m *evictionModel) compare() {
	for _, f := range m.files {
		file := open(m.t, m.s, f.Key)
		for _, i := range f.blocks {
			if file.Has(i) != f.held[i] {
				m.t.Errorf("block %d of file %d: held %t, want %t", i, f.Key.Task[0], file.Has(i), f.held[i])
			}
		}
		if file.Count() != int64(len(f.held)) || file.Outdated() != f.outdated || file.Pinned() != f.pinned() {
			m.t.Errorf("file %d: count %d, want %d; outdated %t, want %t; pinned %d, want %d", f.Key.Task[0],
				file.Count(), len(f.held), file.Outdated(), f.outdated, file.Pinned(), f.pinned())
		}
	}
	if used := m.used(); m.s.Used() != used || m.s.Free() != modelCapacity-used || m.s.Pinned() != m.pinned() {
		m.t.Errorf("used %d, want %d of %d; free %d; pinned %d, want %d",
			m.s.Used(), used, int64(modelCapacity), m.s.Free(), m.s.Pinned(), m.pinned())
	}
}
