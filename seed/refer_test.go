package seed

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// gather makes a set of uploads in which anybody may be referred to anybody.
type gather struct {
	t   *testing.T
	u   *uploads
	now time.Time
	far map[peer.ID]bool // to whom nobody is referred
	ups map[peer.ID]upload
}

func newGather(t *testing.T, all, stripe int) *gather {
	return &gather{t: t, u: newUploads(all, stripe), now: time.Unix(1e9, 0), far: map[peer.ID]bool{}, ups: map[peer.ID]upload{}}
}

// wants enters an upload of a stripe for p and checks whom p is referred to;
// nobody: p is served.
func (g *gather) wants(stripe int64, p peer.ID, referred ...peer.ID) {
	g.t.Helper()
	up := upload{key: gatheringKey{stripe: stripe}, from: p, now: g.now, fit: func(p peer.ID, _ bool) bool { return !g.far[p] }}
	got := g.u.enter(up)
	if !slices.Equal(got, referred) {
		g.t.Errorf("%s is referred to %q, want %q", p, got, referred)
	}
	if len(got) == 0 {
		g.ups[p] = up
	}
}

func (g *gather) leaves(p peer.ID, whole bool) { g.u.leave(g.ups[p], g.now, whole) }

// TestGathering: who is referred, to whom, and who is served.
func TestGathering(t *testing.T) {
	t.Run("stripe", func(t *testing.T) {
		g := newGather(t, 100, 2)
		g.wants(1, "a")
		g.wants(1, "a") // his second request is no second reader
		g.wants(1, "b")
		g.wants(2, "c")           // another stripe has readers of its own
		g.wants(1, "c", "a", "b") // over the bound
		g.wants(1, "d", "b", "a") // the next goes to the one with fewer
		g.wants(1, "c")           // he was not served there
		g.now = g.now.Add(referredFor)
		g.wants(1, "d", "c", "a", "b") // later he may be referred again
	})
	t.Run("those who have it", func(t *testing.T) {
		g := newGather(t, 100, 1)
		g.wants(1, "a")
		g.leaves("a", true)
		g.wants(1, "b") // nobody is served: no need
		g.wants(1, "c", "a", "b")
		g.leaves("b", false)
		g.wants(1, "d")
		g.wants(1, "e", "d", "a") // b left before the end
		g.now = g.now.Add(holds)
		g.wants(1, "f", "d") // what a got it may have no more
	})
	t.Run("fit", func(t *testing.T) {
		g := newGather(t, 100, 1)
		g.wants(1, "a")
		g.far["a"] = true
		g.wants(1, "b") // there is nobody to refer to
		g.wants(1, "c", "b")
	})
	t.Run("all", func(t *testing.T) {
		g := newGather(t, 2, 100)
		g.wants(1, "a")
		g.wants(2, "b")
		g.wants(2, "c", "b") // the node is over its bound, not the stripe
		g.wants(3, "c")      // nobody else has this one
		if got := g.u.enter(upload{key: gatheringKey{stripe: 2}, from: "near", site: true, now: g.now, fit: func(peer.ID, bool) bool { return true }}); got != nil {
			t.Errorf("a reader of the site is referred to %q by the bound of others", got)
		}
		g.leaves("a", true)
		g.leaves("b", true)
		g.wants(2, "d") // one answer runs
	})
	t.Run("bounded", func(t *testing.T) {
		g := newGather(t, 1<<20, 1<<20)
		for i := range 2 * maxReceivers {
			g.wants(1, peer.ID(fmt.Sprint(i)))
		}
		got, _ := g.u.gatherings.Peek(gatheringKey{stripe: 1})
		if len(got.receivers) != maxReceivers {
			t.Errorf("%d receivers are remembered, want %d", len(got.receivers), maxReceivers)
		}
		for i := range 2 * maxReceivers {
			g.leaves(peer.ID(fmt.Sprint(i)), true)
		}
		if g.u.running[false] != 0 {
			t.Errorf("%d uploads run", g.u.running[false])
		}
		for i := range int64(2 * maxGatherings) {
			g.wants(i, "a")
		}
		if n := g.u.gatherings.Len(); n != maxGatherings {
			t.Errorf("%d stripes are remembered, want %d", n, maxGatherings)
		}
	})
}
