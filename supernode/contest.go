package supernode

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// contest is the election of one task.
type contest struct {
	*election
	t *TaskInput
	// kept are those who may own stripes, homes those who hold copies for sites.
	kept, homes []seat
	// bounded says that capacities count.
	bounded bool
}

// seat is one seed of a task.
type seat struct {
	*Candidate
	excluded assignment.Runs
}

func (e *election) elect(t *TaskInput) assignment.Assign {
	for i, d := range Duties(t.Assign) {
		e.duty[t.Seeds[i]] -= d
	}
	c := contest{election: e, t: t}
	c.keep()
	n := c.fit()
	if c.bounded {
		c.kept = slices.DeleteFunc(c.kept, func(s seat) bool { return !e.room(s.Candidate, share(t.Size, int64(n))) })
		c.homes = slices.DeleteFunc(c.homes, func(s seat) bool { return !e.room(s.Candidate, t.Size) })
	}
	c.trim(n)
	c.fill(n)
	for _, site := range t.Sites {
		c.home(site)
	}
	a := c.assign()
	for i, d := range Duties(a) {
		e.duty[a.Seeds[i]] += d
	}
	return a
}

// keep seats the seeds of before that are alive: those who may own stripes, and
// one that holds copies for each site that needs a seed.
func (c *contest) keep() {
	for i, id := range c.t.Seeds {
		member := c.byID[id]
		if member == nil || c.seated(id) {
			continue
		}
		s := seat{Candidate: member}
		if i < len(c.t.Excluded) {
			s.excluded = c.t.Excluded[i]
		}
		switch {
		case s.excluded != assignment.AllRuns:
			c.kept = append(c.kept, s)
		case slices.Contains(c.t.Sites, s.Site) && !stands(s.Site, c.homes):
			c.homes = append(c.homes, s)
		}
	}
	sortByRank(c.t.Task, c.kept)
}

func (c *contest) seated(id peer.ID) bool {
	is := func(s seat) bool { return s.ID == id }
	return slices.ContainsFunc(c.kept, is) || slices.ContainsFunc(c.homes, is)
}

func sortByRank(task content.TaskID, seats []seat) {
	slices.SortFunc(seats, func(a, b seat) int {
		return cmp.Or(cmp.Compare(content.Score(task[:], b.Member), content.Score(task[:], a.Member)), cmp.Compare(a.ID, b.ID))
	})
}

// stands reports whether one of the seats is at a site.
func stands(site string, seats []seat) bool {
	return slices.ContainsFunc(seats, func(s seat) bool { return s.Site == site })
}

// room reports whether a member may be bound to so many bytes more.
func (e *election) room(c *Candidate, bytes int64) bool {
	return c.Capacity == 0 || e.duty[c.ID]+bytes <= c.Capacity
}

// fit returns the number of seeds, as near as can be to the wanted one, of which
// as many have room for their shares as there are shares. Where there is none
// those who hold copies for sites are there to take shares too, and where that
// does not help capacities do not count.
func (c *contest) fit() int {
	want := min(cmp.Or(c.t.Replicas, c.replicas), assignment.MaxSeeds)
	n := c.fitting(want)
	if n == 0 && len(c.homes) > 0 {
		c.homes = nil
		n = c.fitting(want)
	}
	c.bounded = n > 0
	if !c.bounded {
		return want
	}
	return n
}

// fitting returns the number of seeds nearest to the wanted one that fits, more
// before fewer, or 0.
func (c *contest) fitting(want int) int {
	for n := min(want, len(c.all)); n <= min(max(c.most, want), len(c.all)); n++ {
		if c.fits(n) {
			return n
		}
	}
	for n := min(want, len(c.all)) - 1; n > 0; n-- {
		if c.fits(n) {
			return n
		}
	}
	return 0
}

// fits reports whether n members have room for a share each.
func (c *contest) fits(n int) bool {
	bytes, found := share(c.t.Size, int64(n)), 0
	for _, s := range c.kept {
		if c.room(s.Candidate, bytes) {
			found++
		}
	}
	for i := range c.all {
		if found >= n {
			return true
		}
		if m := &c.all[i]; !m.Cordoned && c.room(m, bytes) && !c.seated(m.ID) {
			found++
		}
	}
	return found >= n
}

// trim takes away those beyond n: first who own least, then who hold least, then
// the last in rank.
func (c *contest) trim(n int) {
	if len(c.kept) <= n {
		return
	}
	slices.SortStableFunc(c.kept, func(a, b seat) int {
		return cmp.Or(cmp.Compare(size(a.excluded), size(b.excluded)), cmp.Compare(c.t.Holders[b.ID].Blocks, c.t.Holders[a.ID].Blocks))
	})
	c.kept = c.kept[:n]
}

// size counts the runs in a set.
func size(r assignment.Runs) int {
	n := 0
	for _, b := range r {
		n += bits.OnesCount8(b)
	}
	return n
}

// fill adds the best of the others until there are n.
func (c *contest) fill(n int) {
	if len(c.kept) >= n {
		return
	}
	bytes := share(c.t.Size, int64(n))
	var rest []*Candidate
	for _, m := range content.Rank(make([]content.Member, 0, len(c.members)), c.t.Task[:], c.members) {
		other := c.byID[m.ID]
		if !other.Cordoned && !c.seated(m.ID) && (!c.bounded || c.room(other, bytes)) {
			rest = append(rest, other)
		}
	}
	// A task without an election before it is read from the first in rank.
	first := len(c.t.Seeds) == 0
	begun := c.begun()
	for len(c.kept) < n && len(rest) > 0 {
		best := 0
		for i := 1; i < len(rest) && !first; i++ { // in rank order: ties stay with the first
			if c.better(rest[i], rest[best], bytes) {
				best = i
			}
		}
		c.kept = append(c.kept, seat{rest[best], begun})
		rest = slices.Delete(rest, best, best+1)
	}
}

// begun returns what a seed that is added leaves to those before it: the runs of
// which they have blocks. Runs mean nothing where the size is not known.
func (c *contest) begun() (runs assignment.Runs) {
	if c.t.Size < 0 || c.t.Generation.IsZero() {
		return runs
	}
	for _, s := range c.kept {
		runs = runs.Or(c.t.Holders[s.ID].Begun)
	}
	return runs
}

// better reports whether a place goes to a rather than to b, where rank would
// give it to b.
func (c *contest) better(a, b *Candidate, bytes int64) bool {
	spread := func(m *Candidate) int { return truth(m.Site == "" || !stands(m.Site, c.kept)) }
	free := func(m *Candidate) int { return truth(m.Free >= bytes) }
	return cmp.Or(
		cmp.Compare(c.t.Holders[a.ID].Blocks, c.t.Holders[b.ID].Blocks),
		cmp.Compare(spread(a), spread(b)),
		cmp.Compare(free(a), free(b)),
	) > 0
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// home adds a seed for a site where none stands. It is to hold the whole file;
// where no member of the site has room for that it gets none.
func (c *contest) home(site string) {
	if site == "" || stands(site, c.kept) || stands(site, c.homes) || len(c.kept)+len(c.homes) >= assignment.MaxSeeds {
		return
	}
	var rest []seat
	for i := range c.all {
		if m := &c.all[i]; m.Site == site && !m.Cordoned && (!c.bounded || c.room(m, c.t.Size)) {
			rest = append(rest, seat{m, assignment.AllRuns})
		}
	}
	if len(rest) == 0 {
		return
	}
	sortByRank(c.t.Task, rest)
	best := 0
	for i := range rest {
		if c.better(rest[i].Candidate, rest[best].Candidate, c.t.Size) {
			best = i
		}
	}
	c.homes = append(c.homes, rest[best])
}

// claim lets the replicas own what all of them would leave to others, and those
// who hold copies everything where there is no replica.
func (c *contest) claim() {
	if len(c.kept) == 0 {
		c.kept, c.homes = c.homes, nil
	}
	nobody := assignment.AllRuns
	for _, s := range c.kept {
		nobody = nobody.And(s.excluded)
	}
	for i := range c.kept {
		c.kept[i].excluded = c.kept[i].excluded.Without(nobody)
	}
}

// assign writes down the outcome.
func (c *contest) assign() assignment.Assign {
	c.claim()
	a, seats := c.t.Assign, slices.Concat(c.kept, c.homes)
	sortByRank(c.t.Task, seats)
	if head := slices.IndexFunc(seats, func(s seat) bool { return !s.excluded.Has(0) }); head > 0 {
		first := seats[head]
		copy(seats[1:head+1], seats[:head])
		seats[0] = first
	}
	a.Seeds, a.Excluded, a.Whole = make([]peer.ID, len(seats)), nil, nil
	blocks := content.Layout{Size: max(c.t.Size, 0)}.Blocks()
	for i, s := range seats {
		a.Seeds[i] = s.ID
		if s.excluded != (assignment.Runs{}) {
			if a.Excluded == nil {
				a.Excluded = make([]assignment.Runs, len(seats))
			}
			a.Excluded[i] = s.excluded
		}
		if c.t.Hot && c.t.Size > 0 && c.t.Holders[s.ID].Blocks >= blocks {
			if a.Whole == nil {
				a.Whole = make([]bool, len(seats))
			}
			a.Whole[i] = true
		}
	}
	return a
}
