package locate

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// Hash sums up what is held of a supernode, for comparing with the one in its
// acknowledgement of a heartbeat (assignment.Hash).
func (m *Map) Hash(supernode peer.ID) [32]byte {
	i, ok := slices.BinarySearch(m.cfg.Supernodes, supernode)
	if !ok {
		return [32]byte{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[i].hash()
}

func (st *state) hash() [32]byte {
	return assignment.Hash(st.epoch, st.sum, st.poolDigest)
}

// Cursors returns for each supernode the place up to which nothing is missing,
// in the order of their IDs: what is to be fetched from. Epoch and Seq are 0
// where nothing has been heard.
func (m *Map) Cursors() []assignment.Cursor {
	m.mu.Lock()
	defer m.mu.Unlock()
	cursors := make([]assignment.Cursor, len(m.states))
	for i := range m.states {
		cursors[i] = assignment.Cursor{Supernode: m.cfg.Supernodes[i], Epoch: m.states[i].epoch, Seq: m.states[i].low}
	}
	return cursors
}

// Confirm says that a supernode was heard of: its pool counts as current for
// another 30 s.
func (m *Map) Confirm(supernode peer.ID) {
	if i, ok := slices.BinarySearch(m.cfg.Supernodes, supernode); ok {
		m.heard[i].Store(m.cfg.Now().UnixNano())
	}
}

// Agree compares what is held with an acknowledgement: the supernode's last
// update and the hash of its map. It reports false where something is missing
// and should be fetched from Cursors on. Where it still does after that, the
// numbers in Cursors are wrong, which happens when a task was evicted here, and
// all must be fetched. What the acknowledgement is too old to speak of, or of a
// supernode that is not configured, agrees; but where not all tasks are followed,
// the map is compared as it was then.
func (m *Map) Agree(c assignment.Cursor, hash [32]byte) bool {
	i, ok := slices.BinarySearch(m.cfg.Supernodes, c.Supernode)
	if !ok {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st := &m.states[i]
	if c.Epoch < st.epoch || c.Epoch == st.epoch && c.Seq < st.seq && !st.sparse {
		return true
	}
	if c.Epoch > st.epoch || st.asOf(c.Seq) != hash {
		return false
	}
	st.steps = slices.DeleteFunc(st.steps, func(s step) bool { return s.seq <= c.Seq })
	for seq := range st.ahead {
		if seq <= c.Seq {
			delete(st.ahead, seq)
		}
	}
	st.low = max(st.low, c.Seq)
	st.advance(st.low)
	return true
}

// Since returns the signed updates that the map still rests on and that come
// after the cursors, for each supernode in ascending order, up to maxBytes but
// at least one, and whether there are more. Of supernodes that are not named in
// c, or in an older epoch, it returns all; of those that c knows in a newer
// epoch, none; nor of tasks that want does not name, nil for all. It makes any
// node serve fetch.
func (m *Map) Since(c []assignment.Cursor, want *content.Prefixes, maxBytes int) ([]assignment.Signed, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []assignment.Signed
	for i := range m.states {
		st := &m.states[i]
		from := uint64(0)
		for _, have := range c {
			if have.Supernode != m.cfg.Supernodes[i] {
				continue
			}
			if have.Epoch == st.epoch {
				from = have.Seq
			} else if have.Epoch > st.epoch {
				from = st.seq
			}
		}
		var more bool
		entries, maxBytes, more = st.log.since(entries, from, want, maxBytes)
		if more {
			return entries, true
		}
	}
	return entries, false
}
