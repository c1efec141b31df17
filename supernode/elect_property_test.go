package supernode

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// society is a random history of members and tasks, elected one by one.
type society struct {
	t       *testing.T
	rng     *rand.Rand
	members []Candidate
	tasks   []TaskInput
	max     int
}

// TestElectProperties makes members come, go, fill and be cordoned at random,
// and demand rise and fall, and checks after each step what must hold of every
// election.
func TestElectProperties(t *testing.T) {
	for seed := range uint64(8) {
		s := &society{t: t, rng: rand.New(rand.NewPCG(seed, 2)), max: 5}
		for i := range 8 {
			s.tasks = append(s.tasks, TaskInput{Assign: assignment.Assign{
				Task: content.TaskID{byte(i), byte(seed)}, Generation: content.Generation{1}, Size: s.rng.Int64N(40),
			}})
		}
		for step := range 80 {
			s.change(step)
			for i := range s.tasks {
				s.elect(i)
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

// change makes one thing happen to the members, and some to the tasks.
func (s *society) change(step int) {
	switch n := len(s.members); {
	case n > 2 && s.rng.IntN(3) == 0:
		i := s.rng.IntN(n)
		s.members = slices.Delete(s.members, i, i+1)
	case n > 0 && s.rng.IntN(6) == 0:
		m := &s.members[s.rng.IntN(n)]
		m.Cordoned = !m.Cordoned
	default:
		s.members = append(s.members, Candidate{
			Member: content.Member{ID: peer.ID(fmt.Sprintf("p%d", step)), Weight: float64(int(1) << s.rng.IntN(4))},
			Site:   []string{"", "north", "south", "west"}[s.rng.IntN(4)], Capacity: s.rng.Int64N(200), Free: s.rng.Int64N(200),
		})
	}
	for i := range s.tasks {
		in := &s.tasks[i]
		if s.rng.IntN(10) == 0 {
			in.Replicas = s.rng.IntN(s.max + 1)
		}
		if s.rng.IntN(10) == 0 {
			in.Sites = []string{"north", "south", "west"}[s.rng.IntN(3):]
		}
		if in.Holders == nil {
			in.Holders = make(map[peer.ID]Holding)
		}
		for _, id := range in.Seeds { // seeds begin some of what they own
			h := in.Holders[id]
			for range 5 {
				if run := s.rng.IntN(assignment.RunCount); s.owner(in.Assign, run) == id && !h.Begun.Has(run) {
					h.Begun.Add(run)
					h.Blocks++
				}
			}
			in.Holders[id] = h
		}
	}
	s.rng.Shuffle(len(s.members), func(i, j int) { s.members[i], s.members[j] = s.members[j], s.members[i] })
}

func (s *society) member(id peer.ID) *Candidate {
	i := slices.IndexFunc(s.members, func(c Candidate) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &s.members[i]
}

// owner computes as readers do who owns a run of which each is one stripe.
func (s *society) owner(a assignment.Assign, run int) peer.ID {
	var members []content.Member
	for i, id := range a.Seeds {
		if a.Excluded == nil || !a.Excluded[i].Has(run) {
			weight := 1.0
			if m := s.member(id); m != nil {
				weight = m.Weight
			}
			members = append(members, content.Member{ID: id, Weight: weight})
		}
	}
	first, _ := content.First(content.StripeKey(a.Task, int64(run)), members)
	return first.ID
}

// duties returns what the books say of each member, but for one task.
func (s *society) duties(but int) map[peer.ID]int64 {
	out := make(map[peer.ID]int64)
	for i, t := range s.tasks {
		if i == but {
			continue
		}
		for j, d := range Duties(t.Assign) {
			out[t.Seeds[j]] += d
		}
	}
	return out
}

// elect elects one task, checks the outcome and books it.
func (s *society) elect(i int) {
	before, others := s.tasks[i], s.duties(i)
	all := s.duties(-1)
	for j := range s.members {
		s.members[j].Duty = all[s.members[j].ID]
	}
	in := Input{Members: s.members, Tasks: s.tasks[i : i+1], Replicas: 2, MaxReplicas: s.max}
	out := Elect(in)
	shuffled := in
	shuffled.Members = slices.Clone(s.members)
	slices.Reverse(shuffled.Members)
	again := Elect(shuffled)
	if len(out) == 0 {
		if slices.ContainsFunc(s.members, func(c Candidate) bool { return !c.Cordoned }) {
			s.t.Errorf("nobody elected among %d members", len(s.members))
		}
		return
	}
	a := out[0]
	if len(again) != 1 || !sameAssign(a, again[0]) {
		s.t.Errorf("the order of members changes %v to %v", a, again)
	}
	s.checkSeeds(a, before, others)
	s.checkOwners(a, before, others)
	s.checkSites(a, before, others)
	s.tasks[i].Seeds, s.tasks[i].Excluded = a.Seeds, a.Excluded
}

// fits reports whether any number of members has room for the file.
func (s *society) fits(size int64, others map[peer.ID]int64, before assignment.Assign) bool {
	owned := func(id peer.ID) bool {
		i := slices.Index(before.Seeds, id)
		return i >= 0 && !copies(before, i)
	}
	for n := 1; n <= s.max; n++ {
		room := 0
		for _, m := range s.members {
			if (!m.Cordoned || owned(m.ID)) && (m.Capacity == 0 || others[m.ID]+share(size, int64(n)) <= m.Capacity) {
				room++
			}
		}
		if room >= n {
			return true
		}
	}
	return false
}

// checkSeeds: alive, each once, the head first, no one beyond its capacity.
func (s *society) checkSeeds(a assignment.Assign, before TaskInput, others map[peer.ID]int64) {
	duties := Duties(a)
	fits := s.fits(a.Size, others, before.Assign)
	for i, id := range a.Seeds {
		m := s.member(id)
		switch {
		case m == nil || slices.Contains(a.Seeds[:i], id):
			s.t.Errorf("seed %s is dead or named twice", id)
		case m.Cordoned && !slices.Contains(before.Seeds, id):
			s.t.Errorf("seed %s is cordoned and new", id)
		case fits && m.Capacity > 0 && others[id]+duties[i] > m.Capacity:
			s.t.Errorf("seed %s of capacity %d has duties of %d and gets %d more", id, m.Capacity, others[id], duties[i])
		}
	}
	if head := s.owner(a, 0); head != a.Seeds[0] {
		s.t.Errorf("head is %s, want %s", a.Seeds[0], head)
	}
}

// checkOwners: every run has an owner; what an owner has begun stays its own as
// long as it may own anything; and a seed stays one unless fewer are wanted or it has
// no room.
func (s *society) checkOwners(a assignment.Assign, before TaskInput, others map[peer.ID]int64) {
	if len(before.Seeds) == 0 {
		return
	}
	for run := range assignment.RunCount {
		was, is := s.owner(before.Assign, run), s.owner(a, run)
		if is == "" {
			s.t.Errorf("nobody owns run %d", run)
		}
		begun := before.Holders[was].Begun
		if at := slices.Index(a.Seeds, was); was != is && at >= 0 && !copies(a, at) && begun.Has(run) {
			s.t.Errorf("run %d, begun by %s, moved to %s", run, was, is)
		}
	}
	owners := 0
	for i := range a.Seeds {
		if !copies(a, i) {
			owners++
		}
	}
	for i, id := range before.Seeds {
		m := s.member(id)
		roomy := m != nil && (m.Capacity == 0 || others[id]+share(a.Size, int64(max(owners, 1))) <= m.Capacity)
		if roomy && !copies(before.Assign, i) && !slices.Contains(a.Seeds, id) && owners < cmp.Or(before.Replicas, 2) {
			s.t.Errorf("live seed %s with room lost its duty among %d of %d", id, owners, before.Replicas)
		}
	}
}

// checkSites: a site that needs a seed has one, if one of its members can be.
func (s *society) checkSites(a assignment.Assign, before TaskInput, others map[peer.ID]int64) {
	for _, site := range before.Sites {
		has, can := false, false
		for _, m := range s.members {
			if m.Site != site {
				continue
			}
			has = has || slices.Contains(a.Seeds, m.ID)
			can = can || !m.Cordoned && (m.Capacity == 0 || others[m.ID]+a.Size <= m.Capacity)
		}
		if can && !has {
			s.t.Errorf("site %s has no seed", site)
		}
	}
}
