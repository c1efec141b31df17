package supernode

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// Candidate is a live member of the seed pool.
type Candidate struct {
	content.Member
	// Site is where the member stands; empty is a site of its own for each.
	Site string
	// Cordoned members keep their duties and get no new ones: an operator wants
	// it so, or their connection is gone.
	Cordoned bool
	// Capacity of the member's cache in bytes; 0 where it is not known, which
	// bounds nothing. Free is the part that holds nothing yet: it decides only
	// between equals, for a cache in use is always full.
	Capacity, Free int64
	// Duty is the sum of Duties over all that the member is assigned, the tasks
	// of this election included.
	Duty int64
}

// Holding is what a peer has of a task's generation.
type Holding struct {
	Blocks int64
	// Begun are the runs of stripes of which the peer has any block.
	Begun assignment.Runs
}

// TaskInput is what an election looks at of one task. Its Assign carries the
// metadata to publish and, as Seeds and Excluded, the outcome of the election
// before: none for a task that never had one.
type TaskInput struct {
	assignment.Assign
	Holders map[peer.ID]Holding
	// Replicas is the number of seeds that demand asks for; 0 takes Input's.
	Replicas int
	// Sites are those that need a seed of their own.
	Sites []string
	// Hot tasks have more readers than one seed should serve: who holds the
	// whole file is published, so that readers spread over them.
	Hot bool
}

// Input is all that an election depends on.
type Input struct {
	Members []Candidate
	Tasks   []TaskInput
	// Replicas is the number of seeds wanted a task. Where that many have no
	// room for their shares a task gets more, up to MaxReplicas, or fewer.
	Replicas, MaxReplicas int
}

// Elect chooses the seeds of every task. It is pure: the same input has the
// same outcome, whatever the order of members.
//
// A task's first election takes the first Replicas of content.Rank over the
// members, which is what readers without an assignment already compute. Later
// ones keep every seed that is still a member and has room for its share, and
// fill the places of the others with those who hold the most bytes, then with
// sites that have no seed yet, then with those who have free disk, then by rank.
// A seed that is added owns only what those before it have not begun; it copies
// the rest as it is read. A site in Sites that has no seed gets one of its
// members, which owns nothing and holds copies. So ownership moves only as far
// as members go.
//
// No member gets a duty beyond its capacity, unless no number of seeds from 1 to
// MaxReplicas had room for the file.
//
// The head, the owner of stripe 0, comes first, the others in rank order. A task
// is left out where no member may be its seed: its last assignment is the best
// hint there is. Cost: one SHA-256 a member for each task that has a place to
// fill.
func Elect(in Input) []assignment.Assign {
	e := election{
		replicas: in.Replicas, most: max(in.MaxReplicas, in.Replicas),
		byID: make(map[peer.ID]*Candidate, len(in.Members)), duty: make(map[peer.ID]int64, len(in.Members)),
	}
	for _, c := range in.Members {
		if _, twice := e.byID[c.ID]; !twice {
			e.all = append(e.all, c)
		}
		e.byID[c.ID] = nil
	}
	for i := range e.all {
		c := &e.all[i]
		e.byID[c.ID], e.duty[c.ID] = c, c.Duty
		e.members = append(e.members, c.Member)
	}
	if len(e.all) == 0 || in.Replicas <= 0 {
		return nil
	}
	out := make([]assignment.Assign, 0, len(in.Tasks))
	for i := range in.Tasks {
		if a := e.elect(&in.Tasks[i]); len(a.Seeds) > 0 {
			out = append(out, a)
		}
	}
	return out
}

// Duties says what an assignment binds each of its seeds to hold, in bytes: an
// equal share of the file for those who may own stripes, all of it for the
// others. Zero where the size is not known.
func Duties(a assignment.Assign) []int64 {
	out := make([]int64, len(a.Seeds))
	owners := int64(0)
	for i := range a.Seeds {
		if !copies(a, i) {
			owners++
		}
	}
	for i := range out {
		out[i] = max(a.Size, 0)
		if !copies(a, i) {
			out[i] = share(a.Size, owners)
		}
	}
	return out
}

// copies reports whether a seed owns nothing.
func copies(a assignment.Assign, i int) bool {
	return i < len(a.Excluded) && a.Excluded[i] == assignment.AllRuns
}

func share(size, seeds int64) int64 { return (max(size, 0) + seeds - 1) / seeds }

type election struct {
	replicas, most int
	all            []Candidate
	byID           map[peer.ID]*Candidate
	members        []content.Member
	duty           map[peer.ID]int64 // as of the tasks elected so far
}
