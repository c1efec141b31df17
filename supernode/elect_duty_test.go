package supernode

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// upTo is the set of the first n runs.
func upTo(n int) (r assignment.Runs) {
	for i := range n {
		r.Add(i)
	}
	return r
}

const gib = 1 << 30

// file is a task of 64 GiB that was elected before.
func file(task content.TaskID, seeds ...peer.ID) TaskInput {
	return TaskInput{Assign: assignment.Assign{Task: task, Size: 64 * gib, Generation: content.Generation{1}, Seeds: seeds}}
}

func electOne(t *testing.T, in TaskInput, members []Candidate) assignment.Assign {
	t.Helper()
	out := Elect(Input{Members: members, Tasks: []TaskInput{in}, Replicas: 2, MaxReplicas: 4})
	if len(out) != 1 {
		t.Fatalf("%d assignments for one task", len(out))
	}
	return out[0]
}

// excludedOf returns what a seed leaves to others.
func excludedOf(a assignment.Assign, id peer.ID) assignment.Runs {
	if a.Excluded == nil {
		return assignment.Runs{}
	}
	return a.Excluded[slices.Index(a.Seeds, id)]
}

func TestAddedSeedOwnsWhatWasNotBegun(t *testing.T) {
	task := content.TaskID{1}
	all := candidates("a", "b", "c", "d", "e")
	rank := ranked(task, all)
	in := file(task, rank[2], rank[3])
	in.Holders = map[peer.ID]Holding{rank[2]: {9, upTo(4)}, rank[3]: {9, upTo(7)}, rank[4]: {1, upTo(100)}}
	in.Replicas = 3
	grown := electOne(t, in, all)
	if !slices.Equal(grown.Seeds, []peer.ID{rank[2], rank[3], rank[4]}) {
		t.Fatalf("seeds %v of ranking %v, want the holder added", grown.Seeds, rank)
	}
	if got := excludedOf(grown, rank[4]); got != upTo(7) {
		t.Errorf("the added seed leaves %x to others, want what they have begun", got)
	}
	if excludedOf(grown, rank[2]) != (assignment.Runs{}) || excludedOf(grown, rank[3]) != (assignment.Runs{}) {
		t.Error("a seed of before lost a part of its duty")
	}

	// It keeps its share while all live, whatever it holds by now.
	in.Assign.Seeds, in.Excluded = grown.Seeds, grown.Excluded
	in.Holders[rank[4]] = Holding{99, assignment.AllRuns}
	if again := electOne(t, in, all); !slices.Equal(again.Seeds, grown.Seeds) || !slices.Equal(again.Excluded, grown.Excluded) {
		t.Errorf("elected again: %v %x", again.Seeds, again.Excluded)
	}
	// The first replicas are enough again: who was added goes.
	in.Replicas = 2
	if shrunk := electOne(t, in, all); !slices.Equal(shrunk.Seeds, []peer.ID{rank[2], rank[3]}) || shrunk.Excluded != nil {
		t.Errorf("shrunk to %v %x", shrunk.Seeds, shrunk.Excluded)
	}
}

func TestOrphanedRunsAreOwnedAgain(t *testing.T) {
	task := content.TaskID{1}
	all := candidates("a", "b", "c")
	in := file(task, "dead", "a")
	in.Excluded = []assignment.Runs{{}, upTo(9)}
	in.Holders = map[peer.ID]Holding{"a": {1, upTo(3)}}
	got := electOne(t, in, all)
	if len(got.Seeds) != 2 || !slices.Contains(got.Seeds, "a") {
		t.Fatalf("seeds %v", got.Seeds)
	}
	for run := range assignment.RunCount {
		owners := 0
		for i := range got.Seeds {
			if got.Excluded == nil || !got.Excluded[i].Has(run) {
				owners++
			}
		}
		if owners == 0 {
			t.Fatalf("nobody owns run %d: %x", run, got.Excluded)
		}
	}
	if got := excludedOf(got, "a"); got != upTo(9).Without(upTo(3)) {
		t.Errorf("a leaves %x to others, want what it has not begun itself of what the dead had", got)
	}
}

func TestNewGenerationHasNoShares(t *testing.T) {
	task := content.TaskID{1}
	in := file(task, "a")
	in.Size = -1
	in.Holders = map[peer.ID]Holding{"a": {1, upTo(3)}}
	if got := electOne(t, in, candidates("a", "b")); len(got.Seeds) != 2 || got.Excluded != nil {
		t.Errorf("%d seeds, shares %x of a file whose size is not known", len(got.Seeds), got.Excluded)
	}
}

func TestSiteSeed(t *testing.T) {
	task := content.TaskID{1}
	all := candidates("a", "b", "c", "x", "y", "z")
	for i := range all {
		if all[i].ID >= "x" {
			all[i].Site = "edge"
		} else {
			all[i].Site = "core"
		}
	}
	edge := ranked(task, all[3:])
	in := file(task, "a", "b")
	in.Sites = []string{"edge", "nowhere"}
	got := electOne(t, in, all)
	if len(got.Seeds) != 3 || !slices.Contains(got.Seeds, edge[0]) || excludedOf(got, edge[0]) != assignment.AllRuns {
		t.Fatalf("seeds %v, shares %x, want %s to stand for its site", got.Seeds, got.Excluded, edge[0])
	}
	if got.Seeds[0] == edge[0] {
		t.Error("who owns nothing is the head")
	}
	in.Assign.Seeds, in.Excluded = got.Seeds, got.Excluded
	if again := electOne(t, in, all); !slices.Equal(again.Seeds, got.Seeds) || !slices.Equal(again.Excluded, got.Excluded) {
		t.Errorf("elected again: %v", again.Seeds)
	}
	for name, tt := range map[string]struct {
		change func(*TaskInput, []Candidate)
		want   []peer.ID
	}{
		"the site needs none any more": {func(in *TaskInput, _ []Candidate) { in.Sites = nil }, []peer.ID{"a", "b"}},
		"a replica stands there": {func(in *TaskInput, _ []Candidate) {
			in.Assign.Seeds, in.Excluded = []peer.ID{"a", edge[1]}, nil
		}, []peer.ID{"a", edge[1]}},
		"who holds most of the file": {func(in *TaskInput, _ []Candidate) {
			in.Assign.Seeds, in.Excluded = []peer.ID{"a", "b"}, nil
			in.Holders = map[peer.ID]Holding{edge[2]: {Blocks: 1}}
		}, []peer.ID{"a", "b", edge[2]}},
		"the first is cordoned": {func(in *TaskInput, cs []Candidate) {
			in.Assign.Seeds, in.Excluded = []peer.ID{"a", "b"}, nil
			cs[slices.IndexFunc(cs, func(c Candidate) bool { return c.ID == edge[0] })].Cordoned = true
		}, []peer.ID{"a", "b", edge[1]}},
		"nobody there has room": {func(in *TaskInput, cs []Candidate) {
			in.Assign.Seeds, in.Excluded = []peer.ID{"a", "b"}, nil
			for i := range cs[3:] {
				cs[3+i].Capacity = 63 * gib
			}
		}, []peer.ID{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			in, cs := in, slices.Clone(all)
			in.Sites = slices.Clone(in.Sites)
			tt.change(&in, cs)
			got := electOne(t, in, cs).Seeds
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("seeds %v, want %v", got, tt.want)
			}
		})
	}
}

func TestElectByRoomAndOrders(t *testing.T) {
	task := content.TaskID{1}
	plain := candidates("a", "b", "c", "d", "e")
	rank := ranked(task, plain)
	with := func(change func(c *Candidate, place int)) []Candidate {
		out := slices.Clone(plain)
		for i := range out {
			change(&out[i], slices.Index(rank, out[i].ID))
		}
		return out
	}
	for _, tt := range []struct {
		name    string
		members []Candidate
		before  []peer.ID
		want    []peer.ID
	}{
		{"first election passes over who is full", with(func(c *Candidate, place int) {
			if place == 0 {
				c.Capacity, c.Duty = 100*gib, 69*gib
			}
		}), nil, rank[1:3]},
		{"exactly enough room", with(func(c *Candidate, place int) {
			if place == 0 {
				c.Capacity, c.Duty = 100*gib, 68*gib
			}
		}), nil, rank[:2]},
		{"who is beyond its capacity hands over", with(func(c *Candidate, place int) {
			if place == 1 {
				c.Capacity, c.Duty = 40*gib, 41*gib
			}
		}), rank[:2], []peer.ID{rank[0], rank[2]}},
		{"a file for three", with(func(c *Candidate, _ int) { c.Capacity = 22 * gib }), nil, rank[:3]},
		{"only one has room", with(func(c *Candidate, place int) {
			if c.Capacity = gib; place == 3 {
				c.Capacity = 64 * gib
			}
		}), nil, rank[3:4]},
		{"nobody has room", with(func(c *Candidate, _ int) { c.Capacity = gib }), nil, rank[:2]},
		{"first election passes over who is cordoned", with(func(c *Candidate, place int) { c.Cordoned = place == 1 }), nil, []peer.ID{rank[0], rank[2]}},
		{"who is cordoned keeps its duty", with(func(c *Candidate, place int) { c.Cordoned = place == 1 }), rank[:2], rank[:2]},
		{"who is cordoned takes no free place", with(func(c *Candidate, place int) { c.Cordoned = place == 1 }), rank[:1], []peer.ID{rank[0], rank[2]}},
		{"who has free disk takes the place", with(func(c *Candidate, place int) {
			if place == 4 {
				c.Free = 32 * gib
			}
		}), rank[:1], []peer.ID{rank[0], rank[4]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := file(task, tt.before...)
			for i := range tt.members { // the duties of before are in the books
				if slices.Contains(tt.before, tt.members[i].ID) && tt.members[i].Duty == 0 {
					tt.members[i].Duty = share(in.Size, int64(len(tt.before)))
				}
			}
			if got := electOne(t, in, tt.members).Seeds; !slices.Equal(got, tt.want) {
				t.Errorf("seeds %v, want %v of ranking %v", got, tt.want, rank)
			}
		})
	}
	if got := Elect(Input{Members: with(func(c *Candidate, _ int) { c.Cordoned = true }), Tasks: []TaskInput{file(task)}, Replicas: 2}); len(got) != 0 {
		t.Errorf("elected %v of those who take no new duties", got)
	}
}

func TestWholeIsToldOfHotTasks(t *testing.T) {
	task := content.TaskID{1}
	in := file(task, "a", "b")
	in.Size = 3 << 20
	in.Holders = map[peer.ID]Holding{"a": {Blocks: 3}, "b": {Blocks: 2}}
	if got := electOne(t, in, candidates("a", "b")); got.Whole != nil {
		t.Error("told of a task that few read")
	}
	in.Hot = true
	got := electOne(t, in, candidates("a", "b"))
	if len(got.Whole) != 2 || !got.Whole[slices.Index(got.Seeds, peer.ID("a"))] || got.Whole[slices.Index(got.Seeds, peer.ID("b"))] {
		t.Errorf("seeds %v, whole %v", got.Seeds, got.Whole)
	}
}
