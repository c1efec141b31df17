package supernode

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// BenchmarkElect elects 100 tasks among a full pool of 256 members, whose
// capacities count: for the first time, again without a change, and after one of
// two seeds has died.
func BenchmarkElect(b *testing.B) {
	var in Input
	for i := range assignment.MaxPool {
		in.Members = append(in.Members, Candidate{
			Member: content.Member{ID: peer.ID(fmt.Sprintf("%032d", i)), Weight: float64(int(1) << (i % 4))},
			Site:   fmt.Sprint("site ", i%10), Capacity: 1 << 40,
		})
	}
	in.Replicas, in.MaxReplicas = 2, 8
	for i := range 100 {
		in.Tasks = append(in.Tasks, TaskInput{Assign: assignment.Assign{Task: content.TaskID{byte(i)}, Size: 1 << 30, Generation: content.Generation{1}}})
	}
	elected := Elect(in)
	again, died := in, in
	again.Tasks, died.Tasks = nil, nil
	for _, a := range elected {
		again.Tasks = append(again.Tasks, TaskInput{Assign: a})
		a.Seeds = []peer.ID{a.Seeds[0], "dead"}
		died.Tasks = append(died.Tasks, TaskInput{Assign: a, Holders: map[peer.ID]Holding{a.Seeds[0]: {Blocks: 9, Begun: upTo(9)}}})
	}
	for _, c := range []struct {
		name string
		in   Input
	}{{"first", in}, {"again", again}, {"one died", died}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(Elect(c.in)) != len(c.in.Tasks) {
					b.Fatal("a task was left out")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(c.in.Tasks)), "µs/task")
		})
	}
}
