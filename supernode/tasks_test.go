package supernode

import (
	"slices"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// TestBegunRuns compares with a look at each block by itself.
func TestBegunRuns(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		size  int64
		shift uint8
		bits  []int64
	}{
		{"nothing", 64 * mib, 0, nil},
		{"a stripe a block", 64 * mib, 0, []int64{0, 9, 63}},
		{"a last block of one byte", 63*mib + 1, 0, []int64{63}},
		{"two blocks a stripe", 1000 * mib, 0, []int64{0, 1, 2, 999}},
		{"long runs of stripes", 100 << 30, 0, []int64{0, 7, 50_000, 102_399}},
		{"runs of blocks", 64 * mib, 3, []int64{0, 7}},
		{"runs of blocks beyond a stripe", 200 << 30, 5, []int64{0, 1, 6399}},
		{"an empty file", 0, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := report.Held{Size: tt.size, Shift: tt.shift}
			layout := content.Layout{Size: tt.size}
			stripes := int64(0)
			for range layout.Stripes(content.Range{Len: tt.size}) {
				stripes++
			}
			var want assignment.Runs
			for _, bit := range tt.bits {
				for int64(len(h.Present)) <= bit/8 {
					h.Present = append(h.Present, 0)
				}
				h.Present[bit/8] |= 1 << (bit % 8)
				for block := bit << tt.shift; block < min((bit+1)<<tt.shift, layout.Blocks()); block++ {
					want.Add(assignment.RunOf(layout.StripeOf(block*content.BlockSize), stripes))
				}
			}
			if got := begunRuns(h); got != want {
				t.Errorf("begun\n%x, want\n%x", got, want)
			}
		})
	}
	if got := begunRuns(report.Held{Size: -1, Present: []byte{255}}); got != (assignment.Runs{}) {
		t.Errorf("runs %x of a file whose size is not known", got)
	}
}

// Who has the whole of a hot file is told when it has it, and not before.
func TestWholeSeedsAreTold(t *testing.T) {
	w := newWorld(t, Config{})
	p := distinct(80)
	w.beat(p[:10]...)
	task := content.TaskID{7}
	w.report(p[0], task, 3)
	w.step(0)
	w.read(w.assigns[task].Seeds[0], task, 1, p[20:80]...)
	w.step(0)
	a := w.assigns[task]
	if len(a.Seeds) != 4 || a.Whole != nil {
		t.Fatalf("%d seeds for 60 readers, whole %v", len(a.Seeds), a.Whole)
	}
	w.report(a.Seeds[2], task, 63)
	if got := w.step(0); len(got) != 0 {
		t.Errorf("progress was published: %v", got)
	}
	w.report(a.Seeds[2], task, 64)
	w.step(0)
	if got := w.assigns[task]; !slices.Equal(got.Seeds, a.Seeds) || !slices.Equal(got.Whole, []bool{false, false, true, false}) {
		t.Errorf("seeds %q, were %q; whole %v, want the third", got.Seeds, a.Seeds, got.Whole)
	}
	w.core.report(a.Seeds[2], report.Report{Dropped: []content.TaskID{task}}, w.now)
	w.step(0)
	if got := w.assigns[task]; got.Whole != nil {
		t.Errorf("whole %v after it was dropped", got.Whole)
	}
}
