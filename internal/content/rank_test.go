package content

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// members returns n members of weight 1 with made-up IDs.
func members(n int) []Member {
	m := make([]Member, n)
	for i := range m {
		sum := sha256.Sum256(fmt.Append(nil, "peer ", i))
		m[i] = Member{ID: peer.ID(sum[:]), Weight: 1}
	}
	return m
}

func key(i int) []byte { return binary.BigEndian.AppendUint64([]byte("key"), uint64(i)) }

func TestRankIsAPermutationLedByFirst(t *testing.T) {
	rnd := rand.New(rand.NewPCG(10, 11))
	byID := func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	}
	for i := range 500 {
		m := members(rnd.IntN(20) + 1)
		for j := range m {
			m[j].Weight = []float64{1, 2, 0.5, 0, -3, math.NaN()}[rnd.IntN(6)]
		}
		ranked := Rank(nil, key(i), m)
		first, ok := First(key(i), m)
		if !ok || first.ID != ranked[0].ID {
			t.Fatalf("key %d: First is %x, Rank begins with %x", i, first.ID, ranked[0].ID)
		}
		for j := 1; j < len(ranked); j++ {
			a, b := ranked[j-1], ranked[j]
			if sa, sb := Score(key(i), a), Score(key(i), b); sa < sb || sa == sb && a.ID > b.ID {
				t.Fatalf("key %d: %d and %d out of order", i, j-1, j)
			}
			if !(a.Weight > 0) && b.Weight > 0 {
				t.Fatalf("key %d: a weight of %v ranks before %v", i, a.Weight, b.Weight)
			}
		}
		rnd.Shuffle(len(m), func(a, b int) { m[a], m[b] = m[b], m[a] })
		again := Rank(nil, key(i), m)
		if !slices.EqualFunc(ranked, again, func(a, b Member) bool { return a.ID == b.ID }) {
			t.Fatalf("key %d: the order of the members changes their ranks", i)
		}
		slices.SortFunc(again, byID)
		slices.SortFunc(m, byID)
		if !slices.EqualFunc(m, again, func(a, b Member) bool { return a.ID == b.ID }) {
			t.Fatalf("key %d: Rank lost or doubled a member", i)
		}
	}
	if _, ok := First(key(0), nil); ok {
		t.Error("First of nobody")
	}
	if got := Rank(members(1), key(0), members(3)); len(got) != 4 || got[0] != members(1)[0] {
		t.Errorf("Rank does not append: %v", got)
	}
}

func TestRankMovesOnlyTheKeysOfALeaver(t *testing.T) {
	all := members(20)
	without := slices.Delete(slices.Clone(all), 7, 8)
	gone := all[7].ID
	moved := 0
	const keys = 4000
	for i := range keys {
		before, after := Rank(nil, key(i), all), Rank(nil, key(i), without)
		if before[0].ID == gone {
			moved++
		}
		before = slices.DeleteFunc(before, func(m Member) bool { return m.ID == gone })
		if !slices.Equal(before, after) {
			t.Fatalf("key %d: the order of those who stay has changed", i)
		}
	}
	if moved < keys/20*7/10 || moved > keys/20*13/10 {
		t.Errorf("%d of %d keys were the leaver's, want about %d", moved, keys, keys/20)
	}
}

func TestRankFollowsWeights(t *testing.T) {
	m := members(8)
	var sum float64
	for i := range m {
		m[i].Weight = []float64{1, 1, 2, 4, 0.5, 1, 8, 0}[i]
		sum += m[i].Weight
	}
	const keys = 60_000
	owned := make(map[peer.ID]int)
	for i := range keys {
		first, _ := First(key(i), m)
		owned[first.ID]++
	}
	for i, x := range m {
		got, want := float64(owned[x.ID])/keys, x.Weight/sum
		if math.Abs(got-want) > 0.05*want+0.001 {
			t.Errorf("member %d of weight %v owns %.4f of the keys, want %.4f", i, x.Weight, got, want)
		}
	}
}

// Raising one weight moves keys to that member and between no others.
func TestRankWeightChangeMovesKeysToTheChangedOnly(t *testing.T) {
	m := members(10)
	heavier := slices.Clone(m)
	heavier[3].Weight = 2
	for i := range 3000 {
		before, _ := First(key(i), m)
		after, _ := First(key(i), heavier)
		if before.ID != after.ID && after.ID != m[3].ID {
			t.Fatalf("key %d moved between members whose weights stayed", i)
		}
	}
}

func TestStripeKey(t *testing.T) {
	id := TaskID{1, 2, 3}
	if got := StripeKey(id, 0); string(got) != string(id[:]) {
		t.Errorf("stripe 0 is ranked by %x", got)
	}
	if got := StripeKey(id, 258); string(got) != string(id[:])+"\x00\x00\x00\x00\x00\x00\x01\x02" {
		t.Errorf("stripe 258 is ranked by %x", got)
	}
	if string(StripeKey(id, 1)) == string(StripeKey(id, 2)) {
		t.Error("two stripes have one key")
	}
}

func TestFirstDoesNotAllocate(t *testing.T) {
	m := members(256)
	k := key(1)
	if n := testing.AllocsPerRun(20, func() { First(k, m) }); n != 0 {
		t.Errorf("First allocates %v times", n)
	}
}

func BenchmarkFirst256(b *testing.B) {
	m := members(256)
	b.ReportAllocs()
	for b.Loop() {
		First(key(1), m)
	}
}
