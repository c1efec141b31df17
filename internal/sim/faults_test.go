package sim

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/supernode"
)

var (
	faultSeeds = flag.Int("fault-seeds", 1000, "runs of TestFaults")
	faultSeed  = flag.Uint64("fault-seed", 0, "the one seed of TestFaults; 0 for all")
)

const (
	// faultTime is how long messages are lost, doubled and delayed; what is
	// reported in this time is what the maps must tell afterwards.
	faultTime = 12 * time.Second
	// converged is when all maps must agree after the last fault: two heartbeat
	// periods, each of which is varied by 10 %.
	converged = 2 * heartbeat.DefaultInterval * 11 / 10
)

// TestFaults loses, doubles, delays and reorders messages of the control
// protocols and of GossipSub while files are reported and dropped. Two
// heartbeat periods later every report has been heard, and every map says what
// the supernode says.
func TestFaults(t *testing.T) { faultyRuns(t, *faultSeeds, 1) }

// TestFaultsInShards is TestFaults with assignments in four shards, of which two of
// the members, which are no seeds, follow those that they use.
func TestFaultsInShards(t *testing.T) { faultyRuns(t, *faultSeeds/5, 4) }

func faultyRuns(t *testing.T, seeds, shards int) {
	switch {
	case *faultSeed != 0:
		t.Logf("%+v", underFaults(t, *faultSeed, shards))
		return
	case raced:
		seeds = min(seeds, 20)
	case testing.Short():
		seeds = min(seeds, 100)
	}
	t.Logf("%d seeds", seeds)
	const workers = 4
	var parts [workers]tolls
	t.Cleanup(func() {
		var sum tolls
		for _, p := range parts {
			sum = sum.plus(p)
		}
		t.Logf("%d seeds: %+v", seeds, sum)
	})
	for worker := range workers {
		t.Run(fmt.Sprintf("part %d", worker), func(t *testing.T) {
			t.Parallel()
			for seed := worker + 1; seed <= seeds; seed += workers {
				parts[worker] = parts[worker].plus(underFaults(t, uint64(seed), shards))
			}
		})
	}
}

// member is a node's control plane and map.
type member struct {
	id      peer.ID
	seed    bool
	control *control.Control
	seeds   *locate.Map
	run     *running

	mu   sync.Mutex
	held map[content.TaskID]report.Held
}

func (m *member) all() []report.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []report.Held
	for _, h := range m.held {
		out = append(out, h)
	}
	return out
}

// underFaults is one run of TestFaults.
func underFaults(t *testing.T, seed uint64, shards int) (sum tolls) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		f := &faults{
			seed: seed, on: true, flows: make(map[flow]*rand.Rand),
			lose: 0.3 * random.Float64(), double: 0.2 * random.Float64(), delay: 0.3 * random.Float64(),
			longest: time.Duration(random.IntN(3000)) * time.Millisecond,
		}
		net := mocknet.New()
		defer func() { _ = net.Close() }()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		top, gossip, key := newFaultyHost(t, ctx, net, 1, f)
		s, err := supernode.New(supernode.Config{Host: top, PubSub: gossip, Key: key, Shards: shards, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		members := make([]*member, 3)
		if shards > 1 {
			members = make([]*member, 4)
		}
		for i := range members {
			members[i] = newMember(t, ctx, net, i+2, f, top.ID(), shards == 1 || i < 2)
		}
		if err := net.LinkAll(); err != nil {
			t.Fatal(err)
		}
		if err := net.ConnectAllButSelf(); err != nil {
			t.Fatal(err)
		}
		runs := []*running{start(s.Run)}
		for _, m := range members {
			runs = append(runs, start(m.control.Run))
		}
		act(random, members, shards)
		sum = f.stop()
		time.Sleep(converged)
		for _, problem := range disagreements(s.Status(), members) {
			t.Errorf("seed %d (lost %.2f, doubled %.2f, delayed %.2f up to %v): %s", seed, f.lose, f.double, f.delay, f.longest, problem)
		}
		for _, r := range slices.Backward(runs) {
			if err := r.stop(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	})
	return sum
}

// act has the members report and drop files for as long as there are faults.
func act(random *rand.Rand, members []*member, shards int) {
	end := time.Now().Add(faultTime)
	for i := 0; ; i++ {
		time.Sleep(time.Duration(random.IntN(800)) * time.Millisecond)
		if time.Now().After(end) {
			return
		}
		m := members[random.IntN(len(members))]
		h := someTask(1, random.IntN(20))
		if shards > 1 {
			h.Task[0] = h.Task[2] * 13 // of all shards
			if random.IntN(4) > 0 && !m.seed {
				continue // who holds much uses all shards
			}
		}
		m.mu.Lock()
		_, has := m.held[h.Task]
		if has && random.IntN(3) == 0 {
			delete(m.held, h.Task)
			m.mu.Unlock()
			m.control.Dropped(h.Task)
			continue
		}
		h.Size, h.Present = 8<<20, []byte{byte(random.IntN(255) + 1)}
		m.held[h.Task] = h
		m.mu.Unlock()
		m.control.Report(h)
	}
}

// disagreements returns what the supernode does not know of the members, and
// what their maps do not know of it.
func disagreements(s supernode.Status, members []*member) []string {
	var out []string
	holders := make(map[content.TaskID]int)
	for _, m := range members {
		for id := range m.held {
			holders[id]++
		}
	}
	seeds := make(map[content.TaskID][]peer.ID)
	for _, task := range s.Tasks {
		seeds[task.Task] = task.Seeds
		if task.Holders != holders[task.Task] {
			out = append(out, fmt.Sprintf("the supernode knows %d holders of %s, there are %d", task.Holders, task.ID[:8], holders[task.Task]))
		}
	}
	for id := range holders {
		if len(seeds[id]) == 0 {
			out = append(out, fmt.Sprintf("the supernode has not assigned %s", id.String()[:8]))
		}
	}
	pool := 0
	for _, m := range members {
		if m.seed {
			pool++
		}
	}
	for i, m := range members {
		if n := len(m.seeds.Pool()); n != pool {
			out = append(out, fmt.Sprintf("member %d knows a pool of %d", i, n))
		}
		for j, c := range m.seeds.Cursors() {
			if acked := m.control.Status()[j]; c.Epoch != acked.Epoch || c.Seq < acked.Seq {
				out = append(out, fmt.Sprintf("member %d has all up to %d, and was told of %d", i, c.Seq, acked.Seq))
			}
		}
		follows := m.seeds.Follows()
		if m.seed != (follows == nil) {
			out = append(out, fmt.Sprintf("member %d follows %v", i, follows))
		}
		got, want := 0, 0
		for id := range seeds {
			if follows == nil || follows.Has(id[0]) {
				want++
			}
		}
		for e := range m.seeds.Entries() {
			got++
			if !slices.Equal(e.Seeds, seeds[e.Task]) {
				out = append(out, fmt.Sprintf("member %d has other seeds of %s", i, e.Task.String()[:8]))
			}
		}
		if got != want {
			out = append(out, fmt.Sprintf("member %d knows %d assignments of %d", i, got, want))
		}
	}
	return out
}

func newFaultyHost(t *testing.T, ctx context.Context, net mocknet.Mocknet, n int, f *faults) (*faultyHost, *pubsub.PubSub, crypto.PrivKey) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(keyBytes(n))
	if err != nil {
		t.Fatal(err)
	}
	h, err := net.AddPeer(key, multiaddr.StringCast(fmt.Sprintf("/ip4/11.0.0.%d/tcp/8000", n)))
	if err != nil {
		t.Fatal(err)
	}
	faulty := &faultyHost{h, f}
	gossip, err := pubsub.NewGossipSub(ctx, faulty, pubsub.WithFloodPublish(true), pubsub.WithPeerOutboundQueueSize(256))
	if err != nil {
		t.Fatal(err)
	}
	return faulty, gossip, key
}

func newMember(t *testing.T, ctx context.Context, net mocknet.Mocknet, n int, f *faults, top peer.ID, seed bool) *member {
	t.Helper()
	h, gossip, _ := newFaultyHost(t, ctx, net, n, f)
	m := &member{
		id: h.ID(), seed: seed, held: make(map[content.TaskID]report.Held),
		seeds: locate.New(locate.Config{Self: h.ID(), SelfSeed: seed, Supernodes: []peer.ID{top}}),
	}
	var err error
	m.control, err = control.New(control.Config{
		Host: h, PubSub: gossip, Supernodes: []peer.AddrInfo{{ID: top}}, Map: m.seeds, AllHeld: m.all, Logger: quiet(),
		Beat: func() heartbeat.Beat { return heartbeat.Beat{Addrs: h.Addrs(), Seed: seed, Capacity: 10 << 30} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
