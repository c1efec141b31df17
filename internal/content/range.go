package content

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// Range is the half-open byte range [Off, Off+Len). A Range with Len <= 0 is
// empty. Inclusive ends exist only in HTTP headers.
type Range struct{ Off, Len int64 }

// Span returns the range [from, to); empty where to <= from.
func Span(from, to int64) Range { return Range{from, max(0, to-from)} }

// End returns the first offset behind the range. A range that would pass the
// largest offset, such as one that a peer made up, ends there.
func (r Range) End() int64 {
	end := r.Off + r.Len
	if r.Len > 0 && end < r.Off {
		return math.MaxInt64
	}
	return end
}

// Empty reports whether the range holds no byte.
func (r Range) Empty() bool { return r.Len <= 0 }

// Contains reports whether every byte of o is in r; an empty o always is.
func (r Range) Contains(o Range) bool {
	return o.Empty() || r.Off <= o.Off && o.End() <= r.End()
}

// Intersect returns the bytes that are in both ranges.
func (r Range) Intersect(o Range) Range {
	from, to := max(r.Off, o.Off), min(r.End(), o.End())
	if r.Empty() || o.Empty() || to <= from {
		return Range{}
	}
	return Span(from, to)
}

// Subtract returns what is in r and not in o: none, one or two ranges, in order.
func (r Range) Subtract(o Range) []Range {
	if r.Empty() {
		return nil
	}
	both := r.Intersect(o)
	if both.Empty() {
		return []Range{r}
	}
	var out []Range
	if r.Off < both.Off {
		out = append(out, Span(r.Off, both.Off))
	}
	if both.End() < r.End() {
		out = append(out, Span(both.End(), r.End()))
	}
	return out
}

// Align grows the range outwards to multiples of unit, which must be positive.
// Its end may pass the end of a file; intersect with the file afterwards. Where
// it would pass the largest offset it ends there.
func (r Range) Align(unit int64) Range {
	if r.Empty() {
		return Range{}
	}
	from := r.Off - r.Off%unit
	to := r.End()
	if rest := to % unit; rest != 0 {
		to += min(unit-rest, math.MaxInt64-to)
	}
	return Span(from, to)
}

// String returns the range as [off,end).
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Off, r.End()) }

// Set is a set of bytes: sorted, disjoint, not touching, non-empty ranges. The
// zero value is the empty set. Not safe for concurrent use.
type Set struct{ ranges []Range }

// Add puts the bytes of r into the set.
func (s *Set) Add(r Range) {
	if r.Empty() {
		return
	}
	i, _ := slices.BinarySearchFunc(s.ranges, r.Off, func(x Range, off int64) int {
		if x.End() < off {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(s.ranges) && s.ranges[j].Off <= r.End(); j++ {
		r = Span(min(r.Off, s.ranges[j].Off), max(r.End(), s.ranges[j].End()))
	}
	s.ranges = slices.Replace(s.ranges, i, j, r)
}

// Remove takes the bytes of r out of the set.
func (s *Set) Remove(r Range) {
	var out []Range
	for _, x := range s.ranges {
		out = append(out, x.Subtract(r)...)
	}
	s.ranges = out
}

// Missing returns the parts of r that are not in the set, in order.
func (s *Set) Missing(r Range) []Range {
	var out []Range
	rest := r
	for _, x := range s.ranges {
		if rest.Empty() {
			return out
		}
		if x.Off > rest.Off {
			if gap := rest.Intersect(Span(rest.Off, x.Off)); !gap.Empty() {
				out = append(out, gap)
			}
		}
		if x.End() > rest.Off {
			rest = Span(x.End(), rest.End())
		}
	}
	if !rest.Empty() {
		out = append(out, rest)
	}
	return out
}

// Contains reports whether every byte of r is in the set.
func (s *Set) Contains(r Range) bool { return r.Empty() || len(s.Missing(r)) == 0 }

// Len returns the number of bytes in the set.
func (s *Set) Len() int64 {
	var n int64
	for _, r := range s.ranges {
		n += r.Len
	}
	return n
}

// All yields the ranges of the set in order.
func (s *Set) All() iter.Seq[Range] { return slices.Values(s.ranges) }

// Sizes of the units that a file is cut into.
const (
	// LeafSize is the unit of verification: 16 BLAKE3 chunks of 1 KiB.
	LeafSize = 16 << 10
	// BlockSize is the unit of signature and storage.
	BlockSize = 1 << 20
	// LeavesPerBlock is the number of leaves of a full block.
	LeavesPerBlock = BlockSize / LeafSize
)

// Layout cuts a file of Size bytes into blocks and stripes.
type Layout struct{ Size int64 }

// Stripe returns the stripe size in bytes: 1 MiB up to a file of 256 MiB,
// 2 MiB up to 2 GiB, 4 MiB above. It is a multiple of BlockSize.
func (l Layout) Stripe() int64 {
	switch {
	case l.Size <= 256<<20:
		return 1 << 20
	case l.Size <= 2<<30:
		return 2 << 20
	default:
		return 4 << 20
	}
}

// Blocks returns the number of blocks; the last may be short.
func (l Layout) Blocks() int64 { return count(l.Size, BlockSize) }

// Block returns the bytes of block i, empty where there is no such block.
func (l Layout) Block(i int64) Range { return l.part(i, BlockSize) }

// StripeOf returns the index of the stripe that holds offset off.
func (l Layout) StripeOf(off int64) int64 { return off / l.Stripe() }

// StripeRange returns the bytes of stripe s, empty where there is no such
// stripe.
func (l Layout) StripeRange(s int64) Range { return l.part(s, l.Stripe()) }

// part returns the bytes of the i-th part of unit bytes. An index that a peer
// made up must not wrap round to a part that exists.
func (l Layout) part(i, unit int64) Range {
	if i < 0 || i >= count(l.Size, unit) {
		return Range{}
	}
	return Range{i * unit, unit}.Intersect(Range{0, l.Size})
}

// count returns how many parts of unit bytes hold size bytes.
func count(size, unit int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/unit + 1
}

// Stripes yields, in order, the part of r that lies in each stripe it touches.
func (l Layout) Stripes(r Range) iter.Seq2[int64, Range] {
	return func(yield func(int64, Range) bool) {
		r := r.Intersect(Range{0, l.Size})
		for !r.Empty() {
			s := l.StripeOf(r.Off)
			part := r.Intersect(l.StripeRange(s))
			if !yield(s, part) {
				return
			}
			r = Span(part.End(), r.End())
		}
	}
}

// BlockSpan returns the indices [first, end) of the blocks that r touches.
func BlockSpan(r Range) (first, end int64) {
	if r.Empty() {
		return 0, 0
	}
	return r.Off / BlockSize, count(r.End(), BlockSize)
}
