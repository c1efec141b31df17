package content

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	rankLabel = "p2pnode/rank/1"
	// maxPeerID is the length that a peer ID of an Ed25519 key has, and more.
	maxPeerID = 64
)

// Member is a candidate of a ranking: a peer and its static, quantised weight.
// A weight that is not positive ranks last.
type Member struct {
	ID     peer.ID
	Weight float64
}

// StripeKey returns the ranking key of a stripe: the task ID, followed by the
// stripe's index as 8 bytes, big-endian. Stripe 0 is ranked by the task ID
// alone, so that its owner is the head whatever the stripe size.
func StripeKey(id TaskID, stripe int64) []byte {
	if stripe == 0 {
		return id[:]
	}
	return binary.BigEndian.AppendUint64(id[:len(id):len(id)], uint64(stripe))
}

// Score is the weighted rendezvous score of one member for a key,
// -weight/ln(h) with h = the first 8 bytes of SHA-256(label ‖ key ‖ peer ID) as
// a fraction in (0,1) (Schindelhauer and Schomaker, "Weighted distributed hash
// tables", SPAA 2005). Higher is better.
func Score(key []byte, m Member) float64 {
	s := NewScorer(key)
	return s.Score(m)
}

// Scorer computes the scores of several members for one key.
type Scorer struct {
	buf [160]byte // label and key, where there is room for a peer ID too
	n   int
	big []byte // what finds no room
}

// NewScorer returns a scorer for a key, which it copies.
func NewScorer(key []byte) (s Scorer) {
	s.n = copy(s.buf[:], rankLabel)
	if len(key) > len(s.buf)-s.n-maxPeerID {
		s.big = append([]byte(rankLabel), key...)
		return s
	}
	s.n += copy(s.buf[s.n:], key)
	return s
}

// Score returns the score of a member for the key.
func (s *Scorer) Score(m Member) float64 {
	if !(m.Weight > 0) { // NaN too, which no order knows
		return 0
	}
	prefix := s.buf[:s.n]
	if s.big != nil {
		prefix = s.big
	}
	sum := sha256.Sum256(append(prefix, m.ID...))
	h := (float64(binary.BigEndian.Uint64(sum[:8])>>11) + 0.5) / (1 << 53)
	return -m.Weight / math.Log(h)
}

// Rank appends the members to dst, best first for the key, and returns it. Ties
// go to the lower peer ID. When a member leaves, only the keys it was first for
// move. Cost: one SHA-256 a member.
func Rank(dst []Member, key []byte, members []Member) []Member {
	type scored struct {
		Member
		score float64
	}
	s := make([]scored, len(members))
	for i, m := range members {
		s[i] = scored{m, Score(key, m)}
	}
	slices.SortFunc(s, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range s {
		dst = append(dst, m.Member)
	}
	return dst
}

// First returns the member that Rank puts first, without allocating. It reports
// false for no members.
func First(key []byte, members []Member) (Member, bool) {
	var best Member
	bestScore := math.Inf(-1)
	for _, m := range members {
		score := Score(key, m)
		if score > bestScore || score == bestScore && m.ID < best.ID {
			best, bestScore = m, score
		}
	}
	return best, len(members) > 0
}
