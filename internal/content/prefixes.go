package content

import (
	"encoding/binary"
	"math/bits"
)

// MaxShards bounds the shards into which the tasks of a swarm are cut.
const MaxShards = 256

// ValidShards reports whether tasks can be cut into n shards: a power of two up
// to MaxShards.
func ValidShards(n int) bool { return n > 0 && n <= MaxShards && n&(n-1) == 0 }

// Shard returns the shard of a task out of n, which must be valid: the first bits
// of its ID.
func (id TaskID) Shard(n int) int { return int(id[0]) * n / MaxShards }

// Prefixes is a set of the first bytes of task IDs: bit b&7 of byte b/8 stands for
// b. It names shards whatever their number is. Its zero value is the empty set.
type Prefixes [MaxShards / 8]byte

// AllPrefixes is the set of all tasks.
var AllPrefixes = func() (p Prefixes) {
	for i := range p {
		p[i] = 0xff
	}
	return p
}()

// SamePrefixes reports whether two sets are the same; nil is one of its own, that
// of all tasks of whatever shard.
func SamePrefixes(a, b *Prefixes) bool { return a == b || a != nil && b != nil && *a == *b }

// Has reports whether tasks that begin with b are in the set.
func (p *Prefixes) Has(b byte) bool { return p[b/8]&(1<<(b%8)) != 0 }

// Add puts the tasks that begin with b into the set.
func (p *Prefixes) Add(b byte) { p[b/8] |= 1 << (b % 8) }

// Widen returns the set of all tasks in those of n shards, a valid number, that
// p names a task of.
func (p Prefixes) Widen(n int) Prefixes {
	var wide Prefixes
	for b := range MaxShards {
		if p.Has(byte(b)) {
			first := b * n / MaxShards * (MaxShards / n)
			for i := range MaxShards / n {
				wide.Add(byte(first + i))
			}
		}
	}
	return wide
}

// Without returns what is in p and not in o.
func (p Prefixes) Without(o Prefixes) Prefixes {
	for i := range p {
		p[i] &^= o[i]
	}
	return p
}

// Shards returns those of n shards, a valid number, that p names a task of, in
// ascending order.
func (p Prefixes) Shards(n int) []int {
	var out []int
	for b := range MaxShards {
		if s := b * n / MaxShards; p.Has(byte(b)) && (len(out) == 0 || out[len(out)-1] != s) {
			out = append(out, s)
		}
	}
	return out
}

// Len returns the number of first bytes in the set.
func (p Prefixes) Len() int {
	n := 0
	for i := 0; i < len(p); i += 8 {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(p[i:]))
	}
	return n
}

// PrefixesFromBytes reads a set off the wire: nil, which stands for all tasks,
// where there is none. It reports false for a set of another size.
func PrefixesFromBytes(b []byte) (*Prefixes, bool) {
	if len(b) == 0 {
		return nil, true
	}
	p := new(Prefixes)
	return p, copy(p[:], b) == len(b) && len(b) == len(p)
}

// Bytes is the inverse of PrefixesFromBytes.
func (p *Prefixes) Bytes() []byte {
	if p == nil {
		return nil
	}
	return p[:]
}
