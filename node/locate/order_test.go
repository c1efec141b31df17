package locate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// What is remembered of a stripe is what content computes, for the first asker
// and for the next, with any number of seeds, at the bounds of what is
// remembered, and after the weights have changed.
func TestOrdersAreContents(t *testing.T) {
	const stripes = 5000
	size := int64(stripes) * 4 << 20
	if got := (content.Layout{Size: size}).Stripe(); got != 4<<20 {
		t.Fatalf("stripes of %d bytes", got)
	}
	pool := peers(20)
	for i := range pool {
		pool[i].Weight = float64(i % 2) // equal scores of 0 too: the lower ID goes first
	}
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(pool)...)
	want := func(task content.TaskID, stripe int64, n int) []peer.ID {
		var ms []content.Member
		for _, p := range pool[:n] {
			ms = append(ms, content.Member{ID: p.ID, Weight: p.Weight})
		}
		var ranked []peer.ID
		for _, r := range content.Rank(nil, content.StripeKey(task, stripe), ms) {
			ranked = append(ranked, r.ID)
		}
		return ranked
	}
	check := func(t *testing.T, n int) {
		t.Helper()
		task := taskNamed(n)
		for _, stripe := range []int64{1, 2, 3, 7, 8, 9, 510, 511, 512, 513, 4094, 4095, 4096, stripes - 1, stripes, 1 << 40} {
			for range 2 {
				var got []peer.ID
				for _, s := range m.Sources(nil, task, stripe, false, nil) {
					got = append(got, s.Peer)
				}
				if w := want(task, stripe, n); !slices.Equal(got, w) {
					t.Errorf("stripe %d: got %q, want %q", stripe, got, w)
				}
			}
		}
	}
	for n := 1; n <= len(pool); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			task := taskNamed(n)
			a := assignTo(task)
			a.Size = size
			for _, p := range pool[:n] {
				a.Seeds = append(a.Seeds, p.ID)
			}
			apply(m, pub.assign(a))
			check(t, n)
			if o := m.view(task, start.UnixNano()).orders.Load(); (o != nil) != (n > 1 && n <= 16) {
				t.Errorf("%d seeds: orders %v", n, o)
			}
		})
	}
	for i := range pool {
		pool[i].Weight = float64(1 + i%5*1000)
	}
	apply(m, pub.pool(pool)...)
	for n := 1; n <= len(pool); n++ {
		check(t, n)
	}
}

// Readers of one task at a time agree, whoever comes first.
func TestOrdersAtOnce(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(peers(8))...)
	for n := range 20 {
		a := assignTo(taskNamed(n), id("peer 1"), id("peer 2"), id("peer 3"))
		a.Size = 100 << 20
		apply(m, pub.assign(a))
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for n := range 20 {
				for stripe := range int64(100) {
					owner, ok := m.Owner(taskNamed(n), stripe, false, nil)
					var ms []content.Member
					for _, i := range []int{1, 2, 3} {
						ms = append(ms, content.Member{ID: id(fmt.Sprint("peer ", i)), Weight: float64(1 + i%4)})
					}
					want, _ := content.First(content.StripeKey(taskNamed(n), stripe), ms)
					if !ok || owner != want.ID {
						t.Errorf("stripe %d of task %d: owner %q, want %q", stripe, n, owner, want.ID)
					}
				}
			}
		})
	}
	readers.Wait()
}

// A node remembers nothing of a task before it is asked for it.
func TestOrdersOfReadTasksOnly(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	a := assignTo(taskNamed(1), id("peer 1"), id("peer 2"))
	a.Size = 1 << 40
	apply(m, pub.assign(a))
	v := m.view(a.Task, start.UnixNano())
	if m.Head(a.Task); v.orders.Load() != nil {
		t.Error("the head costs memory")
	}
	m.Owner(a.Task, 1, false, nil)
	if o := v.orders.Load(); o == nil || len(o.words) != maxOrderWords {
		t.Errorf("orders of a big file: %v", o)
	}
	a.Size = 9 << 20
	apply(m, pub.assign(a))
	m.Owner(a.Task, 1, false, nil)
	if o := m.view(a.Task, start.UnixNano()).orders.Load(); o == nil || len(o.words) != 2 {
		t.Errorf("orders of 9 stripes: %v", o)
	}
}

// BenchmarkSources asks a map of 100,000 tasks, of 100 stripes and three seeds each:
// hot asks for one; all for all in random order, the head, again a stripe
// that was asked for before, and new each stripe for the first time.
func BenchmarkSources(b *testing.B) {
	const tasks, stripes = 100_000, 100
	m := filled(b, tasks)
	dst := make([]Source, 0, 8)
	for _, c := range []struct {
		name   string
		first  int
		n      int
		stripe func(i int) int64
	}{
		{"assigned/hot", 0, 1, func(i int) int64 { return int64(i % stripes) }},
		{"assigned/all/head", 0, tasks, func(int) int64 { return 0 }},
		{"assigned/all/again", 0, tasks, func(i int) int64 { return int64(1 + i%tasks%(stripes-1)) }},
		{"assigned/all/new", 0, tasks, func(i int) int64 { return int64(1 + (i/tasks+i%tasks)%(stripes-1)) }},
		{"unknown/hot", 1 << 30, 1, func(i int) int64 { return int64(i) }},
		{"unknown/1000", 1 << 30, 1000, func(i int) int64 { return int64(i) }},
	} {
		ids := make([]content.TaskID, c.n)
		for i := range ids {
			ids[i] = taskNamed(c.first + i)
		}
		rand.Shuffle(c.n, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		b.Run(c.name, func(b *testing.B) {
			for i, task := range ids { // known from now on
				dst = m.Sources(dst[:0], task, c.stripe(i), false, nil)
			}
			b.ReportAllocs()
			i := c.n
			for b.Loop() {
				dst = m.Sources(dst[:0], ids[i%len(ids)], c.stripe(i), false, nil)
				i++
			}
		})
	}
}

func TestSourcesDoesNotAllocate(t *testing.T) {
	m := filled(t, 100_000)
	hot := taskNamed(1 << 31)
	pub := newPublisher("super")
	pub.seq = 1 << 20
	a := shares(hot, ids("peer 1", "peer 2", "peer 4"), assignment.Runs{}, upTo(9), assignment.AllRuns)
	a.Whole, a.Lease = []bool{true, true, false}, assignment.MaxLease
	pub.at = time.Now()
	apply(m, pub.assign(a))
	m.Success(id("peer 1"), time.Millisecond)
	m.Failure(id("peer 3"))
	dst := make([]Source, 0, 8)
	skip := ids("peer 5", "peer 77")
	stripe := int64(0)
	for _, c := range []struct {
		name string
		task content.TaskID
	}{{"assigned", taskNamed(77)}, {"unknown", taskNamed(1 << 30)}, {"hot", hot}} {
		allocs := testing.AllocsPerRun(200, func() {
			stripe++
			dst = m.Sources(dst[:0], c.task, stripe, false, skip)
			m.Owner(c.task, stripe, false, skip)
			m.IsSeed(c.task)
		})
		if allocs != 0 || len(dst) == 0 {
			t.Errorf("%s: %v allocations a call, sources %v", c.name, allocs, dst)
		}
	}
}
