package supernode

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrOrder: no such order.
var ErrOrder = errors.New("an order is cordon, drain or none")

// maxOrders bounds the orders in force.
const maxOrders = 4096

// Order is what an operator wants of one peer.
type Order string

// Orders to a peer; none is the normal state.
const (
	// Cordon: the peer keeps its duties and gets no new ones.
	Cordon Order = "cordon"
	// Drain: the peer is no seed of anything. What it holds it goes on serving,
	// so that those who take its duties over copy it from there.
	Drain Order = "drain"
)

// orders are those in force.
type orders map[peer.ID]Order

// PeerOrder is one order in force.
type PeerOrder struct {
	Peer  peer.ID `json:"peer"`
	Order Order   `json:"order"`
}

// list returns all, by peer.
func (o orders) list() []PeerOrder {
	out := make([]PeerOrder, 0, len(o))
	for _, id := range slices.Sorted(maps.Keys(o)) {
		out = append(out, PeerOrder{id, o[id]})
	}
	return out
}

func (o orders) drained(id peer.ID) bool { return o[id] == Drain }

// order puts an operator's order for a peer into force; an empty one takes back
// what there was.
func (c *core) order(id peer.ID, o Order) {
	if o == "" {
		delete(c.orders, id)
	} else {
		c.orders[id] = o
	}
	c.members.changes++
}

// Order puts an operator's order for a peer into force, known or not, and keeps
// it over restarts where there is a SnapshotFile; an empty order takes back what
// there was. It returns ErrOrder for another word. Where it cannot be kept it is
// in force nevertheless, and the error says so.
func (s *Supernode) Order(id peer.ID, o Order) error {
	if o != "" && o != Cordon && o != Drain {
		return fmt.Errorf("order %q for %s: %w", o, id, ErrOrder)
	}
	s.mu.Lock()
	if _, known := s.core.orders[id]; !known && o != "" && len(s.core.orders) >= maxOrders {
		s.mu.Unlock()
		return fmt.Errorf("order %q for %s: %d orders are in force, which is the most: take one back", o, id, maxOrders)
	}
	s.core.order(id, o)
	s.mu.Unlock()
	s.poke()
	s.log.Info("order", "peer", id, "order", o)
	if err := s.save(); err != nil {
		return fmt.Errorf("order %q for %s is in force until the next restart: %w", o, id, err)
	}
	return nil
}
