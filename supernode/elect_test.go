package supernode

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

func candidates(ids ...string) []Candidate {
	out := make([]Candidate, len(ids))
	for i, id := range ids {
		out[i] = Candidate{Member: content.Member{ID: peer.ID(id), Weight: 1}}
	}
	return out
}

// ranked returns the candidates' IDs in the order in which readers rank them.
func ranked(task content.TaskID, cs []Candidate) []peer.ID {
	var ms []content.Member
	for _, c := range cs {
		ms = append(ms, c.Member)
	}
	var out []peer.ID
	for _, m := range content.Rank(nil, task[:], ms) {
		out = append(out, m.ID)
	}
	return out
}

func elect(t *testing.T, in TaskInput, members []Candidate, replicas int) []peer.ID {
	t.Helper()
	out := Elect(Input{Members: members, Tasks: []TaskInput{in}, Replicas: replicas})
	if len(out) != 1 {
		t.Fatalf("%d assignments for one task", len(out))
	}
	return out[0].Seeds
}

// holding has so many blocks a peer.
func holding(blocks map[peer.ID]int64) map[peer.ID]Holding {
	out := make(map[peer.ID]Holding)
	for id, n := range blocks {
		out[id] = Holding{Blocks: n}
	}
	return out
}

func TestElect(t *testing.T) {
	task := content.TaskID{1}
	five := candidates("a", "b", "c", "d", "e")
	rank := ranked(task, five)
	sited := slices.Clone(five)
	for i := range sited { // all at one site, but for the last of the ranking
		sited[i].Site = "north"
		if sited[i].ID == rank[4] {
			sited[i].Site = "south"
		}
	}
	for _, tt := range []struct {
		name     string
		members  []Candidate
		previous []peer.ID
		holders  map[peer.ID]int64
		replicas int
		want     []peer.ID
	}{
		{"first election adopts the readers' ranking", five, nil, nil, 2, rank[:2]},
		{"first election looks at no holder", five, nil, map[peer.ID]int64{rank[4]: 9}, 2, rank[:2]},
		{"first election looks at no site", sited, nil, nil, 2, rank[:2]},
		{"live seeds stay, whatever their rank", five, []peer.ID{rank[3], rank[4]}, nil, 2, rank[3:]},
		{"live seeds stay, whoever holds", five, rank[:2], map[peer.ID]int64{rank[2]: 9}, 2, rank[:2]},
		{"head comes first", five, []peer.ID{rank[4], rank[1]}, nil, 2, []peer.ID{rank[1], rank[4]}},
		{"dead seed: next in rank", five, []peer.ID{"dead", rank[1]}, nil, 2, rank[:2]},
		{"dead seed: who holds most", five, []peer.ID{"dead", rank[0]}, map[peer.ID]int64{rank[2]: 1, rank[3]: 2}, 2, []peer.ID{rank[0], rank[3]}},
		{"dead seed: another site", sited, []peer.ID{"dead", rank[0]}, nil, 2, []peer.ID{rank[0], rank[4]}},
		{"dead seed: a holder before another site", sited, []peer.ID{"dead", rank[0]}, map[peer.ID]int64{rank[3]: 1}, 2, []peer.ID{rank[0], rank[3]}},
		{"all dead", five, []peer.ID{"x", "y"}, nil, 2, rank[:2]},
		{"fewer members than replicas", five[:1], nil, nil, 3, []peer.ID{"a"}},
		{"a free place is filled", five, rank[:1], nil, 2, rank[:2]},
		{"fewer replicas than before", five, []peer.ID{rank[2], rank[0], rank[1]}, nil, 2, rank[:2]},
		{"a seed named twice", five, []peer.ID{rank[0], rank[0]}, nil, 2, rank[:2]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := TaskInput{Assign: assignment.Assign{Task: task, Seeds: tt.previous}, Holders: holding(tt.holders)}
			if got := elect(t, in, tt.members, tt.replicas); !slices.Equal(got, tt.want) {
				t.Errorf("seeds %v, want %v (rank %v)", got, tt.want, rank)
			}
		})
	}
}

func TestElectWithoutMembers(t *testing.T) {
	in := Input{Tasks: []TaskInput{{Assign: assignment.Assign{Seeds: []peer.ID{"a"}}}}, Replicas: 2}
	if got := Elect(in); len(got) != 0 {
		t.Errorf("elected %v among nobody", got)
	}
}
