package locate

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

const mib = 1 << 20

// shares makes an assignment of a file of 64 stripes of 1 MiB.
func shares(task content.TaskID, seeds []peer.ID, excluded ...assignment.Runs) assignment.Assign {
	a := assignTo(task, seeds...)
	a.Size, a.Excluded = 64*mib, excluded
	return a
}

// upTo is the set of the first n runs.
func upTo(n int) (r assignment.Runs) {
	for i := range n {
		r.Add(i)
	}
	return r
}

// A seed that was added owns nothing of what was begun, and its share of the
// rest.
func TestExcludedStripesHaveOtherOwners(t *testing.T) {
	task := taskNamed(1)
	for _, added := range []string{"a", "b", "c"} { // whatever its rank
		m, _ := newMap("x", "super")
		pub := newPublisher("super")
		apply(m, pub.pool(members(1, "a", "b", "c"))...)
		all := ids("a", "b", "c")
		excluded := make([]assignment.Runs, 3)
		excluded[slices.Index(all, id(added))] = upTo(40)
		apply(m, pub.assign(shares(task, all, excluded...)))
		others := slices.DeleteFunc([]string{"a", "b", "c"}, func(s string) bool { return s == added })
		owned := 0
		for stripe := range int64(64) {
			want := rankOf(task, stripe, "a", "b", "c")[0]
			if stripe < 40 {
				want = rankOf(task, stripe, others...)[0]
			}
			got, ok := m.Owner(task, stripe, false, nil)
			if !ok || got != want {
				t.Fatalf("%s added: stripe %d belongs to %s, want %s", added, stripe, got, want)
			}
			if got == id(added) {
				owned++
			}
			if first := m.Sources(nil, task, stripe, false, nil)[0]; first != (Source{want, Owner}) {
				t.Fatalf("%s added: first source of stripe %d is %v", added, stripe, first)
			}
		}
		if owned == 0 {
			t.Errorf("%s owns nothing of what was not begun", added)
		}
		if head, _ := m.Head(task); head == id(added) {
			t.Errorf("%s became the head of a file that was begun", added)
		}
		if head := m.Seeds(nil, task)[0].ID; head != rankOf(task, 0, others...)[0] {
			t.Errorf("first of the seeds is %s, not the head", head)
		}
	}
}

// Where those who may own a stripe are dead, those who leave it to them own it;
// where all leave it to others, none is left out.
func TestExcludedByAll(t *testing.T) {
	task := taskNamed(1)
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a", "b", "c"))...)
	apply(m, pub.assign(shares(task, ids("a", "b", "c"), assignment.Runs{}, upTo(9), upTo(9))))
	for stripe := range int64(9) {
		if owner, _ := m.Owner(task, stripe, false, ids("a")); owner != rankOf(task, stripe, "b", "c")[0] {
			t.Errorf("without a, stripe %d belongs to %s", stripe, owner)
		}
		got := m.Sources(nil, task, stripe, false, nil)
		if got[0].Peer != id("a") || len(got) != 3 {
			t.Errorf("sources of stripe %d: %v", stripe, got)
		}
	}
	apply(m, pub.assign(shares(task, ids("a", "b", "c"), upTo(9), upTo(9), upTo(9))))
	for stripe := range int64(64) {
		if owner, _ := m.Owner(task, stripe, false, nil); owner != rankOf(task, stripe, "a", "b", "c")[0] {
			t.Errorf("left to others by all, stripe %d belongs to %s", stripe, owner)
		}
	}
}

func TestSiteSeeds(t *testing.T) {
	task := taskNamed(1)
	pool := members(1, "a", "b", "edge", "far")
	pool[2].Site, pool[3].Site = "edge", "elsewhere"
	assign := shares(task, ids("a", "b", "edge", "far"), assignment.Runs{}, assignment.Runs{}, assignment.AllRuns, assignment.AllRuns)
	for site, want := range map[string][]peer.ID{
		"":     ids("far", "edge"),
		"edge": ids("edge", "far"),
	} {
		m := New(Config{Self: id("x"), Site: site, Supernodes: ids("super"), Now: func() time.Time { return start }})
		pub := newPublisher("super")
		apply(m, pub.pool(pool)...)
		apply(m, pub.assign(assign))
		for stripe := range int64(64) {
			got := m.Sources(nil, task, stripe, false, nil)
			owner := rankOf(task, stripe, "a", "b")[0]
			if site == "edge" && (got[0] != Source{id("edge"), SiteSeed} || got[1] != Source{owner, Owner} || got[3].Peer != id("far")) {
				t.Fatalf("stripe %d at the edge: %v", stripe, got)
			}
			if site == "" && (got[0] != Source{owner, Owner} || !slices.Contains(want, got[2].Peer) || !slices.Contains(want, got[3].Peer)) {
				t.Fatalf("stripe %d elsewhere: %v", stripe, got)
			}
		}
	}
}

// Readers spread over the seeds that have the whole file, most over the fast
// ones, and none is left out for good.
func TestWholeSeedsShareReaders(t *testing.T) {
	task := taskNamed(1)
	rng := rand.New(rand.NewPCG(1, 2))
	m := New(Config{Self: id("x"), Supernodes: ids("super"), Now: func() time.Time { return start }, Random: rng.Float64})
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a", "b", "c", "d"))...)
	a := shares(task, ids("a", "b", "c", "d"), assignment.Runs{}, upTo(64), upTo(64), upTo(64))
	a.Whole = []bool{false, true, true, false}
	apply(m, pub.assign(a))
	m.Success(id("a"), 2*time.Millisecond)
	m.Success(id("b"), 2*time.Millisecond)
	m.Success(id("c"), time.Hour)
	const rounds = 4000
	first := make(map[peer.ID]int)
	for range rounds {
		got := m.Sources(nil, task, 5, false, nil)
		first[got[0].Peer]++
		if got[3].Peer != id("d") {
			t.Fatalf("the seed without the file is not last: %v", got)
		}
	}
	for name, want := range map[string]float64{"a": 10. / 21, "b": 10. / 21, "c": 1. / 21} {
		if got := float64(first[id(name)]) / rounds; got < want*0.85 || got > want*1.15 {
			t.Errorf("%s comes first in %.3f of all cases, want %.3f", name, got, want)
		}
	}
	m.Failure(id("b"))
	for range 200 {
		if got := m.Sources(nil, task, 5, false, nil); got[3].Peer != id("b") {
			t.Fatalf("a broken seed is not last: %v", got)
		}
	}
}

// A seed that says it is busy loses readers to the others that have the whole
// file at once, and gets them back when it answers again.
func TestBusySeedLosesReaders(t *testing.T) {
	task := taskNamed(1)
	rng := rand.New(rand.NewPCG(1, 2))
	m := New(Config{Self: id("x"), Supernodes: ids("super"), Now: func() time.Time { return start }, Random: rng.Float64})
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a", "b"))...)
	a := shares(task, ids("a", "b"), assignment.Runs{}, upTo(64))
	a.Whole = []bool{true, true}
	apply(m, pub.assign(a))
	part := func() float64 {
		const rounds = 4000
		first := 0
		for range rounds {
			if m.Sources(nil, task, 5, false, nil)[0].Peer == id("a") {
				first++
			}
		}
		return float64(first) / rounds
	}
	for range 20 {
		m.Success(id("a"), time.Millisecond)
		m.Success(id("b"), time.Millisecond)
	}
	if got := part(); got < 0.45 || got > 0.55 {
		t.Errorf("of two seeds alike one gets %.2f of the readers", got)
	}
	m.Success(id("a"), 250*time.Millisecond) // busy
	if got := part(); got > 0.1 {
		t.Errorf("a busy seed gets %.2f of the readers", got)
	}
	for range 30 {
		m.Success(id("a"), time.Millisecond)
	}
	if got := part(); got < 0.4 {
		t.Errorf("a seed that was busy gets %.2f of the readers", got)
	}
}

// A cordoned member is no seed of what has no assignment, and keeps what it has.
func TestCordonedMember(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	pool := members(1, "a", "b", "c")
	pool[0].Cordoned = true
	apply(m, pub.pool(pool)...)
	assigned := taskNamed(1)
	apply(m, pub.assign(assignTo(assigned, ids("a", "b")...)))
	wantSeeds(t, m, assigned, rankOf(assigned, 0, "a", "b")...)
	for n := range 50 {
		task := taskNamed(100 + n)
		wantSeeds(t, m, task, rankOf(task, 0, "b", "c")...)
	}
}
