package control_test

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/supernode"
)

// Demand that one seed counts makes all nodes know of more seeds two heartbeat
// periods later; when nobody reads any more they are fewer again.
func TestDemandReachesEverybody(t *testing.T) {
	key := newKey(t)
	h, ps := newHost(t, key, "/ip4/127.0.0.1/tcp/0")
	s, err := supernode.New(supernode.Config{
		Host: h, PubSub: ps, Key: key, Beat: period, PoolInterval: period, Logger: quiet(), Registerer: prometheus.NewRegistry(),
		Demand: supernode.Policy{ReadersPerSeed: 1, Calm: 2 * period},
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.Run)
	nodes := newNodes(t, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, 5)
	poolIs(t, 5*time.Second, nodes, hostIDs(nodes))
	task := heldTask(1)
	nodes[0].hold(task)
	if seeds := assigned(t, nodes, task.Task); len(seeds) != 2 {
		t.Fatalf("%d seeds of a task that nobody reads", len(seeds))
	}
	for _, reader := range nodes[1:] {
		nodes[0].Served(task.Task, reader.host.ID(), 1<<20)
	}
	count := func(n int) func() bool {
		return func() bool {
			return !slices.ContainsFunc(nodes, func(of *node) bool { return len(entry(of, task.Task)) != n })
		}
	}
	served := time.Now()
	p2ptest.Eventually(t, 10*period, count(4), "four readers, one for each seed, have not got four seeds")
	t.Logf("known to all after %s, in periods of %s", time.Since(served).Round(time.Millisecond), period)
	// Two windows of three periods remember the readers, then the calm begins.
	p2ptest.Eventually(t, 30*period, count(2), "there are four seeds still though nobody reads")
}
