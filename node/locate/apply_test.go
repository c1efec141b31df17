package locate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

func TestApply(t *testing.T) {
	task := taskNamed(1)
	// ranked is who is a seed where there is no assignment.
	ranked := []peer.ID{id("pool")}
	at := func(epoch, seq uint64, u assignment.Update) assignment.Update {
		u.Cursor = assignment.Cursor{Supernode: id("super"), Epoch: epoch, Seq: seq}
		u.Issued = start
		return u
	}
	assign := func(epoch, seq uint64, seeds ...string) assignment.Update {
		return at(epoch, seq, assignment.Update{Assigns: []assignment.Assign{assignTo(task, ids(seeds...)...)}})
	}
	withdraw := func(epoch, seq uint64) assignment.Update {
		return at(epoch, seq, assignment.Update{Assigns: []assignment.Assign{{Task: task, Size: -1}}})
	}
	floor := func(epoch, seq, floor uint64) assignment.Update {
		return at(epoch, seq, assignment.Update{Floor: floor})
	}
	foreign := assign(9, 9, "evil")
	foreign.Supernode = id("stranger")

	cases := []struct {
		name    string
		updates []assignment.Update
		want    []peer.ID
	}{
		{"none", nil, ranked},
		{"one", []assignment.Update{assign(1, 5, "a", "b")}, ids("a", "b")},
		{"newer", []assignment.Update{assign(1, 5, "a"), assign(1, 6, "b")}, ids("b")},
		{"older after newer", []assignment.Update{assign(1, 6, "b"), assign(1, 5, "a")}, ids("b")},
		{"twice", []assignment.Update{assign(1, 5, "a"), assign(1, 5, "a")}, ids("a")},
		{"older again", []assignment.Update{assign(1, 5, "a"), assign(1, 6, "b"), assign(1, 5, "a")}, ids("b")},
		{"withdrawn", []assignment.Update{assign(1, 5, "a"), withdraw(1, 6)}, ranked},
		{"withdrawn before it came", []assignment.Update{withdraw(1, 6), assign(1, 5, "a")}, ranked},
		{"withdrawn and assigned again", []assignment.Update{assign(1, 5, "a"), withdraw(1, 6), assign(1, 7, "b")}, ids("b")},
		{"no seeds named", []assignment.Update{assign(1, 5)}, ranked},
		{"newer epoch, lower number", []assignment.Update{assign(1, 500, "a"), assign(2, 3, "b")}, ids("b")},
		{"older epoch after newer", []assignment.Update{assign(2, 3, "b"), assign(1, 500, "a")}, ids("b")},
		{"newer epoch that does not name the task", []assignment.Update{assign(1, 500, "a"), floor(2, 3, 0)}, ranked},
		{"older epoch of another task's epoch", []assignment.Update{floor(2, 3, 0), assign(1, 500, "a")}, ranked},
		{"floor above", []assignment.Update{assign(1, 5, "a"), floor(1, 9, 6)}, ranked},
		{"floor above, first", []assignment.Update{floor(1, 9, 6), assign(1, 5, "a")}, ranked},
		{"floor at", []assignment.Update{assign(1, 5, "a"), floor(1, 9, 5)}, ids("a")},
		{"floor at, first", []assignment.Update{floor(1, 9, 5), assign(1, 5, "a")}, ids("a")},
		{"floor under a newer one", []assignment.Update{assign(1, 5, "a"), assign(1, 7, "b"), floor(1, 9, 6)}, ids("b")},
		{"older under the floor of a forgotten withdrawal", []assignment.Update{withdraw(1, 6), floor(1, 9, 8), assign(1, 5, "a")}, ranked},
		{"lower floor later", []assignment.Update{floor(1, 9, 8), floor(1, 10, 2), assign(1, 5, "a")}, ranked},
		{"supernode that is not configured", []assignment.Update{foreign}, ranked},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newMap("x", "super")
			pub := newPublisher("super")
			pub.epoch = 1
			apply(m, pub.pool(members(1, "pool"))...)
			apply(m, c.updates...)
			wantSeeds(t, m, task, c.want...)
		})
	}
}

func TestPoolPages(t *testing.T) {
	page := func(epoch, version uint64, page, pages int, names ...string) assignment.Update {
		return assignment.Update{
			Cursor: assignment.Cursor{Supernode: id("super"), Epoch: epoch, Seq: version + uint64(page)},
			Issued: start, Pool: &assignment.PoolPage{Page: page, Pages: pages, Members: members(1, names...)},
		}
	}
	cases := []struct {
		name    string
		updates []assignment.Update
		want    []peer.ID
	}{
		{"one page", []assignment.Update{page(1, 1, 0, 1, "a")}, ids("a")},
		{"missing page", []assignment.Update{page(1, 1, 0, 2, "a")}, nil},
		{"two pages", []assignment.Update{page(1, 1, 0, 2, "a"), page(1, 1, 1, 2, "b")}, ids("a", "b")},
		{"two pages, last first", []assignment.Update{page(1, 1, 1, 2, "b"), page(1, 1, 0, 2, "a")}, ids("a", "b")},
		{"one page twice is not two", []assignment.Update{page(1, 1, 1, 2, "b"), page(1, 1, 1, 2, "b")}, nil},
		{"newer incomplete keeps the older", []assignment.Update{page(1, 1, 0, 1, "a"), page(1, 2, 0, 2, "b")}, ids("a")},
		{"newer whole", []assignment.Update{page(1, 1, 0, 1, "a"), page(1, 2, 0, 2, "b"), page(1, 2, 1, 2, "c")}, ids("b", "c")},
		{"older after newer", []assignment.Update{page(1, 2, 0, 1, "b"), page(1, 1, 0, 1, "a")}, ids("b")},
		{"older completed after newer began", []assignment.Update{page(1, 5, 0, 2, "b"), page(1, 1, 0, 2, "a"), page(1, 1, 1, 2, "c")}, ids("a", "c")},
		{"newer completed after the older", []assignment.Update{page(1, 5, 0, 2, "b"), page(1, 1, 0, 1, "a"), page(1, 5, 1, 2, "c")}, ids("b", "c")},
		{"pages of two pools do not mix", []assignment.Update{page(1, 1, 0, 2, "a"), page(1, 3, 1, 2, "b")}, nil},
		{"other number of pages", []assignment.Update{page(1, 1, 0, 2, "a"), page(1, 1, 1, 3, "b")}, nil},
		{"member twice", []assignment.Update{page(1, 1, 0, 2, "a"), page(1, 1, 1, 2, "a", "b")}, ids("a", "b")},
		{"newer epoch keeps the pool until its own", []assignment.Update{page(1, 7, 0, 1, "a"), page(2, 1, 0, 2, "b")}, ids("a")},
		{"newer epoch whole", []assignment.Update{page(1, 7, 0, 1, "a"), page(2, 1, 0, 1, "b")}, ids("b")},
		{"emptied", []assignment.Update{page(1, 1, 0, 1, "a"), page(1, 2, 0, 1)}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newMap("x", "super")
			apply(m, c.updates...)
			var got []peer.ID
			for _, member := range m.Pool() {
				got = append(got, member.ID)
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("pool %q, want %q", got, c.want)
			}
		})
	}
}

// TestFilterQuery: of the supernodes that name parameters the one that started
// last counts, and nobody who was forgotten.
func TestFilterQuery(t *testing.T) {
	page := func(super string, epoch, seq uint64, names ...string) assignment.Update {
		return assignment.Update{
			Cursor: assignment.Cursor{Supernode: id(super), Epoch: epoch, Seq: seq},
			Issued: start, Pool: &assignment.PoolPage{Pages: 1, Members: members(1, "a"), FilterQuery: names},
		}
	}
	m, _ := newMap("x", "one", "two", "three")
	for _, step := range []struct {
		u    assignment.Update
		want []string
	}{
		{page("one", 5, 1), nil},
		{page("one", 5, 2, "b"), []string{"b"}},
		{page("two", 4, 9, "c"), []string{"b"}},
		{page("three", 7, 1), []string{"b"}},
		{page("two", 6, 1, "c", "d"), []string{"c", "d"}},
		{page("stranger", 9, 1, "e"), []string{"c", "d"}},
		{page("two", 6, 3), []string{"b"}},
		{page("two", 6, 2, "f"), []string{"b"}},
	} {
		apply(m, step.u)
		if got := m.FilterQuery(); !slices.Equal(got, step.want) {
			t.Errorf("after %v of %s: %q, want %q", step.u.Pool.FilterQuery, step.u.Supernode, got, step.want)
		}
	}
	if got, want := m.Hash(id("one")), assignment.Hash(5, assignment.HashSum{}, assignment.PoolDigest(members(1, "a"), "b")); got != want {
		t.Error("the hash lacks the filter")
	}
	m.Forget(id("one"))
	if got := m.FilterQuery(); got != nil {
		t.Errorf("%q of a forgotten supernode", got)
	}
}

// script is a random but valid history of one supernode: its epochs, and in
// each assignments, withdrawals, floors and pools.
func script(rng *rand.Rand, name string, n int) []assignment.Update {
	pub := newPublisher(name)
	var us []assignment.Update
	for range n {
		switch r := rng.IntN(20); {
		case r == 0 && rng.IntN(4) == 0:
			pub.epoch, pub.seq = pub.epoch+1, 0
		case r == 1:
			us = append(us, pub.pool(peers(3 + rng.IntN(5))[:2], peers(40)[20+rng.IntN(10):])...)
		case r == 2:
			floor := uint64(rng.IntN(int(pub.seq) + 1))
			us = append(us, pub.update(assignment.Update{Floor: floor}))
		default:
			var as []assignment.Assign
			for _, i := range rng.Perm(30)[:1+rng.IntN(3)] {
				a := assignTo(taskNamed(i), peers(20)[rng.IntN(10)].ID, peers(20)[10+rng.IntN(10)].ID)
				if rng.IntN(4) == 0 {
					a.Seeds, a.Lease = nil, 0
				}
				as = append(as, a)
			}
			us = append(us, pub.assign(as...))
		}
	}
	// Until an epoch has a pool, that of an earlier one stays for who had it.
	return append(us, pub.pool(peers(5))...)
}

// fingerprint is all that a map answers.
func fingerprint(m *Map) (entries []Entry, owners []peer.ID, hashes [][32]byte, pool []assignment.Member) {
	entries = slices.Collect(m.Entries())
	for i := range 40 {
		for stripe := range int64(3) {
			owner, _ := m.Owner(taskNamed(i), stripe, false, nil)
			owners = append(owners, owner)
		}
	}
	for _, s := range ids("super", "other") {
		hashes = append(hashes, m.Hash(s))
	}
	return entries, owners, hashes, m.Pool()
}

// However updates are shuffled and repeated, maps that got all of them agree;
// and their hash is the one computed from scratch.
func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		us := append(script(rng, "super", 80), script(rng, "other", 40)...)
		inOrder, _ := newMap("x", "super", "other")
		apply(inOrder, us...)
		entries, owners, hashes, pool := fingerprint(inOrder)
		for range 3 {
			shuffled := slices.Concat(us, us[:len(us)/2])
			rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			m, _ := newMap("x", "super", "other")
			apply(m, shuffled...)
			e2, o2, h2, p2 := fingerprint(m)
			if !slices.EqualFunc(entries, e2, func(a, b Entry) bool {
				return a.Task == b.Task && a.Supernode == b.Supernode && a.Expires.Equal(b.Expires) && slices.Equal(a.Seeds, b.Seeds)
			}) {
				t.Fatalf("seed %d: %d entries in order, %d others shuffled", seed, len(entries), len(e2))
			}
			if !slices.Equal(owners, o2) || !slices.Equal(hashes, h2) {
				t.Fatalf("seed %d: owners or hashes differ", seed)
			}
			if !slices.EqualFunc(pool, p2, func(a, b assignment.Member) bool { return a.ID == b.ID && a.Weight == b.Weight }) {
				t.Fatalf("seed %d: pools differ", seed)
			}
			checkHash(t, inOrder, us, "super")
		}
	}
}

// checkHash compares with the last epoch of the history, replayed in the
// simplest way there is.
func checkHash(t *testing.T, m *Map, us []assignment.Update, name string) {
	t.Helper()
	var epoch, poolVersion uint64
	live := make(map[content.TaskID]assignment.Assign)
	last := make(map[content.TaskID]uint64)
	var pool []assignment.Member
	pages := make(map[uint64][]assignment.Member)
	for _, u := range us { // in order
		if u.Supernode != id(name) {
			continue
		}
		if u.Epoch > epoch {
			epoch, poolVersion, pool = u.Epoch, 0, nil
			clear(live)
			clear(last)
			clear(pages)
		}
		for task := range live {
			if last[task] < u.Floor {
				delete(live, task)
			}
		}
		for _, a := range u.Assigns {
			last[a.Task] = u.Seq
			delete(live, a.Task)
			if a.Lease > 0 {
				live[a.Task] = a
			}
		}
		if u.Pool != nil {
			v := u.PoolVersion()
			pages[v] = append(pages[v], u.Pool.Members...)
			if u.Pool.Page == u.Pool.Pages-1 && v > poolVersion {
				poolVersion, pool = v, pages[v]
			}
		}
	}
	var sum assignment.HashSum
	for _, a := range live {
		sum.Toggle(assignment.EntryDigest(a))
	}
	if got, want := m.Hash(id(name)), assignment.Hash(epoch, sum, assignment.PoolDigest(pool)); got != want {
		t.Fatalf("hash %x, want %x", got, want)
	}
}

// A new epoch has no pool for the hash, though readers use the old one still.
func TestHashOfNewEpoch(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a"))...)
	apply(m, pub.assign(assignTo(taskNamed(1), id("a"))))
	pub.epoch, pub.seq = pub.epoch+1, 0
	a := assignTo(taskNamed(2), id("b"))
	apply(m, pub.assign(a))
	var sum assignment.HashSum
	sum.Toggle(assignment.EntryDigest(a))
	if got, want := m.Hash(pub.id), assignment.Hash(pub.epoch, sum, assignment.PoolDigest(nil)); got != want {
		t.Errorf("hash %x, want %x", got, want)
	}
	wantSeeds(t, m, taskNamed(1), id("a")) // by the old pool
	if m.Hash(id("stranger")) != [32]byte{} {
		t.Error("a supernode that is not configured has a hash")
	}
}

func TestLiveBeforeExpired(t *testing.T) {
	task := taskNamed(1)
	m, clk := newMap("x", "super", "other")
	own, next := "super", "other"
	if m.cfg.Supernodes[m.order(task[:])[0]] == id("other") {
		own, next = next, own
	}
	a, b := newPublisher(own), newPublisher(next)
	short, long := assignTo(task, id("own")), assignTo(task, id("next"))
	short.Lease, long.Lease = time.Minute, time.Hour
	apply(m, b.assign(long))
	wantSeeds(t, m, task, id("next"))
	apply(m, a.assign(short))
	wantSeeds(t, m, task, id("own"))
	clk.now = start.Add(2 * time.Minute)
	wantSeeds(t, m, task, id("next")) // the live one
	clk.now = start.Add(2 * time.Hour)
	wantSeeds(t, m, task, id("own")) // none is live: the task's own supernode
}

func TestWhichPool(t *testing.T) {
	task := taskNamed(1)
	m, clk := newMap("x", "super", "other")
	own, next := id("super"), id("other")
	if m.cfg.Supernodes[m.order(task[:])[0]] == next {
		own, next = next, own
	}
	nextPub, ownPub := &publisher{id: next, epoch: 1, at: start}, &publisher{id: own, epoch: 1, at: start}
	apply(m, nextPub.pool(members(1, "next"))...)
	wantSeeds(t, m, task, id("next"))
	apply(m, ownPub.pool(members(1, "own"))...)
	wantSeeds(t, m, task, id("own"))

	clk.now = start.Add(29 * time.Second)
	m.Confirm(next)
	wantSeeds(t, m, task, id("own"))
	clk.now = start.Add(31 * time.Second)
	wantSeeds(t, m, task, id("next")) // the own one is not heard of
	m.Confirm(own)
	wantSeeds(t, m, task, id("own"))
	clk.now = start.Add(time.Hour)
	wantSeeds(t, m, task, id("own")) // nobody is: the last known, the same everywhere
	m.Confirm(id("stranger"))
}

func TestEviction(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(Config{Self: id("x"), Supernodes: ids("super"), MaxTasks: 100, Registerer: reg})
	pub := newPublisher("super")
	read := taskNamed(3)
	for n := range 1000 {
		apply(m, pub.assign(assignTo(taskNamed(n), id("seed"))))
		if n >= 3 {
			if owner, _ := m.Owner(read, 0, false, nil); owner != id("seed") {
				t.Fatalf("task that is read all the time forgotten after %d", n)
			}
		}
		if n%10 == 9 { // updated all the time
			apply(m, pub.assign(assignTo(taskNamed(4), id("seed"))))
		}
	}
	if m.Len() != 100 {
		t.Errorf("%d tasks, want 100", m.Len())
	}
	for n, want := range map[int]bool{3: true, 4: true, 5: false, 500: false, 999: true} {
		if _, ok := m.Owner(taskNamed(n), 0, false, nil); ok != want {
			t.Errorf("task %d known: %v, want %v", n, ok, want)
		}
	}
	if len(m.queue.slots) > 2*100+1024 {
		t.Errorf("queue of %d places", len(m.queue.slots))
	}
	if n := len(m.states[0].log.records); n != 100 {
		t.Errorf("%d updates kept for 100 tasks", n)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, x := range f.GetMetric() {
			got[f.GetName()] += x.GetGauge().GetValue() + x.GetCounter().GetValue()
		}
	}
	if got["p2pnode_locate_map_entries"] != 100 || got["p2pnode_locate_map_evictions_total"] < 900 {
		t.Errorf("metrics %v", got)
	}
}

func TestTrustedSigner(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	old := pub.pool(members(1, "a"))
	apply(m, pub.pool(members(1, "b"))...)
	apply(m, old...) // stale as a pool, and still signed by a supernode
	evil := newPublisher("stranger").pool(members(1, "evil"))
	apply(m, evil...)
	for name, want := range map[string]bool{"a": true, "b": true, "x": true, "evil": false, "other": false} {
		if got := m.TrustedSigner(id(name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	restarted, _ := newMap("y", "super")
	restarted.AddSigners(m.Signers())
	if !restarted.TrustedSigner(id("a")) || restarted.TrustedSigner(id("evil")) || restarted.TrustedSigner(id("x")) {
		t.Error("signers not restored")
	}
	var many []peer.ID
	for i := range maxSigners {
		many = append(many, peer.ID(fmt.Sprint(i)))
	}
	m.AddSigners(many)
	if len(m.Signers()) != maxSigners || m.TrustedSigner(id("a")) {
		t.Error("no bound on the signers")
	}
}

// Readers run while a writer replaces assignments: all seeds of a task are
// always of one update, and the epoch never goes back.
func TestReadersSeeWholeUpdates(t *testing.T) {
	m, _ := newMap("x", "super")
	generations := make([][]peer.ID, 200)
	member := make(map[peer.ID]int)
	for g := range generations {
		for i := range 3 {
			p := id(string(rune('a'+i)) + string(rune(g+200)))
			generations[g] = append(generations[g], p)
			member[p] = g
		}
	}
	pub := newPublisher("super")
	write := func(g int) {
		var as []assignment.Assign
		for n := range 50 {
			as = append(as, assignTo(taskNamed(n), generations[g]...))
		}
		if g%20 == 19 {
			pub.epoch, pub.seq = pub.epoch+1, 0
		}
		apply(m, pub.assign(as...))
	}
	write(0)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for r := range 4 {
		wg.Go(func() {
			var dst []Source
			last := 0
			var lastEpoch, lastSeq uint64
			for n := r; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				dst = m.Sources(dst[:0], taskNamed(n%50), int64(n), false, nil)
				if len(dst) != 3 || member[dst[0].Peer] != member[dst[1].Peer] || member[dst[0].Peer] != member[dst[2].Peer] || member[dst[0].Peer] < last {
					t.Errorf("sources %v after generation %d", dst, last)
					return
				}
				last = member[dst[0].Peer]
				epoch, seq := m.Version()
				if epoch < lastEpoch || epoch == lastEpoch && seq < lastSeq {
					t.Errorf("version went back from %d/%d to %d/%d", lastEpoch, lastSeq, epoch, seq)
					return
				}
				lastEpoch, lastSeq = epoch, seq
				m.Failure(dst[0].Peer)
				m.Success(dst[0].Peer, time.Millisecond)
			}
		})
	}
	for g := 1; g < len(generations); g++ {
		write(g)
	}
	close(done)
	wg.Wait()
}

// Of a supernode that was revoked nothing is left: no assignment, no pool, no
// signer that it alone has named.
func TestForget(t *testing.T) {
	m, _ := newMap("x", "super", "revoked")
	good, bad := newPublisher("super"), newPublisher("revoked")
	apply(m, good.pool(members(1, "a"))...)
	apply(m, bad.pool(members(1, "evil"))...)
	tasks := 0
	for n := range 64 {
		apply(m, bad.assign(assignTo(taskNamed(n), id("evil"))))
		if n%2 == 0 {
			apply(m, good.assign(assignTo(taskNamed(n), id("a"))))
			tasks++
		}
	}
	m.Forget(id("revoked"))
	m.Forget(id("revoked"))
	m.Forget(id("stranger"))
	for n := range 64 {
		wantSeeds(t, m, taskNamed(n), id("a"))
	}
	if m.TrustedSigner(id("evil")) || !m.TrustedSigner(id("a")) || m.MayGrant(id("evil")) {
		t.Error("a seed that the revoked supernode alone has named is believed, or another is not")
	}
	if m.Len() != tasks {
		t.Errorf("%d tasks are left, want %d", m.Len(), tasks)
	}
	for _, c := range m.Cursors() {
		if c.Supernode == id("revoked") && c.Seq != 0 {
			t.Errorf("of a revoked supernode updates up to %d are held", c.Seq)
		}
	}
}
