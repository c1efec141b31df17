package assignment

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

const (
	assignLabel = "p2pnode/assign/1"
	poolLabel   = "p2pnode/pool/1"
	mapLabel    = "p2pnode/map/1"
)

// HashSum is the set of a supernode's live assignments, summed up: the XOR of
// their entry digests. The zero value is the empty set.
//
// XOR makes the sum independent of order and one step for each change. It is
// not collision-resistant against somebody who chooses hundreds of entries
// freely, and need not be: all entries are signed by the one supernode that
// also states the sum, so the sum has to show loss, not forgery.
type HashSum [sha256.Size]byte

// Toggle puts an entry's digest into the set, or takes it out where it is in.
func (h *HashSum) Toggle(entry [sha256.Size]byte) {
	for i := range h {
		h[i] ^= entry[i]
	}
}

// EntryDigest is the digest of one live assignment: all of it but the lease,
// which is renewed without changing the map. An assignment is in the set from
// the update that states it to the one that withdraws it; that its lease ran
// out takes nothing out, since clocks differ.
func EntryDigest(a Assign) [sha256.Size]byte {
	b := append(make([]byte, 0, 256), assignLabel...)
	b = append(b, a.Task[:]...)
	b = append(b, a.Generation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(max(a.Size, -1)))
	sequential := byte(0)
	if a.Sequential {
		sequential = 1
	}
	b = append(b, sequential)
	b = appendString(b, a.URL)
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.Seeds)))
	for _, s := range a.Seeds {
		b = appendString(b, string(s))
	}
	// What came later is appended only where it says something.
	if excluded := a.excluded(); excluded != nil {
		b = append(b, 'x')
		for _, r := range excluded {
			b = appendString(b, string(r))
		}
	}
	if whole := a.whole(); len(whole) > 0 {
		b = append(b, 'w')
		b = appendString(b, string(whole))
	}
	return sha256.Sum256(b)
}

// PoolDigest is the digest of a whole pool, in any order of its members; the
// addresses of a member count in their order. members stays as it is. The
// digest of no members is that of an empty pool, not zero. filterQuery is what
// the pool's first page says.
func PoolDigest(members []Member, filterQuery ...string) [sha256.Size]byte {
	sorted := slices.SortedFunc(slices.Values(members), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	b := append(make([]byte, 0, 4096), poolLabel...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(sorted)))
	for _, m := range sorted {
		b = appendString(b, string(m.ID))
		b = appendString(b, m.Site)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.Weight))
		addrs := frame.AppendAddrs(nil, m.Addrs) // those that an update carries
		b = binary.BigEndian.AppendUint32(b, uint32(len(addrs)))
		for _, a := range addrs {
			b = appendString(b, string(a))
		}
		if m.Cordoned {
			b = append(b, 'c')
		}
	}
	if len(filterQuery) > 0 {
		b = append(b, 'f')
		for _, name := range filterQuery {
			b = appendString(b, name)
		}
	}
	return sha256.Sum256(b)
}

// Hash sums up one supernode's map of one epoch: what the acknowledgement of a
// heartbeat carries. Assignments of earlier epochs are not in it. pool is the
// PoolDigest of its newest whole pool, which is PoolDigest(nil) before there was
// one.
func Hash(epoch uint64, assigns HashSum, pool [sha256.Size]byte) [sha256.Size]byte {
	b := append(make([]byte, 0, 128), mapLabel...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, assigns[:]...)
	b = append(b, pool[:]...)
	return sha256.Sum256(b)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
