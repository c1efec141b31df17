package locate

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// Kind says why a source is one.
type Kind int

// Kinds of source, in the order in which they are asked. Sources names the
// first four; a reader adds the others itself.
const (
	// Self is this node where it owns the stripe: it reads the origin.
	Self Kind = iota
	// SiteSeed is a seed of this node's site that does not own the stripe.
	SiteSeed
	// Owner is the seed that reads the stripe from the origin. One of this
	// node's site comes before other seeds of the site.
	Owner
	// Seed is any other seed of the task.
	Seed
	// Holder is a peer to which a busy source referred.
	Holder
	// Provider is a peer that the DHT named.
	Provider
	// Origin is the origin itself.
	Origin
)

var kindNames = [...]string{"self", "site_seed", "owner", "seed", "holder", "provider", "origin"}

// String returns the kind in snake case, for logs and metrics.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// Source is somebody to ask for a stripe.
type Source struct {
	Peer peer.ID
	Kind Kind
}

// class is the first thing by which sources are ordered.
type class uint8

const (
	classSelf     class = iota // it owns the stripe
	classNear                  // at this site, and owns the stripe or has it
	classNearSeed              // at this site: the file crosses the uplink once
	classOwner                 // it owns the stripe, or has the whole file
	classSeed                  // it may own the stripe when the owner is gone
	classCopy                  // it may have a copy
	classFar                   // a copy behind another site's uplink
	// classBroken is added where the breaker is open.
	classBroken
)

// class returns that of seat i for a stripe of the given owner and run.
func (v *view) class(i, owner, run int, self bool) class {
	s := &v.seats[i]
	has := i == owner || s.whole
	switch {
	case self:
		return classSelf
	case s.near && has:
		return classNear
	case s.near:
		return classNearSeed
	case s.copies && i != owner:
		return classFar
	case has:
		return classOwner
	case s.leaves(run):
		return classCopy
	default:
		return classSeed
	}
}

// Sources appends to dst whom to ask for a stripe, best first, and returns it:
// this node where it owns the stripe; the seeds of its site; the owner; the
// other seeds in rank order, those that leave the stripe to others after those
// that may own it, and copies at other sites last. Of seeds that are known to
// have the whole file each is as good as the owner: they are asked in random
// order, weighted by how soon they answered before. Peers whose breaker is open
// come behind all others, in the same order. Peers in skip are left out, and own
// nothing; so is this node where it does not own the stripe. It takes no lock,
// does no I/O, and allocates nothing where dst has room and the task was asked
// before.
func (m *Map) Sources(dst []Source, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []Source {
	m.Use(task)
	now := m.cfg.Now().UnixNano()
	v := m.view(task, now)
	var sc scores
	owner := v.rank(&sc, stripe, sequential, skip)
	if owner < 0 {
		return dst
	}
	run := v.run(stripe, stripe == 0 || sequential || v.sequential)
	var sorted [assignment.MaxSeeds]uint8
	var classes [assignment.MaxSeeds]class
	n := 0
	for i := range v.seats {
		s := &v.seats[i]
		self := s.ID == m.cfg.Self
		if self && (i != owner || !m.cfg.SelfSeed) || slices.Contains(skip, s.ID) {
			continue
		}
		classes[i] = v.class(i, owner, run, self)
		if v.spread && (classes[i] == classNear || classes[i] == classOwner) {
			sc[i] = m.health.draw(s.ID)
		}
		if !self && m.health.broken(s.ID, now) {
			classes[i] += classBroken
		}
		at := n
		for ; at > 0 && before(v, &sc, &classes, i, int(sorted[at-1])); at-- {
			sorted[at] = sorted[at-1]
		}
		sorted[at] = uint8(i)
		n++
	}
	for _, i := range sorted[:n] {
		dst = append(dst, Source{Peer: v.seats[i].ID, Kind: v.kind(int(i), owner, v.seats[i].ID == m.cfg.Self)})
	}
	return dst
}

func (v *view) kind(i, owner int, self bool) Kind {
	switch {
	case self:
		return Self
	case i == owner:
		return Owner
	case v.seats[i].near:
		return SiteSeed
	default:
		return Seed
	}
}

// before reports whether seed a is to be asked before seed b.
func before(v *view, sc *scores, classes *[assignment.MaxSeeds]class, a, b int) bool {
	if classes[a] != classes[b] {
		return classes[a] < classes[b]
	}
	return cmp.Or(cmp.Compare(sc[b], sc[a]), cmp.Compare(v.seats[a].ID, v.seats[b].ID)) < 0
}

// Owner returns the seed that reads a stripe from the origin, leaving out the
// peers in skip; all nodes with the same map agree on it. It reports false where
// no seed is known, or all are in skip.
func (m *Map) Owner(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool) {
	v := m.view(task, m.cfg.Now().UnixNano())
	var sc scores
	owner := v.rank(&sc, stripe, sequential, skip)
	if owner < 0 {
		return "", false
	}
	return v.seats[owner].ID, true
}

// Head returns the seed that owns stripe 0 and knows the file's metadata.
func (m *Map) Head(task content.TaskID) (peer.ID, bool) {
	return m.Owner(task, 0, false, nil)
}

// Seeds appends the seeds of a task with their weights to dst, the head first,
// and returns it: those of its assignment, else the first of the pool in rank
// order that are not cordoned.
func (m *Map) Seeds(dst []content.Member, task content.TaskID) []content.Member {
	for _, s := range m.view(task, m.cfg.Now().UnixNano()).seats {
		dst = append(dst, s.Member)
	}
	return dst
}

// IsSeed reports whether this node is a seed of the task.
func (m *Map) IsSeed(task content.TaskID) bool {
	if !m.cfg.SelfSeed {
		return false
	}
	for _, s := range m.view(task, m.cfg.Now().UnixNano()).seats {
		if s.ID == m.cfg.Self {
			return true
		}
	}
	return false
}
