package read

import (
	"math/rand/v2"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name       string
		size       int64
		want       content.Range
		pos, asked int64
		next       content.Range
	}{
		{"nothing wanted", 10 * mib, content.Range{}, 0, 0, content.Range{}},
		{"small file", 100, content.Range{Len: 100}, 0, 0, content.Range{Len: 100}},
		{"one byte", 100 * mib, content.Range{Off: 50 * mib, Len: 1}, 50 * mib, 50 * mib, content.Range{Off: 50 * mib, Len: 1}},
		{"start of a file", 100 * mib, content.Range{Len: 100 * mib}, 0, 0, content.Range{Len: Ahead + mib}},
		{"start inside a stripe", 100 * mib, content.Range{Off: 5, Len: 90 * mib}, 5, 5, content.Range{Off: 5, Len: Ahead + mib - 5}},
		{"enough is on its way", 100 * mib, content.Range{Len: 100 * mib}, 3, Ahead + mib, content.Range{}},
		{"a stripe further", 100 * mib, content.Range{Len: 100 * mib}, 2 * mib, Ahead + mib, content.Range{Off: Ahead + mib, Len: 2 * mib}},
		{"large stripes", 3 * gib, content.Range{Len: 3 * gib}, 0, 0, content.Range{Len: Ahead + 4*mib}},
		{"end of the want", 100 * mib, content.Range{Len: 9*mib + 7}, 4 * mib, 9 * mib, content.Range{Off: 9 * mib, Len: 7}},
		{"all asked for", 100 * mib, content.Range{Len: 9 * mib}, 4 * mib, 9 * mib, content.Range{}},
		{"end of the file", 9*mib + 5, content.Range{Len: 9*mib + 5}, 8 * mib, 9 * mib, content.Range{Off: 9 * mib, Len: 5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Plan(tc.want, tc.pos, tc.asked, content.Layout{Size: tc.size}); got != tc.next && !(got.Empty() && tc.next.Empty()) {
				t.Errorf("Plan(%s, %d, %d) = %s, want %s", tc.want, tc.pos, tc.asked, got, tc.next)
			}
		})
	}
}

// TestPlanCoversTheWant: whatever the file, the range and the steps of the
// reader, the windows cover the range exactly once, in order; they end on
// stripes or at the range's end, are there before the reader is, and lead him by
// no more than Ahead and one stripe.
func TestPlanCoversTheWant(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		size := 1 + r.Int64N([]int64{100, 3 * mib, 300 * mib, 5 * gib}[r.IntN(4)])
		l := content.Layout{Size: size}
		want := content.Range{Off: r.Int64N(size)}
		want.Len = 1 + r.Int64N(min(size-want.Off, 64*mib))
		pos, asked := want.Off, want.Off
		for pos < want.End() {
			next := Plan(want, pos, asked, l)
			if !next.Empty() {
				if next.Off != asked {
					t.Fatalf("window %s after byte %d", next, asked)
				}
				if next.End() != want.End() && next.End()%l.Stripe() != 0 {
					t.Fatalf("window %s of %s ends inside a stripe", next, want)
				}
				asked = next.End()
			}
			if asked <= pos {
				t.Fatalf("nothing is on its way at byte %d of %s", pos, want)
			}
			if asked > want.End() || asked-pos > Ahead+l.Stripe() {
				t.Fatalf("asked up to %d for %s at byte %d", asked, want, pos)
			}
			if asked < want.End() && asked-pos <= Ahead-l.Stripe() {
				t.Fatalf("only %d bytes on their way", asked-pos)
			}
			pos += 1 + r.Int64N(min(asked-pos, 2*mib))
		}
		if asked != want.End() {
			t.Fatalf("asked up to %d of %s", asked, want)
		}
	}
}
