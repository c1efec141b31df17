package content

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A task is in the shard that its prefix names, shards have as many prefixes each,
// and a set that was widened has whole shards.
func TestPrefixesAreShards(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= MaxShards; n *= 2 {
		count := make([]int, n)
		for b := range MaxShards {
			count[TaskID{byte(b), 0xff}.Shard(n)]++
		}
		for s, c := range count {
			if c != MaxShards/n {
				t.Errorf("%d shards: %d prefixes in shard %d", n, c, s)
			}
		}
		for range 20 {
			var p Prefixes
			shards := make(map[int]bool)
			for range rng.IntN(6) {
				b := byte(rng.IntN(MaxShards))
				p.Add(b)
				shards[TaskID{b}.Shard(n)] = true
			}
			wide := p.Widen(n)
			if wide.Len() != len(shards)*MaxShards/n || p.Without(wide) != (Prefixes{}) {
				t.Fatalf("%d shards: %x widened is %x", n, p, wide)
			}
			got := p.Shards(n)
			if len(got) != len(shards) || !slices.IsSorted(got) || !slices.Equal(got, wide.Shards(n)) {
				t.Fatalf("%d shards: %x is of %v, want %v", n, p, got, shards)
			}
		}
	}
	for n, want := range map[int]bool{-1: false, 0: false, 1: true, 2: true, 3: false, 16: true, 256: true, 512: false} {
		if ValidShards(n) != want {
			t.Errorf("%d shards are valid: %t", n, !want)
		}
	}
}

func TestPrefixesOnTheWire(t *testing.T) {
	p := Prefixes{1, 31: 128}
	for _, c := range []struct {
		in   []byte
		want *Prefixes
		ok   bool
	}{{nil, nil, true}, {p[:], &p, true}, {make([]byte, 32), &Prefixes{}, true}, {make([]byte, 31), nil, false}, {make([]byte, 33), nil, false}} {
		got, ok := PrefixesFromBytes(c.in)
		if ok != c.ok || ok && ((got == nil) != (c.want == nil) || got != nil && *got != *c.want) {
			t.Errorf("%x: %v, %t", c.in, got, ok)
		}
		if ok && !slices.Equal(got.Bytes(), c.in) {
			t.Errorf("%x became %x", c.in, got.Bytes())
		}
	}
}
