package supernode

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// State of a member as the supernode sees it. A member that said goodbye, or
// whose lease is over, is no member any more.
type State string

// The states of a member.
const (
	// Live members have beaten on a connection that still stands.
	Live State = "live"
	// Suspect members lost their connection; their lease still runs.
	Suspect State = "suspect"
)

type member struct {
	id      peer.ID
	state   State
	joined  time.Time
	beaten  time.Time
	expires time.Time
	beat    heartbeat.Beat
	asked   bool // what it remembers of this supernode's earlier lives
	// weight is fixed with the first beat of a session: one that followed the
	// disk would reshuffle ownership.
	weight float64
}

// members is the table of all who beat, with their leases. At its bound it
// drops the suspect whose lease ends first, and with none refuses newcomers.
// Not safe for concurrent use.
type members struct {
	lease time.Duration
	max   int
	byID  map[peer.ID]*member
	// readers finds a member by its fingerprint. Of two with the same one the
	// later counts.
	readers map[uint64]*member
	// changes counts what the pool may depend on.
	changes uint64
}

func newMembers(lease time.Duration, limit int) *members {
	return &members{lease: lease, max: limit, byID: make(map[peer.ID]*member), readers: make(map[uint64]*member)}
}

// touch renews the lease of a peer that was heard of, and makes it a member
// where it is none. It returns nil where the table is full, and the member
// that had to go for the newcomer.
func (t *members) touch(id peer.ID, now time.Time) (m *member, evicted peer.ID) {
	m = t.byID[id]
	if m == nil {
		if len(t.byID) >= t.max {
			victim := t.suspectToEvict()
			if victim == nil {
				return nil, ""
			}
			evicted = victim.id
			t.remove(evicted)
		}
		m = &member{id: id, joined: now}
		t.byID[id] = m
		t.readers[report.Fingerprint(id)] = m
	}
	m.state = Live
	m.expires = now.Add(t.lease)
	return m, evicted
}

func (t *members) suspectToEvict() *member {
	var victim *member
	for _, m := range t.byID {
		if m.state == Suspect && (victim == nil || m.expires.Before(victim.expires)) {
			victim = m
		}
	}
	return victim
}

// hear takes in a member's heartbeat and reports whether it is the first. The
// weight is set with the first beat of a session, and again where the member has
// found out since whether it can be reached.
func (t *members) hear(m *member, b heartbeat.Beat, now time.Time) (first bool) {
	first = m.beaten.IsZero()
	old := m.beat
	weight := m.weight
	if first || b.Session != old.Session || b.Reachability != old.Reachability {
		weight = weightOf(b.Capacity, b.Reachability)
	}
	if first || weight != m.weight || b.Seed != old.Seed || b.Site != old.Site || !slices.EqualFunc(b.Addrs, old.Addrs, multiaddr.Multiaddr.Equal) {
		t.changes++
	}
	m.beat, m.beaten, m.weight = b, now, weight
	return first
}

// siteOf returns the site of the reader with a fingerprint, empty where it is
// none of the members.
func (t *members) siteOf(reader uint64) string {
	if m := t.readers[reader]; m != nil {
		return m.beat.Site
	}
	return ""
}

// suspect notes that the member's connection is gone.
func (t *members) suspect(id peer.ID) {
	if m := t.byID[id]; m != nil {
		m.state = Suspect
	}
}

// remove takes a member out and reports whether it was one.
func (t *members) remove(id peer.ID) bool {
	m, ok := t.byID[id]
	if !ok {
		return false
	}
	delete(t.byID, id)
	if reader := report.Fingerprint(id); t.readers[reader] == m {
		delete(t.readers, reader)
	}
	t.changes++
	return true
}

// expire takes out all whose lease is over and returns them.
func (t *members) expire(now time.Time) []peer.ID {
	var gone []peer.ID
	for id, m := range t.byID {
		if !now.Before(m.expires) {
			gone = append(gone, id)
			t.remove(id)
		}
	}
	return gone
}

// sorted returns the members, oldest first.
func (t *members) sorted() []*member {
	return slices.SortedFunc(maps.Values(t.byID), func(a, b *member) int {
		return cmp.Or(a.joined.Compare(b.joined), cmp.Compare(a.id, b.id))
	})
}

// weightOf quantises what a peer can hold: 1 below 16 GiB, 2 below 64, 4 below
// 256, 8 from there on; half of it for a peer that is reached by a punched hole,
// an eighth for one that is reached through a relay alone. The free part of the capacity is not in it: a cache
// that has filled would lose its weight, and with it the stripes that fill it,
// when the supernode or the peer starts again.
func weightOf(capacity int64, reach heartbeat.Reachability) float64 {
	weight := 1.0
	for limit := int64(16 << 30); weight < 8 && capacity >= limit; limit *= 4 {
		weight *= 2
	}
	switch reach {
	case heartbeat.ReachabilityPrivate:
		weight /= 2
	case heartbeat.ReachabilityRelayed:
		weight /= 8
	}
	return weight
}
