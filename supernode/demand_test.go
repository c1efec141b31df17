package supernode

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

func TestWish(t *testing.T) {
	p := Policy{}.withDefaults()
	at := func(d time.Duration) time.Time { return time.UnixMilli(1_000_000).Add(d) }
	type moment struct {
		at       time.Duration
		readers  int
		rate     int64
		replicas int
	}
	for _, tt := range []struct {
		name    string
		moments []moment
	}{
		{"few readers", []moment{{0, 1, 0, 2}, {time.Hour, 32, 0, 2}}},
		{"readers", []moment{{0, 33, 0, 3}, {0, 100, 0, 7}, {0, 1000, 0, 8}}},
		{"bytes", []moment{{0, 1, 64 << 20, 2}, {0, 1, 200 << 20, 4}}},
		{"falls after the time of calm", []moment{{0, 100, 0, 7}, {1, 16, 0, 7}, {time.Minute, 16, 0, 7}, {2*time.Minute + 1, 16, 0, 2}}},
		{"falls to what twice the demand needs", []moment{{0, 128, 0, 8}, {1, 40, 0, 8}, {2*time.Minute + 1, 40, 0, 5}}},
		{"a rise begins the calm anew", []moment{{0, 100, 0, 7}, {1, 16, 0, 7}, {time.Minute, 90, 0, 7}, {2 * time.Minute, 16, 0, 7}, {3 * time.Minute, 16, 0, 7}, {4 * time.Minute, 16, 0, 2}}},
		{"half of what it was built for keeps it", []moment{{0, 128, 0, 8}, {time.Hour, 64, 0, 8}, {2 * time.Hour, 60, 0, 8}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w Wish
			for i, m := range tt.moments {
				w = w.Next(Demand{Readers: m.readers, Rate: m.rate}, p, at(m.at))
				if w.Replicas != m.replicas {
					t.Fatalf("moment %d: %d replicas, want %d", i, w.Replicas, m.replicas)
				}
			}
		})
	}
}

func TestWishForSites(t *testing.T) {
	p := Policy{MaxSites: 2}.withDefaults()
	now := time.UnixMilli(1_000_000)
	var w Wish
	step := func(after time.Duration, sites map[string]int, want ...string) {
		t.Helper()
		now = now.Add(after)
		w = w.Next(Demand{Sites: sites}, p, now)
		for _, site := range want {
			if _, ok := w.Sites[site]; !ok {
				t.Fatalf("sites %v, want %v", w.Sites, want)
			}
		}
		if len(w.Sites) != len(want) {
			t.Fatalf("sites %v, want %v", w.Sites, want)
		}
	}
	step(0, map[string]int{"a": 2, "": 50})
	step(0, map[string]int{"a": 3, "b": 2}, "a")
	step(time.Minute, map[string]int{"a": 1}, "a")
	step(time.Minute-1, map[string]int{"a": 3}, "a")
	step(2*time.Minute-1, nil, "a")
	step(1, nil)
	step(0, map[string]int{"a": 3, "b": 9, "c": 4}, "b", "c") // the busiest, at most two
	step(time.Second, map[string]int{"a": 30, "b": 3, "c": 3}, "b", "c")
}

func TestFlow(t *testing.T) {
	const width = 10 * time.Second
	now := time.UnixMilli(1_000_000)
	site := func(r uint64) string { return map[uint64]string{1: "a", 2: "a", 3: "b"}[r] }
	var f flow
	f.add(report.Demand{Bytes: 100, Readers: []uint64{1, 2}}, now, width)
	now = now.Add(width)
	f.add(report.Demand{Bytes: 200, Readers: []uint64{2, 3, 4}}, now, width)
	if d := f.demand(now, width, site); d.Readers != 4 || d.Sites["a"] != 2 || d.Sites["b"] != 1 || d.Rate != 30 {
		t.Errorf("demand %+v", d)
	}
	now = now.Add(width)
	if d := f.demand(now, width, site); d.Readers != 3 || d.Rate != 20 || f.idle() {
		t.Errorf("one window later: %+v", d)
	}
	now = now.Add(width)
	if d := f.demand(now, width, site); d.Readers != 0 || d.Rate != 0 || !f.idle() {
		t.Errorf("two windows later: %+v", d)
	}
}

// read reports that a task was read from a seed by the given peers.
func (w *world) read(from peer.ID, task content.TaskID, bytes int64, readers ...peer.ID) {
	w.t.Helper()
	d := report.Demand{Task: task, Bytes: bytes}
	for _, r := range readers {
		d.Readers = append(d.Readers, report.Fingerprint(r))
	}
	if !w.core.report(from, report.Report{Demand: []report.Demand{d}}, w.now) {
		w.t.Fatalf("no place for %s", from)
	}
}

// distinct returns IDs whose fingerprints differ.
func distinct(n int) []peer.ID {
	out := make([]peer.ID, n)
	for i := range out {
		out[i] = peer.ID([]byte{0x12, 0x20, 31: 1, 32: byte(i >> 8), 33: byte(i)})
	}
	return out
}

// A task that many read gets more seeds with the first report of it, which is
// within two report periods, and loses them when nobody reads it any more.
func TestReplicasFollowDemand(t *testing.T) {
	w := newWorld(t, Config{Beat: 5 * time.Second})
	p := distinct(200)
	seeds := p[:10]
	w.beat(seeds...)
	task := content.TaskID{7}
	w.report(p[0], task, 40)
	w.step(0)
	first := w.assigns[task]
	for _, id := range first.Seeds {
		w.report(id, task, 40)
	}
	for i, half := range [][]peer.ID{p[100:150], p[150:200]} { // two seeds, a period each
		w.beat(seeds...)
		w.read(first.Seeds[i], task, 1<<20, half...)
		w.step(time.Second)
	}
	grown := w.assigns[task]
	if len(grown.Seeds) != 7 {
		t.Fatalf("%d seeds for 100 readers, want 7", len(grown.Seeds))
	}
	for i, id := range grown.Seeds {
		left := assignment.Runs{}
		if !slices.Contains(first.Seeds, id) {
			left = upTo(40)
		}
		if grown.Excluded[i] != left {
			t.Errorf("seed %s leaves %x to others, want %x", id, grown.Excluded[i], left)
		}
	}
	periods := 0
	for ; len(w.assigns[task].Seeds) > 2 && periods < 60; periods++ {
		w.beat(seeds...)
		w.step(5 * time.Second)
	}
	if low := time.Duration(periods) * 5 * time.Second; low < 2*time.Minute || low > 3*time.Minute {
		t.Errorf("seeds went after %s without readers", low)
	}
	last := w.assigns[task]
	slices.Sort(first.Seeds)
	slices.Sort(last.Seeds)
	if !slices.Equal(first.Seeds, last.Seeds) {
		t.Errorf("seeds %q are left of %q", last.Seeds, first.Seeds)
	}
	if len(w.core.tasks.read) != 0 {
		t.Error("a task that nobody reads is still looked at")
	}
}

// A seed that makes up demand for a task gets it eight seeds and no site, and no
// more memory than readers have; when it tires of it they go, and what others read
// is as it was.
func TestFalseDemand(t *testing.T) {
	w := newWorld(t, Config{Beat: 5 * time.Second})
	p := distinct(40)
	made, honest := content.TaskID{7}, content.TaskID{8}
	lie := func(from uint64) {
		d := report.Demand{Task: made, Bytes: math.MaxInt64}
		for i := range uint64(500) {
			d.Readers = append(d.Readers, from+i)
		}
		w.beat(p[:20]...)
		if !w.core.report(p[0], report.Report{Demand: []report.Demand{d}}, w.now) {
			t.Fatal("no place for a report")
		}
	}
	w.beat(p[:20]...)
	w.report(p[0], made, 4)
	w.report(p[1], honest, 4)
	w.step(0)
	for n := range uint64(40) {
		lie(1000 * n)
		w.step(100 * time.Millisecond)
		if a, b := len(w.assigns[made].Seeds), len(w.assigns[honest].Seeds); a < 2 || a > 8 || b != 2 {
			t.Fatalf("%d seeds of what is made up, %d of another", a, b)
		}
	}
	if a := len(w.assigns[made].Seeds); a != 8 {
		t.Errorf("%d seeds: the made up demand was not heard, and nothing was tested", a)
	}
	if known, _ := w.core.tasks.byID.Peek(made); len(known.flow.now.readers) > maxWindowReaders || len(known.wish.Sites) != 0 {
		t.Errorf("%d readers are counted, sites %v", len(known.flow.now.readers), known.wish.Sites)
	}
	for range 40 {
		w.beat(p[:20]...)
		w.step(5 * time.Second)
	}
	if a := len(w.assigns[made].Seeds); a != 2 {
		t.Errorf("%d seeds after the last lie", a)
	}
}

// Three readers at one site, counted over all seeds, give it a seed; the file
// crosses its uplink once.
func TestSiteWithReadersGetsASeed(t *testing.T) {
	w := newWorld(t, Config{})
	p := distinct(20)
	beatAll := func() {
		for i, id := range p {
			b := heartbeat.Beat{Session: 1, Seq: 1, Seed: i < 10 || i == 12, Site: "core"}
			if i >= 10 {
				b.Site = "edge"
			}
			w.core.beat(id, b, w.now)
		}
	}
	beatAll()
	task := content.TaskID{7}
	w.core.members.byID[p[12]].weight = 0.001 // elected for its site or not at all
	w.report(p[0], task, 64)
	w.step(0)
	seeds := w.assigns[task].Seeds
	if slices.Contains(seeds, p[12]) {
		t.Fatal("the peer at the edge is a seed from the start")
	}
	w.read(seeds[0], task, 1, p[10], p[11])
	w.read(seeds[1], task, 1, p[10], p[11])
	if w.step(time.Second); len(w.assigns[task].Seeds) != 2 {
		t.Fatalf("two readers of two seeds counted as more: %d seeds", len(w.assigns[task].Seeds))
	}
	w.read(seeds[1], task, 1, p[13])
	w.step(time.Second)
	a := w.assigns[task]
	at := slices.Index(a.Seeds, p[12])
	if len(a.Seeds) != 3 || at < 0 || a.Excluded[at] != assignment.AllRuns {
		t.Fatalf("seeds %q, shares %x: the site has no seed of its own", a.Seeds, a.Excluded)
	}
	for range 40 {
		beatAll()
		w.step(5 * time.Second)
	}
	if got := w.assigns[task].Seeds; len(got) != 2 || slices.Contains(got, p[12]) {
		t.Errorf("seeds %q after all readers have left", got)
	}
}

func TestRestartedPeerHoldsWhatItReportsAnew(t *testing.T) {
	w := newWorld(t, Config{})
	p := distinct(2)
	w.beat(p...)
	w.report(p[0], content.TaskID{1}, 3)
	w.report(p[1], content.TaskID{1}, 3)
	w.core.beat(p[0], heartbeat.Beat{Session: 2, Seq: 1, Seed: true}, w.now)
	if h := w.core.tasks.byID.Values()[0].holders; len(h) != 1 || h[p[1]].Blocks != 3 {
		t.Errorf("holders %v after one was started again", h)
	}
}

func TestOrders(t *testing.T) {
	w := newWorld(t, Config{})
	p := distinct(4)
	w.beat(p...)
	task, later := content.TaskID{1}, content.TaskID{2}
	w.report(p[0], task, 3)
	w.step(0)
	before := w.assigns[task].Seeds
	w.core.order(before[0], Cordon)
	for i := 2; slices.Contains(w.assigns[later].Seeds, before[0]) || i == 2; i++ {
		later = content.TaskID{byte(i)}
		w.report(p[0], later, 3)
		w.step(5 * time.Second)
		w.beat(p...)
		if slices.Contains(w.assigns[later].Seeds, before[0]) {
			t.Fatalf("task %d was given to who is cordoned", i)
		}
		if i == 20 {
			break
		}
	}
	if !slices.Equal(w.assigns[task].Seeds, before) {
		t.Errorf("who was cordoned lost its duty: seeds %q, were %q", w.assigns[task].Seeds, before)
	}
	if m := w.core.pool.members; len(m) != 4 || !m[slices.IndexFunc(m, func(m assignment.Member) bool { return m.ID == before[0] })].Cordoned {
		t.Error("the pool does not tell that a member is cordoned")
	}
	w.core.order(before[0], Drain)
	w.step(5 * time.Second)
	if got := w.assigns[task].Seeds; len(got) != 2 || slices.Contains(got, before[0]) {
		t.Errorf("seeds %q, one of them drained", got)
	}
	if w.beat(p...); len(w.core.pool.members) != 3 {
		t.Errorf("%d members in the pool, one of them drained", len(w.core.pool.members))
	}
	w.core.order(before[0], "")
	w.step(5 * time.Second)
	if len(w.core.pool.members) != 4 || len(w.core.orders) != 0 {
		t.Errorf("%d members in the pool after the order was taken back", len(w.core.pool.members))
	}
}
