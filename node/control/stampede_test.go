package control_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// asked sums up how often nodes asked for the map.
func asked(t *testing.T, nodes []*node, whom string) float64 {
	t.Helper()
	return counted(t, nodes, "p2pnode_control_fetches_total", whom)
}

// counted sums up what a counter of nodes says under its one label.
func counted(t *testing.T, nodes []*node, name, label string) (n float64) {
	t.Helper()
	for _, of := range nodes {
		all, err := of.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// No node hears any gossip: what is published is lost for all of them. They find
// it by the hash and have it from one another, not all from the supernode.
func TestLostMessageIsNoStampede(t *testing.T) {
	const count, rounds = 12, 4
	b := newBoss(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
	var nodes []*node
	for i := range count {
		nodes = append(nodes, newNodeIn(t, "another", []peer.AddrInfo{b.info}, nodes[max(0, i-4):i]...))
	}
	poolIs(t, 10*time.Second, nodes, hostIDs(nodes))
	before := asked(t, nodes, "supernode")
	for i := range byte(rounds) {
		nodes[i].hold(heldTask(i))
		assigned(t, nodes, content.TaskID{i})
	}
	bosses, neighbours := asked(t, nodes, "supernode")-before, asked(t, nodes, "neighbour")
	t.Logf("%d nodes lost %d messages: %v questions to the supernode, %v to neighbours", count, rounds, bosses, neighbours)
	if bosses >= count*rounds || bosses < rounds {
		t.Errorf("the supernode was asked %v times, want less than once for each node and message, and once for each message", bosses)
	}
}
