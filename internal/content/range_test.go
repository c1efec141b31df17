package content

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// small returns a range in a universe of 64 offsets, empty now and then.
func small(r *rand.Rand) Range { return Range{r.Int64N(50), r.Int64N(16) - 1} }

// bits is the model of a set of offsets below 64.
func bitsOf(ranges ...Range) (b uint64) {
	for _, r := range ranges {
		for i := r.Off; i < r.End(); i++ {
			b |= 1 << i
		}
	}
	return b
}

func TestRangeAlgebraAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		a, b := small(rnd), small(rnd)
		both, rest := a.Intersect(b), a.Subtract(b)
		if bitsOf(both) != bitsOf(a)&bitsOf(b) {
			t.Fatalf("%v ∩ %v = %v", a, b, both)
		}
		if bitsOf(rest...) != bitsOf(a)&^bitsOf(b) {
			t.Fatalf("%v \\ %v = %v", a, b, rest)
		}
		n := max(both.Len, 0)
		for i, r := range rest {
			if r.Empty() || i > 0 && rest[i-1].End() >= r.Off {
				t.Fatalf("%v \\ %v = %v: empty, out of order or touching", a, b, rest)
			}
			n += r.Len
		}
		if n != max(a.Len, 0) {
			t.Fatalf("%v: the parts by %v hold %d bytes", a, b, n)
		}
		if got, want := a.Contains(b), bitsOf(b)&^bitsOf(a) == 0; got != want {
			t.Fatalf("%v contains %v: %t", a, b, got)
		}
	}
}

func TestAlign(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		r, unit := Range{rnd.Int64N(1000), rnd.Int64N(100)}, rnd.Int64N(40)+1
		a := r.Align(unit)
		if r.Empty() {
			if !a.Empty() {
				t.Fatalf("%v aligned to %d = %v", r, unit, a)
			}
			continue
		}
		if a.Off%unit != 0 || a.End()%unit != 0 || !a.Contains(r) || r.Off-a.Off >= unit || a.End()-r.End() >= unit {
			t.Fatalf("%v aligned to %d = %v", r, unit, a)
		}
	}
}

func TestRangeAtTheLargestOffset(t *testing.T) {
	open := Range{10, math.MaxInt64}
	file := Range{0, 100}
	if got := open.End(); got != math.MaxInt64 {
		t.Errorf("End = %d", got)
	}
	if got := open.Intersect(file); got != (Range{10, 90}) {
		t.Errorf("Intersect = %v", got)
	}
	if got := file.Subtract(open); !slices.Equal(got, []Range{{0, 10}}) {
		t.Errorf("Subtract = %v", got)
	}
	if got := open.Align(4096); got != Span(0, math.MaxInt64) {
		t.Errorf("Align = %v", got)
	}
	if !open.Contains(Range{50, 50}) {
		t.Error("an open range does not contain its part")
	}
	if first, end := BlockSpan(open); first != 0 || end != math.MaxInt64/BlockSize+1 {
		t.Errorf("BlockSpan = %d, %d", first, end)
	}
}

func TestSetAgainstBitmap(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		var s Set
		var model uint64
		for step := range 60 {
			r := small(rnd)
			if rnd.IntN(3) == 0 {
				s.Remove(r)
				model &^= bitsOf(r)
			} else {
				s.Add(r)
				model |= bitsOf(r)
			}
			got := slices.Collect(s.All())
			if bitsOf(got...) != model {
				t.Fatalf("seed %d step %d: set %v, model %b", seed, step, got, model)
			}
			var n int64
			for i, x := range got {
				if x.Empty() || i > 0 && got[i-1].End() >= x.Off {
					t.Fatalf("seed %d step %d: %v is empty, out of order or touching", seed, step, got)
				}
				n += x.Len
			}
			if s.Len() != n {
				t.Fatalf("seed %d step %d: Len %d, want %d", seed, step, s.Len(), n)
			}
			q := small(rnd)
			missing := s.Missing(q)
			if bitsOf(missing...) != bitsOf(q)&^model || s.Contains(q) != (bitsOf(q)&^model == 0) {
				t.Fatalf("seed %d step %d: %v misses %v of %v", seed, step, got, missing, q)
			}
			if !slices.IsSortedFunc(missing, func(a, b Range) int { return int(a.Off - b.Off) }) {
				t.Fatalf("seed %d step %d: missing %v out of order", seed, step, missing)
			}
		}
	}
}

func TestLayoutSizes(t *testing.T) {
	for _, tc := range []struct{ size, stripe, blocks int64 }{
		{0, 1 << 20, 0},
		{-1, 1 << 20, 0},
		{1, 1 << 20, 1},
		{BlockSize, 1 << 20, 1},
		{BlockSize + 1, 1 << 20, 2},
		{256 << 20, 1 << 20, 256},
		{256<<20 + 1, 2 << 20, 257},
		{2 << 30, 2 << 20, 2048},
		{2<<30 + 1, 4 << 20, 2049},
		{math.MaxInt64, 4 << 20, 1 << 43},
	} {
		l := Layout{tc.size}
		if l.Stripe() != tc.stripe || l.Blocks() != tc.blocks {
			t.Errorf("size %d: stripe %d, blocks %d; want %d, %d", tc.size, l.Stripe(), l.Blocks(), tc.stripe, tc.blocks)
		}
		if l.Stripe()%BlockSize != 0 {
			t.Errorf("size %d: a stripe of %d is not whole blocks", tc.size, l.Stripe())
		}
	}
}

// An index off the wire must not wrap round to bytes of the file.
func TestLayoutNoSuchPart(t *testing.T) {
	l := Layout{10 << 20}
	for _, i := range []int64{-1, 10, 1 << 43, 1 << 44, math.MinInt64, math.MaxInt64} {
		if r := l.Block(i); !r.Empty() {
			t.Errorf("block %d is %v", i, r)
		}
		if r := l.StripeRange(i); !r.Empty() {
			t.Errorf("stripe %d is %v", i, r)
		}
	}
	if r := l.Block(9); r != (Range{9 << 20, 1 << 20}) {
		t.Errorf("block 9 is %v", r)
	}
}

func TestStripesCoverExactly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 7))
	for range 2_000 {
		size := []int64{0, 1, 5<<20 + 17, 300<<20 + 3, 3 << 30}[rnd.IntN(5)]
		l := Layout{size}
		r := Range{rnd.Int64N(size + 10), rnd.Int64N(20 << 20)}
		want := r.Intersect(Range{0, size})
		at, n := want.Off, int64(0)
		for s, part := range l.Stripes(r) {
			if part.Empty() || part.Off != at || l.StripeOf(part.Off) != s || !l.StripeRange(s).Contains(part) {
				t.Fatalf("size %d, %v: stripe %d has %v, expected to begin at %d", size, r, s, part, at)
			}
			at = part.End()
			n += part.Len
		}
		if n != want.Len {
			t.Fatalf("size %d, %v: stripes cover %d of %d bytes", size, r, n, want.Len)
		}
	}
	for range (Layout{5 << 20}).Stripes(Range{0, 5 << 20}) {
		break // an iterator that goes on after this panics
	}
}

func TestBlockSpan(t *testing.T) {
	for _, tc := range []struct {
		r          Range
		first, end int64
	}{
		{Range{}, 0, 0},
		{Range{5, 0}, 0, 0},
		{Range{0, 1}, 0, 1},
		{Range{0, BlockSize}, 0, 1},
		{Range{0, BlockSize + 1}, 0, 2},
		{Range{BlockSize - 1, 2}, 0, 2},
		{Range{BlockSize, BlockSize}, 1, 2},
		{Range{3*BlockSize + 7, 4 * BlockSize}, 3, 8},
	} {
		if first, end := BlockSpan(tc.r); first != tc.first || end != tc.end {
			t.Errorf("%v touches blocks [%d,%d), want [%d,%d)", tc.r, first, end, tc.first, tc.end)
		}
	}
}

func TestMetaLayout(t *testing.T) {
	if got := (Meta{Size: 42}).Layout(); got.Size != 42 {
		t.Errorf("layout of size %d", got.Size)
	}
}
