package assignment

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
)

func TestHashSumHasNoOrder(t *testing.T) {
	var digests [][32]byte
	for n := range byte(20) {
		digests = append(digests, EntryDigest(Assign{Task: task(n), Size: -1}))
	}
	var forth, back HashSum
	for i := range digests {
		forth.Toggle(digests[i])
		back.Toggle(digests[len(digests)-1-i])
	}
	if forth != back || forth == (HashSum{}) {
		t.Errorf("sums %x and %x", forth, back)
	}
	for _, i := range rand.Perm(len(digests)) {
		forth.Toggle(digests[i])
	}
	if forth != (HashSum{}) {
		t.Errorf("%x is left after all entries were taken out", forth)
	}
}

func TestEntryDigestCoversAllButTheLease(t *testing.T) {
	want := EntryDigest(sharedAssign(t))
	for name, change := range map[string]func(*Assign){
		"task":          func(a *Assign) { a.Task[5]++ },
		"URL":           func(a *Assign) { a.URL += "x" },
		"generation":    func(a *Assign) { a.Generation = content.Generation{} },
		"size":          func(a *Assign) { a.Size-- },
		"size unknown":  func(a *Assign) { a.Size = -1 },
		"sequential":    func(a *Assign) { a.Sequential = true },
		"order":         func(a *Assign) { a.Seeds[0], a.Seeds[1] = a.Seeds[1], a.Seeds[0] },
		"fewer seeds":   func(a *Assign) { a.Seeds = a.Seeds[:1] },
		"excluded":      func(a *Assign) { a.Excluded[1].Add(9) },
		"none excluded": func(a *Assign) { a.Excluded = nil },
		"whole":         func(a *Assign) { a.Whole[0] = true },
		"none whole":    func(a *Assign) { a.Whole = nil },
		"shifted bytes": func(a *Assign) { a.URL, a.Seeds[0] = a.URL+string(a.Seeds[0][:1]), a.Seeds[0][1:] },
	} {
		a := sharedAssign(t)
		change(&a)
		if EntryDigest(a) == want {
			t.Errorf("%s: same digest", name)
		}
	}
	a := sharedAssign(t)
	a.Lease = time.Hour
	if EntryDigest(a) != want {
		t.Error("renewing the lease changed the digest")
	}
	a = testAssign(t)
	want = EntryDigest(a)
	a.Excluded, a.Whole = make([]Runs, len(a.Seeds)), make([]bool, len(a.Seeds))
	if EntryDigest(a) != want {
		t.Error("marks that say nothing changed the digest")
	}
}

func TestPoolDigest(t *testing.T) {
	members := []Member{testMember(t, 2), testMember(t, 3), testMember(t, 4)}
	want := PoolDigest(members)
	for range 10 {
		rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		if PoolDigest(members) != want {
			t.Fatal("order changed the digest")
		}
	}
	for name, change := range map[string]func(*Member){
		"ID":     func(m *Member) { m.ID = testID(t, 9) },
		"site":   func(m *Member) { m.Site = "" },
		"weight": func(m *Member) { m.Weight = 4 },
		"cordon": func(m *Member) { m.Cordoned = true },
		"addrs":  func(m *Member) { m.Addrs = m.Addrs[:1] },
		"addr":   func(m *Member) { m.Addrs = []multiaddr.Multiaddr{m.Addrs[1], m.Addrs[0]} },
	} {
		changed := append([]Member(nil), members...)
		change(&changed[1])
		if PoolDigest(changed) == want {
			t.Errorf("%s: same digest", name)
		}
	}
	if PoolDigest(members[:2]) == want || PoolDigest(nil) == [32]byte{} {
		t.Error("digest of fewer members")
	}
}

// What a member's encoding forgets must not be in its digest either, or the two
// sides would never agree.
func TestDigestsSurviveTheWire(t *testing.T) {
	key, _ := testKey(t, 1)
	a := testAssign(t)
	a.Size = -7
	many := testMember(t, 3)
	for range 20 {
		many.Addrs = append(many.Addrs, many.Addrs[0])
	}
	members := []Member{testMember(t, 2), many}
	at := Cursor{Epoch: 1, Seq: 1}
	for _, u := range []Update{{Cursor: at, Assigns: []Assign{a}}, {Cursor: at, Pool: &PoolPage{Pages: 1, Members: members}}} {
		s, err := Sign(key, u)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Open(anybody)
		if err != nil {
			t.Fatal(err)
		}
		if u.Pool != nil && PoolDigest(got.Pool.Members) != PoolDigest(members) {
			t.Error("pool digest differs")
		}
		if u.Pool == nil && EntryDigest(got.Assigns[0]) != EntryDigest(a) {
			t.Error("entry digest differs")
		}
	}
}
