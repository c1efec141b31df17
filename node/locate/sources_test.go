package locate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// The ranking of four seeds of one task for a stripe, computed by content and
// not by this package.
func rankOf(task content.TaskID, stripe int64, names ...string) []peer.ID {
	var ms []content.Member
	for _, n := range names {
		ms = append(ms, content.Member{ID: id(n), Weight: 1})
	}
	var ranked []peer.ID
	for _, m := range content.Rank(nil, content.StripeKey(task, stripe), ms) {
		ranked = append(ranked, m.ID)
	}
	return ranked
}

func TestSources(t *testing.T) {
	task := taskNamed(1)
	all := []string{"a", "b", "c", "d"}
	// A stripe whose order differs from that of the head, or cases prove little.
	stripe := int64(1)
	for slices.Equal(rankOf(task, stripe, all...), rankOf(task, 0, all...)) || rankOf(task, stripe, all...)[0] == rankOf(task, 0, all...)[0] {
		stripe++
	}
	r := rankOf(task, stripe, all...)
	head := rankOf(task, 0, all...)
	s := func(p peer.ID, k Kind) Source { return Source{p, k} }

	cases := []struct {
		name       string
		self       peer.ID
		noSeed     bool
		site       string
		near       []peer.ID // members of site "here"
		broken     []peer.ID
		skip       []peer.ID
		sequential bool
		want       []Source
	}{
		{name: "reader", self: id("x"), want: []Source{s(r[0], Owner), s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "self is owner", self: r[0], want: []Source{s(r[0], Self), s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "self is another seed", self: r[2], want: []Source{s(r[0], Owner), s(r[1], Seed), s(r[3], Seed)}},
		{name: "self is owner but no seed any more", self: r[0], noSeed: true, want: []Source{s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "site seed first", self: id("x"), site: "here", near: []peer.ID{r[3]}, want: []Source{s(r[3], SiteSeed), s(r[0], Owner), s(r[1], Seed), s(r[2], Seed)}},
		{name: "owner of the site before site seeds", self: id("x"), site: "here", near: []peer.ID{r[0], r[3]}, want: []Source{s(r[0], Owner), s(r[3], SiteSeed), s(r[1], Seed), s(r[2], Seed)}},
		{name: "self before site seed", self: r[0], site: "here", near: []peer.ID{r[0], r[2]}, want: []Source{s(r[0], Self), s(r[2], SiteSeed), s(r[1], Seed), s(r[3], Seed)}},
		{name: "no site is near nobody", self: id("x"), near: []peer.ID{r[3]}, want: []Source{s(r[0], Owner), s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "broken owner last, still owner", self: id("x"), broken: []peer.ID{r[0]}, want: []Source{s(r[1], Seed), s(r[2], Seed), s(r[3], Seed), s(r[0], Owner)}},
		{name: "broken site seed behind all", self: id("x"), site: "here", near: []peer.ID{r[3]}, broken: []peer.ID{r[3]}, want: []Source{s(r[0], Owner), s(r[1], Seed), s(r[2], Seed), s(r[3], SiteSeed)}},
		{name: "all broken keep their order", self: id("x"), broken: r, want: []Source{s(r[0], Owner), s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "broken self is not moved", self: r[0], broken: []peer.ID{r[0]}, want: []Source{s(r[0], Self), s(r[1], Seed), s(r[2], Seed), s(r[3], Seed)}},
		{name: "skip moves ownership on", self: id("x"), skip: []peer.ID{r[0], r[2]}, want: []Source{s(r[1], Owner), s(r[3], Seed)}},
		{name: "skip makes self the owner", self: r[1], skip: []peer.ID{r[0]}, want: []Source{s(r[1], Self), s(r[2], Seed), s(r[3], Seed)}},
		{name: "skip of all leaves nobody", self: id("x"), skip: r},
		{name: "sequential belongs to the head", self: id("x"), sequential: true, want: []Source{s(head[0], Owner), s(head[1], Seed), s(head[2], Seed), s(head[3], Seed)}},
		{name: "sequential without its head", self: id("x"), sequential: true, skip: head[:1], want: []Source{s(head[1], Owner), s(head[2], Seed), s(head[3], Seed)}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			clk := &clock{start}
			m := New(Config{Self: c.self, SelfSeed: !c.noSeed, Site: c.site, Supernodes: ids("super"), Now: clk.Now})
			pub := newPublisher("super")
			pool := members(1, all...)
			for i := range pool {
				if slices.Contains(c.near, pool[i].ID) {
					pool[i].Site = "here"
				} else {
					pool[i].Site = "there"
				}
			}
			if c.site == "" { // no site is not a site of its own
				for i := range pool {
					pool[i].Site = ""
				}
			}
			apply(m, pub.pool(pool)...)
			apply(m, pub.assign(assignTo(task, ids(all...)...)))
			for _, p := range c.broken {
				m.Failure(p)
			}
			got := m.Sources(nil, task, stripe, c.sequential, c.skip)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			wantOwner := slices.DeleteFunc(slices.Clone(r), func(p peer.ID) bool { return slices.Contains(c.skip, p) })
			if c.sequential {
				wantOwner = slices.DeleteFunc(slices.Clone(head), func(p peer.ID) bool { return slices.Contains(c.skip, p) })
			}
			owner, ok := m.Owner(task, stripe, c.sequential, c.skip)
			if ok != (len(wantOwner) > 0) || ok && owner != wantOwner[0] {
				t.Errorf("owner %q, %v, want the first of %q", owner, ok, wantOwner)
			}
		})
	}
}

func TestSourcesAppends(t *testing.T) {
	m, _ := newMap("x", "super")
	apply(m, newPublisher("super").pool(members(1, "a", "b"))...)
	before := []Source{{id("holder"), Holder}}
	got := m.Sources(before, taskNamed(1), 0, false, nil)
	if len(got) != 3 || got[0] != before[0] {
		t.Errorf("got %v", got)
	}
}

func TestEmptyMapKnowsNobody(t *testing.T) {
	for _, m := range []*Map{New(Config{}), New(Config{Supernodes: ids("super")})} {
		if got := m.Sources(nil, taskNamed(1), 3, false, nil); len(got) != 0 {
			t.Errorf("sources: %v", got)
		}
		if owner, ok := m.Owner(taskNamed(1), 3, true, nil); ok {
			t.Errorf("owner: %v", owner)
		}
		if len(m.Pool()) != 0 || m.IsSeed(taskNamed(1)) || m.Len() != 0 {
			t.Error("an empty map is not empty")
		}
	}
}

// What this package computes in its own way, without allocating, must be what
// every other implementation of the design computes.
func TestOwnerIsContents(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pool := peers(40)
	ranking := make([]content.Member, len(pool))
	for i, p := range pool {
		ranking[i] = content.Member{ID: p.ID, Weight: p.Weight}
	}
	m := New(Config{Self: id("x"), Supernodes: ids("super"), Replicas: 5})
	pub := newPublisher("super")
	apply(m, pub.pool(pool)...)
	for n := range 300 {
		task, stripe := taskNamed(n), rng.Int64N(4)
		if rng.IntN(2) == 0 {
			stripe = rng.Int64()
		}
		seeds := content.Rank(nil, task[:], ranking)[:5]
		if n%2 == 0 {
			seeds = []content.Member{ranking[rng.IntN(20)], ranking[20+rng.IntN(20)], {ID: id("not in the pool"), Weight: 1}}
			var to []peer.ID
			for _, s := range seeds {
				to = append(to, s.ID)
			}
			apply(m, pub.assign(assignTo(task, to...)))
		}
		skip := []peer.ID{seeds[rng.IntN(len(seeds))].ID}
		left := slices.DeleteFunc(slices.Clone(seeds), func(s content.Member) bool { return s.ID == skip[0] })
		for _, c := range []struct {
			what string
			skip []peer.ID
			from []content.Member
		}{{"all", nil, seeds}, {"skip", skip, left}} {
			want, _ := content.First(content.StripeKey(task, stripe), c.from)
			got, ok := m.Owner(task, stripe, false, c.skip)
			if !ok || got != want.ID {
				t.Fatalf("task %d stripe %d %s: owner %q, want %q", n, stripe, c.what, got, want.ID)
			}
			want, _ = content.First(content.StripeKey(task, 0), c.from)
			if got, _ := m.Owner(task, stripe, true, c.skip); got != want.ID {
				t.Fatalf("task %d stripe %d %s: sequential owner %q, want the head %q", n, stripe, c.what, got, want.ID)
			}
		}
		head, _ := m.Head(task)
		if want, _ := content.First(task[:], seeds); head != want.ID || seedIDs(m, task)[0] != head {
			t.Fatalf("task %d: head %q, want %q first of the seeds", n, head, want.ID)
		}
	}
}

func TestIsSeed(t *testing.T) {
	m, _ := newMap("a", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a"))...)
	apply(m, pub.assign(assignTo(taskNamed(2), id("b"))))
	if !m.IsSeed(taskNamed(1)) {
		t.Error("the only member of the pool is no seed of an unknown task")
	}
	if m.IsSeed(taskNamed(2)) {
		t.Error("seed of a task that is assigned to another")
	}
	no := New(Config{Self: id("a"), Supernodes: ids("super")})
	apply(no, newPublisher("super").pool(members(1, "a"))...)
	if no.IsSeed(taskNamed(1)) {
		t.Error("a node that is no seed says that it is one")
	}
}

func TestSequentialAssignment(t *testing.T) {
	m, _ := newMap("x", "super")
	a := assignTo(taskNamed(1), ids("a", "b", "c")...)
	a.Sequential = true
	apply(m, newPublisher("super").assign(a))
	head, _ := m.Head(a.Task)
	for stripe := range int64(20) {
		if owner, _ := m.Owner(a.Task, stripe, false, nil); owner != head {
			t.Fatalf("stripe %d of a sequential task: owner %q, want the head %q", stripe, owner, head)
		}
	}
}

// A change of the pool changes the weights of assigned seeds, though their
// assignment stays.
func TestPoolChangesWeights(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	task := taskNamed(1)
	apply(m, pub.assign(assignTo(task, ids("a", "b")...)))
	for _, heavy := range []string{"a", "b"} {
		pool := members(1, "a", "b")
		for i := range pool {
			if pool[i].ID == id(heavy) {
				pool[i].Weight = 1 << 30
			}
		}
		apply(m, pub.pool(pool)...)
		for stripe := range int64(50) {
			if owner, _ := m.Owner(task, stripe, false, nil); owner != id(heavy) {
				t.Fatalf("stripe %d: owner is not the one with nearly all the weight", stripe)
			}
		}
	}
}

func filled(tb testing.TB, tasks int) *Map {
	tb.Helper()
	m := New(Config{Self: id("x"), Site: "here", SelfSeed: true, Supernodes: ids("super")})
	pub := newPublisher("super")
	pub.at = time.Now()
	pool := peers(256)
	pool[3].Site = "here"
	apply(m, pub.pool(pool)...)
	for n := 0; n < tasks; n += 100 {
		var as []assignment.Assign
		for i := range 100 {
			a := assignTo(taskNamed(n+i), pool[(n+i)%256].ID, pool[(n+7*i+1)%256].ID, pool[3].ID)
			a.Size = 100 << 20
			as = append(as, a)
		}
		apply(m, pub.assign(as...))
	}
	return m
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := filled(b, n)
			pub := newPublisher("super")
			pub.seq = 1 << 20
			b.ReportAllocs()
			for b.Loop() {
				as := make([]assignment.Assign, 100)
				for i := range as {
					as[i] = assignTo(taskNamed((int(pub.seq)*100+i)%n), id("peer 1"), id("peer 2"))
				}
				apply(m, pub.assign(as...))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/assign")
		})
	}
}

// TestReplicasOfThePool: how many seeds an unknown task has is the supernode's
// word; a node's own figure counts where the pool does not say.
func TestReplicasOfThePool(t *testing.T) {
	for _, c := range []struct{ pool, own, want int }{{0, 0, 2}, {0, 3, 3}, {4, 3, 4}, {1, 0, 1}, {9, 2, 5}} {
		p := newPublisher("s")
		m := New(Config{Self: id("x"), Supernodes: []peer.ID{p.id}, Replicas: c.own, Now: func() time.Time { return start }})
		us := p.pool(members(1, "a", "b", "c", "d", "e"))
		us[0].Pool.Replicas = c.pool
		apply(m, us...)
		if n := len(m.Seeds(nil, content.TaskID{1})); n != c.want {
			t.Errorf("pool says %d, node %d: %d seeds, want %d", c.pool, c.own, n, c.want)
		}
	}
}
