package supernode

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// TestOldestIsGivenUp has peers report some of the same tasks in any order: the task
// that a peer would give up is at each moment the one of its oldest news, whether
// it was its own from the first or another gave it up to it.
func TestOldestIsGivenUp(t *testing.T) {
	const limit, all, peers = 20, 40, 6
	handed := 0
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t, Config{MaxTasks: limit})
		p := ids(peers)
		w.beat(p...)
		for range 1000 {
			w.now = w.now.Add(time.Millisecond)
			// Some report far more than others, so that they give up to those.
			w.report(p[min(rnd.IntN(peers), rnd.IntN(peers))], content.TaskID{byte(rnd.IntN(all))}, 1)
			counts, oldest := make(map[peer.ID]int), make(map[peer.ID]*task)
			for _, known := range w.core.tasks.byID.Values() {
				of := known.reporter.of
				counts[of]++
				if old := oldest[of]; old == nil || known.seen.Before(old.seen) {
					oldest[of] = known
				}
			}
			shares := &w.core.tasks.shares
			for of, n := range counts {
				r := shares.byPeer[of]
				if r.count() != n || r.oldest() != oldest[of] {
					t.Fatalf("seed %d: %s has %d tasks, counted as %d; it would give up %s, which was seen %s after the oldest",
						seed, of, n, r.count(), r.oldest().id, r.oldest().seen.Sub(oldest[of].seen))
				}
				handed += r.handed.Len()
			}
			if len(counts) != len(shares.byPeer) {
				t.Fatalf("seed %d: %d peers have tasks, of %d are some known", seed, len(counts), len(shares.byPeer))
			}
		}
	}
	if handed == 0 {
		t.Error("nothing was given up to another: little was tested")
	}
}

// One report makes no more tasks another's than it may, though two hold the same
// ones and all were the first one's; the next reports go on until both have as many.
func TestHandoverIsBounded(t *testing.T) {
	const each = maxHandover / 2 // tasks with two holders
	const limit = 5 * each
	w := newWorld(t, Config{MaxTasks: limit})
	p := ids(3)
	w.beat(p...)
	name := func(n int) (id content.TaskID) {
		binary.BigEndian.PutUint64(id[:], uint64(n+1))
		return id
	}
	for _, from := range p[:2] {
		for i := range limit {
			w.core.report(from, report.Report{Held: []report.Held{{Task: name(i), Size: 1}}}, w.now)
		}
	}
	shares := &w.core.tasks.shares
	for i, want := range []int{each, 2 * each, limit / 2, limit / 2} {
		if w.report(p[2], name(limit+i), 1); max(shares.count(p[1])-want, want-shares.count(p[1])) > 2 {
			t.Errorf("after %d reports of a third peer %d of %d tasks are the second's, want %d", i+1, shares.count(p[1]), limit, want)
		}
		if n := w.core.tasks.byID.Len(); n != limit || shares.count(p[2]) != i+1 {
			t.Errorf("%d tasks are known, of the third peer %d; want %d and %d", n, shares.count(p[2]), limit, i+1)
		}
	}
}

// One peer reports tasks without end, and before the others do also theirs: what
// they hold stays, and it keeps what they leave it.
func TestFloodOfTasks(t *testing.T) {
	const limit, each = 100, 15
	w := newWorld(t, Config{MaxTasks: limit})
	p := ids(5)
	flooder, honest := p[0], p[1:]
	w.beat(p...)
	own := func(peer, i int) content.TaskID { return content.TaskID{1, byte(peer), byte(i)} }
	junk := func(n int) {
		for range n {
			var id content.TaskID
			_, _ = crand.Read(id[:])
			w.report(flooder, id, 1)
		}
		w.step(time.Second)
	}
	for i := range each { // what it names first
		w.report(flooder, own(0, i), 1)
	}
	for i := range each {
		for n, h := range honest {
			w.report(h, own(n, i), 1)
		}
	}
	w.step(time.Second)
	for range 5 {
		junk(limit)
	}
	for n := range honest {
		for i := range each {
			if a, ok := w.assigns[own(n, i)]; !ok {
				t.Errorf("task %d of peer %d is gone", i, n)
			} else if held := w.core.tasks.byID.Contains(a.Task); !held {
				t.Errorf("task %d of peer %d is assigned and not known", i, n)
			}
		}
	}
	if n := w.core.tasks.byID.Len(); n != limit {
		t.Errorf("%d tasks are known, want %d", n, limit)
	}
	if n, want := w.core.tasks.shares.count(flooder), limit-each*len(honest); n != want {
		t.Errorf("%d are the flooder's, want %d", n, want)
	}
	w.core.leave(flooder)
	w.step(11 * time.Minute) // its tasks end, and with them its share
	if n := len(w.core.tasks.shares.byPeer); n > len(honest) {
		t.Errorf("%d peers are remembered, want those with tasks", n)
	}
}

// At the bound, a task of whoever has most goes, of several of the one that asks
// for more; but what another holds becomes that one's first.
func TestShares(t *testing.T) {
	type step struct {
		from, task int
		want       []byte // the tasks known then
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"who has most", []step{
			{0, 0, []byte{0}},
			{0, 1, []byte{0, 1}},
			{0, 2, []byte{0, 1, 2}},
			{0, 3, []byte{0, 1, 2, 3}},
			{1, 4, []byte{1, 2, 3, 4}},
			{1, 5, []byte{2, 3, 4, 5}},
		}},
		{"two have most", []step{
			{0, 0, []byte{0}},
			{0, 1, []byte{0, 1}},
			{1, 2, []byte{0, 1, 2}},
			{1, 3, []byte{0, 1, 2, 3}},
			{1, 4, []byte{0, 1, 3, 4}},
			{1, 5, []byte{0, 1, 4, 5}},
		}},
		{"news", []step{
			{0, 0, []byte{0}},
			{0, 1, []byte{0, 1}},
			{0, 2, []byte{0, 1, 2}},
			{0, 3, []byte{0, 1, 2, 3}},
			{0, 0, []byte{1, 2, 3, 0}},
			{0, 4, []byte{2, 3, 0, 4}},
		}},
		{"held by two", []step{
			{0, 0, []byte{0}},
			{0, 1, []byte{0, 1}},
			{0, 2, []byte{0, 1, 2}},
			{0, 3, []byte{0, 1, 2, 3}},
			{2, 0, []byte{1, 2, 3, 0}},
			{0, 1, []byte{2, 3, 0, 1}},
			{0, 2, []byte{3, 0, 1, 2}},
			{0, 3, []byte{0, 1, 2, 3}},
			{1, 4, []byte{0, 2, 3, 4}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Config{MaxTasks: 4})
			p := ids(3)
			w.beat(p...)
			for _, s := range c.steps {
				w.report(p[s.from], content.TaskID{byte(s.task)}, 1)
				var got []byte
				for _, id := range w.core.tasks.byID.Keys() {
					got = append(got, id[0])
				}
				if !slices.Equal(got, s.want) {
					t.Fatalf("after task %d of peer %d: %v, want %v", s.task, s.from, got, s.want)
				}
			}
		})
	}
}
