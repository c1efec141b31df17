package control

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// Map is the seed map that control keeps up to date. Its methods are safe for
// concurrent use and do not block.
type Map interface {
	// Apply takes in an update of a trusted supernode, in any order, also twice.
	Apply(assignment.Signed, assignment.Update)
	// Agree reports whether the map has all that the acknowledgement of a
	// supernode, its cursor and hash, speaks of.
	Agree(c assignment.Cursor, hash [32]byte) bool
	// Cursors says for each supernode up to where nothing is missing.
	Cursors() []assignment.Cursor
	// Confirm says that a supernode was heard of, so that its pool is current.
	Confirm(supernode peer.ID)
	// Pool is the seed pool; empty while none is known.
	Pool() []assignment.Member
	// Follows says of which tasks the map keeps the assignments; nil: all. Others are
	// dropped by Apply.
	Follows() *content.Prefixes
	// Follow decides that anew, and returns what is followed newly, nil for nothing;
	// over says that those who are not used again are done with at the next time.
	Follow(over bool) *content.Prefixes
	// Reconsider has a token when Follow may decide otherwise than it last did.
	Reconsider() <-chan struct{}
	// Use notes that a task is used here, and has to be followed.
	Use(content.TaskID)
	// Shards returns the numbers of shards, those above one, in which supernodes
	// publish.
	Shards() []int
	// Since serves fetch to neighbours.
	fetch.Log
}

// Revocations is a set of signed revocations.
type Revocations interface {
	// All returns all of them, in the order in which they came.
	All() [][]byte
	// Sum is heartbeat's revoked_sum of them.
	Sum() uint64
	// Hear takes in what a supernode tells of. It may write to the disk where one
	// is new.
	Hear([][]byte)
}

// maxSupernodes bounds the configured supernodes.
const maxSupernodes = 64

// Config says whom control talks to. Host, PubSub, Beat and Map are needed; of
// all else the zero value is the default.
type Config struct {
	// Host stays the caller's.
	Host host.Host
	// PubSub of Host; nobody else may join the swarm's topic on it.
	PubSub *pubsub.PubSub
	// Supernodes are those who are heard and believed, at most 64. Their
	// addresses may be DNS names; the host resolves them at each dial.
	Supernodes []peer.AddrInfo
	// Swarm is the swarm's name; default "default".
	Swarm string
	// Beat returns what to tell of this node now. It must not block.
	Beat func() heartbeat.Beat
	// Interval between beats; default 5 s. Supernodes must know the same.
	Interval time.Duration
	// Stale is how long a supernode may be silent before the next in order
	// stands in for it: what is its own is then reported to that one. Default
	// 30 s, after which its pool is no longer used either: a restart is no reason
	// to report everything twice.
	Stale time.Duration
	// Map is what everything learned goes into.
	Map Map
	// Neighbours returns peers that may be asked for the map when no supernode
	// answers; nil takes the connected ones that speak fetch.
	Neighbours func() []peer.ID
	// AllHeld returns all that this node holds, for a supernode that does not
	// know; nil for a node that holds nothing.
	AllHeld func() []report.Held
	// Revocations are those that supernodes tell of, and are told of; nil leaves
	// them alone.
	Revocations Revocations
	// Believed reports whether what a configured supernode signs is still
	// believed; nil believes all.
	Believed func(peer.ID) bool
	// Random returns a number in [0,1) for jitter; nil is the real one.
	Random func() float64
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Validate names the field that cannot be, and the rule it breaks.
func (c Config) Validate() error {
	switch {
	case c.Host == nil:
		return errors.New("control: Host is needed")
	case c.PubSub == nil:
		return errors.New("control: PubSub is needed")
	case c.Beat == nil:
		return errors.New("control: Beat is needed")
	case c.Map == nil:
		return errors.New("control: Map is needed")
	case c.Interval < 0 || c.Stale < 0:
		return fmt.Errorf("control: Interval is %s and Stale %s, must not be negative", c.Interval, c.Stale)
	case len(c.Supernodes) > maxSupernodes:
		return fmt.Errorf("control: %d Supernodes, at most %d", len(c.Supernodes), maxSupernodes)
	}
	seen := make(map[peer.ID]bool)
	for _, s := range c.Supernodes {
		if err := s.ID.Validate(); err != nil {
			return fmt.Errorf("control: Supernodes: %w", err)
		}
		if seen[s.ID] {
			return fmt.Errorf("control: Supernodes names %s twice", s.ID)
		}
		if s.ID == c.Host.ID() {
			return fmt.Errorf("control: Supernodes names this node, %s", s.ID)
		}
		seen[s.ID] = true
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = heartbeat.DefaultInterval
	}
	if c.Stale == 0 {
		c.Stale = 30 * time.Second
	}
	if c.Neighbours == nil {
		c.Neighbours = speakers(c.Host, c.Supernodes)
	}
	if c.AllHeld == nil {
		c.AllHeld = func() []report.Held { return nil }
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// speakers returns a function that lists the connected peers that speak fetch,
// but for the supernodes.
func speakers(h host.Host, supernodes []peer.AddrInfo) func() []peer.ID {
	known := make(map[peer.ID]bool)
	for _, s := range supernodes {
		known[s.ID] = true
	}
	return func() []peer.ID {
		var out []peer.ID
		for _, id := range h.Network().Peers() {
			if known[id] {
				continue
			}
			if spoken, err := h.Peerstore().SupportsProtocols(id, fetch.Protocol); err == nil && len(spoken) > 0 {
				out = append(out, id)
			}
		}
		return out
	}
}
