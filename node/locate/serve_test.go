package locate

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// pull copies from one map to another what fetch would, page by page.
func pull(t *testing.T, from, to *Map, history map[string]assignment.Update, cursors []assignment.Cursor, pageBytes int) (entries int) {
	t.Helper()
	for pages := 0; ; pages++ {
		if pages > 10_000 {
			t.Fatal("fetching does not end")
		}
		page, more := from.Since(cursors, nil, pageBytes)
		for _, s := range page {
			u := history[string(s.Supernode)+string(s.Raw)]
			to.Apply(s, u)
			at := slices.IndexFunc(cursors, func(c assignment.Cursor) bool { return c.Supernode == u.Supernode })
			if at < 0 {
				cursors = append(cursors, u.Cursor)
				continue
			}
			if cursors[at].Epoch == u.Epoch && cursors[at].Seq >= u.Seq {
				t.Fatalf("entries not in ascending order: %d after %d", u.Seq, cursors[at].Seq)
			}
			cursors[at] = u.Cursor
		}
		entries += len(page)
		if !more {
			return entries
		}
	}
}

func byRaw(us []assignment.Update) map[string]assignment.Update {
	history := make(map[string]assignment.Update)
	for _, u := range us {
		history[string(u.Supernode)+string(signed(u).Raw)] = u
	}
	return history
}

// A node that fetched from another one, or that lost messages and fetched what
// came after its cursors, has the same map.
func TestFetchRepairs(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		us := append(script(rng, "super", 120), script(rng, "other", 60)...)
		history := byRaw(us)
		full, _ := newMap("x", "super", "other")
		apply(full, us...)

		fresh, _ := newMap("y", "super", "other")
		pull(t, full, fresh, history, nil, 400)
		lossy, _ := newMap("z", "super", "other")
		for _, u := range us {
			if rng.IntN(3) > 0 {
				apply(lossy, u)
			}
		}
		pull(t, full, lossy, history, lossy.Cursors(), 400)
		for _, m := range []*Map{fresh, lossy} {
			for _, s := range ids("super", "other") {
				if m.Hash(s) != full.Hash(s) {
					t.Fatalf("seed %d: map of %q differs after fetching", seed, s)
				}
			}
		}
		// And can pass it on itself.
		second, _ := newMap("w", "super", "other")
		pull(t, fresh, second, history, nil, 1<<20)
		if second.Hash(id("super")) != full.Hash(id("super")) {
			t.Fatalf("seed %d: map differs after fetching from one that fetched", seed)
		}
	}
}

func TestSince(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a"))...)                                                             // 1
	apply(m, pub.assign(assignTo(taskNamed(1), id("a")), assignTo(taskNamed(2), id("a"))))             // 2
	apply(m, pub.assign(assignTo(taskNamed(1), id("b"))), pub.assign(assignTo(taskNamed(2), id("b")))) // 3, 4: nothing rests on 2
	apply(m, pub.pool(members(1, "b"))...)                                                             // 5, instead of 1
	at := func(epoch, seq uint64) []assignment.Cursor {
		return []assignment.Cursor{{Supernode: id("super"), Epoch: epoch, Seq: seq}}
	}
	for _, c := range []struct {
		name    string
		cursors []assignment.Cursor
		want    []string
	}{
		{"no cursor", nil, []string{"1000/3", "1000/4", "1000/5"}},
		{"behind", at(1000, 2), []string{"1000/3", "1000/4", "1000/5"}},
		{"in between", at(1000, 3), []string{"1000/4", "1000/5"}},
		{"up to date", at(1000, 5), nil},
		{"older epoch", at(999, 77), []string{"1000/3", "1000/4", "1000/5"}},
		{"newer epoch", at(1001, 1), nil},
		{"other supernode", []assignment.Cursor{{Supernode: id("stranger"), Epoch: 1000, Seq: 5}}, []string{"1000/3", "1000/4", "1000/5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			entries, more := m.Since(c.cursors, nil, 1<<20)
			var got []string
			for _, e := range entries {
				got = append(got, string(e.Raw))
			}
			if !slices.Equal(got, c.want) || more {
				t.Errorf("got %q, more %v, want %q", got, more, c.want)
			}
		})
	}
	if entries, more := m.Since(nil, nil, 1); len(entries) != 1 || !more {
		t.Errorf("smaller than one entry: %d entries, more %v", len(entries), more)
	}
}

func TestCursorsStopAtGap(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	var us []assignment.Update
	for n := range 6 {
		us = append(us, pub.assign(assignTo(taskNamed(n), id("a"))))
	}
	for _, step := range []struct {
		apply int
		want  uint64
	}{{0, 1}, {1, 2}, {3, 2}, {4, 2}, {2, 5}, {2, 5}, {5, 6}} {
		apply(m, us[step.apply])
		if got := m.Cursors(); len(got) != 1 || got[0] != (assignment.Cursor{Supernode: id("super"), Epoch: 1000, Seq: step.want}) {
			t.Fatalf("after update %d: cursors %v, want number %d", step.apply+1, got, step.want)
		}
	}
}

func TestAgree(t *testing.T) {
	pub := newPublisher("super")
	truth, _ := newMap("super node", "super")
	m, _ := newMap("x", "super")
	ack := func() (assignment.Cursor, [32]byte) {
		return assignment.Cursor{Supernode: pub.id, Epoch: pub.epoch, Seq: pub.seq}, truth.Hash(pub.id)
	}
	publish := func(lost bool, u assignment.Update) {
		apply(truth, u)
		if !lost {
			apply(m, u)
		}
	}
	want := func(step string, agree bool, low uint64) {
		t.Helper()
		if got := m.Agree(ack()); got != agree {
			t.Errorf("%s: agrees %v, want %v", step, got, agree)
		}
		if got := m.Cursors()[0].Seq; got != low {
			t.Errorf("%s: cursor at %d, want %d", step, got, low)
		}
	}
	publish(false, pub.assign(assignTo(taskNamed(1), id("a"))))
	want("nothing lost", true, 1)
	lost := pub.assign(assignTo(taskNamed(2), id("a")))
	publish(true, lost)
	want("one lost", false, 1)
	publish(false, pub.assign(assignTo(taskNamed(3), id("a"))))
	want("one lost before another", false, 1)
	apply(m, lost)
	want("repaired", true, 3)
	publish(true, pub.assign(assignTo(taskNamed(3), id("b"))))
	publish(false, pub.assign(assignTo(taskNamed(3), id("c"))))
	want("lost one was replaced", true, 5)
	if n := len(m.states[0].ahead); n != 0 {
		t.Errorf("%d numbers remembered behind no gap", n)
	}

	publish(true, pub.assign(assignTo(taskNamed(4), id("a"))))
	publish(false, pub.assign(assignTo(taskNamed(4), id("b"))))
	want("lost one was replaced, again", true, 7)

	old, oldHash := ack()
	publish(false, pub.assign(assignTo(taskNamed(5), id("b"))))
	if !m.Agree(old, oldHash) {
		t.Error("acknowledgement from before the last update: does not agree")
	}
	pub.epoch, pub.seq = pub.epoch+1, 0
	publish(true, pub.assign(assignTo(taskNamed(1), id("c"))))
	want("restarted supernode", false, 8)
	if !m.Agree(assignment.Cursor{Supernode: id("stranger"), Epoch: 1 << 40}, [32]byte{1}) {
		t.Error("a supernode that is not configured has something to say")
	}
}

func TestLogIsBounded(t *testing.T) {
	var l log
	big := assignment.Signed{Raw: make([]byte, 1<<20), Supernode: id("super")}
	for seq := range uint64(100) {
		u := assignment.Update{Cursor: assignment.Cursor{Supernode: id("super"), Seq: seq + 1}}
		l.hold(l.record(big, u))
	}
	if l.bytes > maxLogBytes || len(l.records) != 100 {
		t.Errorf("%d bytes in %d records", l.bytes, len(l.records))
	}
	served, _, more := l.since(nil, 0, nil, 1<<40)
	if len(served) < 50 || len(served) > 64 || more {
		t.Errorf("%d of 100 served, more %v", len(served), more)
	}
	for _, seq := range slices.Clone(l.order) {
		l.release(l.records[seq])
	}
	if l.bytes != 0 || len(l.records) != 0 || len(l.order) > 64 {
		t.Errorf("after releasing all: %d bytes, %d records, %d numbers", l.bytes, len(l.records), len(l.order))
	}
}
