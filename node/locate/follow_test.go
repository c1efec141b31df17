package locate

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// sharded makes the pools of updates say in how many shards the rest comes.
func sharded(shards int, us ...assignment.Update) []assignment.Update {
	for i := range us {
		if us[i].Pool != nil {
			us[i].Pool.Shards = shards
		}
	}
	return us
}

// inShards returns the prefixes of some shards of n.
func inShards(n int, shards ...int) *content.Prefixes {
	var p content.Prefixes
	for _, s := range shards {
		p.Add(byte(s * content.MaxShards / n))
	}
	p = p.Widen(n)
	return &p
}

func TestFollows(t *testing.T) {
	for _, c := range []struct {
		name         string
		super, other int // shards; -1: never heard of
		members      []string
		used         []byte
		want         *content.Prefixes
	}{
		{"nobody heard of", -1, -1, nil, []byte{1}, nil},
		{"one shard", 0, -1, []string{"a"}, []byte{1}, nil},
		{"nothing used", 16, -1, []string{"a"}, nil, inShards(16)},
		{"some used", 16, -1, []string{"a"}, []byte{0x35, 0x3f, 0xff}, inShards(16, 3, 15)},
		{"as many shards as prefixes", 256, -1, []string{"a"}, []byte{0x35, 0x3f}, inShards(256, 0x35, 0x3f)},
		{"a member of the pool", 16, -1, []string{"a", "x"}, []byte{1}, nil},
		{"the other has fewer shards", 16, 4, []string{"a"}, []byte{0x35}, inShards(4, 0)},
		{"the other has one", 16, 1, []string{"a"}, []byte{0x35}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newMap("x", "super", "other")
			for name, n := range map[string]int{"super": c.super, "other": c.other} {
				if n >= 0 {
					apply(m, sharded(n, newPublisher(name).pool(members(1, c.members...))...)...)
				}
			}
			for _, b := range c.used {
				m.Use(content.TaskID{b, 7})
			}
			m.Follow(false)
			if got := m.Follows(); !content.SamePrefixes(got, c.want) {
				t.Errorf("follows %v, want %v", got, c.want)
			}
		})
	}
}

// A shard is followed from the first use of a task in it on, and no more when
// none was used for a whole period; what is not followed is not kept.
func TestFollowComesAndGoes(t *testing.T) {
	m, _ := newMap("x", "super")
	pub := newPublisher("super")
	var all []assignment.Update
	for b := range 16 {
		all = append(all, pub.assign(assignTo(content.TaskID{byte(b << 4)}, ids("a")...)))
	}
	holds := func(what string, want ...byte) {
		t.Helper()
		var got []byte
		for e := range m.Entries() {
			got = append(got, e.Task[0]>>4)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: assignments of shards %v, want %v", what, got, want)
		}
	}
	follow := func(what string, over bool, want *content.Prefixes) {
		t.Helper()
		if got := m.Follow(over); !content.SamePrefixes(got, want) {
			t.Errorf("%s: followed newly %v, want %v", what, got, want)
		}
	}
	apply(m, all[:3]...)
	holds("before there is a pool", 0, 1, 2)
	apply(m, sharded(16, pub.pool(members(1, "a"))...)...)
	m.Use(content.TaskID{0x12})
	m.Use(content.TaskID{0x2f})
	select {
	case <-m.Reconsider():
	default:
		t.Error("no word of a new pool")
	}
	follow("with the pool", false, nil)
	holds("with the pool", 1, 2)
	apply(m, all...)
	holds("all were told", 1, 2)
	m.Use(content.TaskID{0x50})
	select {
	case <-m.Reconsider():
	default:
		t.Error("no word of a use")
	}
	follow("one more", false, inShards(16, 5))
	apply(m, all...)
	holds("one more", 1, 2, 5)
	follow("a period later", true, nil)
	m.Use(content.TaskID{0x50})
	follow("another", true, nil)
	holds("another", 5)
	apply(m, sharded(16, pub.pool(members(1, "a", "x"))...)...)
	others := content.AllPrefixes.Without(*inShards(16, 5))
	follow("as a member", false, &others)
	if m.Follows() != nil {
		t.Error("a member of the pool does not follow all")
	}
}

// A map that follows some shards agrees with what its supernode said at any time,
// whatever has come since; where it lacks an update it does not, and has it from
// whoever has all.
func TestSparseMapAgrees(t *testing.T) {
	checked, lost, whole := 0, 0, 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 9))
		us := sharded(4, script(rng, "super", 120)...)
		us = append(sharded(4, newPublisher("super").pool(peers(3))...), us[min(1, len(us)):]...)
		history := byRaw(us)
		full, _ := newMap("full", "super")
		sparse, _ := newMap("sparse", "super")
		sparse.Use(taskNamed(rng.IntN(30)))
		sparse.Use(taskNamed(rng.IntN(30)))
		ahead := rng.IntN(4)
		hashes := make([][32]byte, len(us))
		said := make([]assignment.Cursor, len(us))
		missing := rng.IntN(len(us)) // that one is lost
		var at int                   // of the hash that is compared next
		for i, u := range us {
			apply(full, u)
			hashes[i], said[i] = hashOf(full, sparse.Follows(), u.Cursor), u.Cursor
			if i != missing {
				apply(sparse, u)
			}
			sparse.Follow(false)
			if i == 0 && sparse.Follows() == nil {
				t.Fatal("follows all")
			}
			if at = i - ahead; at < 1 || said[at].Epoch != u.Epoch || said[at].Epoch != said[at-1].Epoch {
				continue
			}
			if sparse.Agree(said[at], hashes[at]) {
				if at < missing {
					checked++
				}
				continue
			}
			if at < missing || said[missing].Epoch < u.Epoch {
				t.Fatalf("seed %d: the map of step %d disagrees with step %d, and nothing is missing", seed, i, at)
			}
			lost++
			now := hashOf(full, sparse.Follows(), u.Cursor)
			for _, from := range [][]assignment.Cursor{sparse.Cursors(), {{Supernode: u.Supernode, Epoch: u.Epoch}}} {
				page, _ := full.Since(from, sparse.Follows(), 1<<30)
				for _, s := range page {
					sparse.Apply(s, history[string(s.Supernode)+string(s.Raw)])
				}
				if sparse.Agree(u.Cursor, now) {
					break
				}
				whole++ // a page of a pool changes no hash before the last has come
			}
			if !sparse.Agree(u.Cursor, now) {
				t.Fatalf("seed %d: step %d is not repaired", seed, i)
			}
		}
	}
	if checked < 500 || lost < 10 || whole > lost/4 {
		t.Errorf("%d comparisons, %d that found a loss, %d that needed all", checked, lost, whole)
	}
}

// hashOf is what the supernode says of some tasks, computed from scratch.
func hashOf(full *Map, want *content.Prefixes, at assignment.Cursor) [32]byte {
	var sum assignment.HashSum
	for e := range full.Entries() {
		if e.Supernode == at.Supernode && (want == nil || want.Has(e.Task[0])) {
			sum.Toggle(assignment.EntryDigest(e.Assign))
		}
	}
	full.mu.Lock()
	defer full.mu.Unlock()
	return assignment.Hash(at.Epoch, sum, full.states[0].poolDigest)
}
