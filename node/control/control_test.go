package control_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/supernode"
)

func TestSwarmLearnsPoolAndAssignments(t *testing.T) {
	b, nodes := newSwarm(t, 5)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	for _, n := range nodes {
		select {
		case <-n.Ready():
		default:
			t.Error("a node with a pool is not ready")
		}
	}
	h := heldTask(1)
	nodes[2].hold(h)
	if got, want := assigned(t, nodes, h.Task), ranking(nodes, h.Task)[:2]; !slices.Equal(got, want) {
		t.Errorf("seeds %v, want those that readers ranked first, %v", got, want)
	}
	st := b.Status()
	if len(st.Members) != 5 || len(st.Pool) != 5 || st.TaskCount != 1 || st.Tasks[0].Holders != 1 {
		t.Errorf("supernode's status: %+v", st)
	}
	if s := nodes[0].Status(); len(s) != 1 || !s[0].Connected || s[0].Epoch != st.Epoch {
		t.Errorf("node's status: %+v, supernode's epoch %d", s, st.Epoch)
	}
}

func TestDroppedTaskHasNoHolder(t *testing.T) {
	b, nodes := newSwarm(t, 2)
	h := heldTask(1)
	nodes[0].hold(h)
	assigned(t, nodes, h.Task)
	nodes[0].Dropped(h.Task)
	p2ptest.Eventually(t, 5*time.Second, func() bool { return b.Status().Tasks[0].Holders == 0 }, "a drop does not reach the supernode")
}

// TestLostGossipIsRepaired has a node join after all was published: no gossip
// tells it, so hash and fetch must.
func TestLostGossipIsRepaired(t *testing.T) {
	b, nodes := newSwarm(t, 2)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	for i := range byte(100) {
		nodes[0].hold(heldTask(i))
	}
	for i := range byte(100) {
		assigned(t, nodes, content.TaskID{i})
	}
	late := newNode(t, b.info)
	for i := range byte(100) {
		assigned(t, append(nodes, late), content.TaskID{i})
	}
}

func TestSupernodeRestart(t *testing.T) {
	const tasks = 10
	b, nodes := newSwarm(t, 4)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	var seeds [tasks][]peer.ID
	for i := range seeds {
		nodes[0].hold(heldTask(byte(i)))
	}
	for i := range seeds {
		seeds[i] = assigned(t, nodes, content.TaskID{byte(i)})
	}
	epoch := b.Status().Epoch
	// Nodes that join later do not change the seeds, nor does a restart, though
	// readers would now rank others first.
	nodes = append(nodes, newNode(t, b.info, nodes[0]), newNode(t, b.info, nodes[0]))
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	listen := addr(t, b.host)
	b.stop(t)
	if err := b.host.Close(); err != nil {
		t.Fatal(err)
	}
	again := newBoss(t, b.key, listen)
	for i, n := range nodes {
		p2ptest.Eventually(t, 10*time.Second, func() bool {
			got, _ := n.m.Version()
			return got > epoch && n.Status()[0].Epoch == got && entry(n, content.TaskID{tasks - 1}) != nil
		}, "node", i, "does not follow the new epoch")
	}
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	for i := range seeds {
		if got := assigned(t, nodes, content.TaskID{byte(i)}); !slices.Equal(got, seeds[i]) {
			t.Errorf("task %d: seeds %v after the restart, want %v", i, got, seeds[i])
		}
	}
	if st := again.Status(); st.TaskCount != tasks || st.Tasks[0].Holders != 1 {
		t.Errorf("the restarted supernode knows %d tasks: %+v", st.TaskCount, st.Tasks)
	}
}

// TestSupernodeClockWentBack starts a supernode again an hour before its last
// life. The only peer never beat to that one, but has its map from a neighbour:
// it speaks of the epoch, proves it, and then listens.
func TestSupernodeClockWentBack(t *testing.T) {
	b, nodes := newSwarm(t, 2)
	poolIs(t, 10*time.Second, nodes, hostIDs(nodes))
	h := heldTask(1)
	nodes[0].hold(h)
	assigned(t, nodes, h.Task)
	epoch := b.Status().Epoch
	listen := addr(t, b.host)
	b.stop(t)
	if err := b.host.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := newNode(t, b.info, nodes[1])
	poolIs(t, 10*time.Second, []*node{fresh}, hostIDs(nodes))
	for _, n := range nodes {
		n.stop(t)
	}
	again := newBossWith(t, b.key, listen, supernode.Config{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	nodes = []*node{fresh}
	poolIs(t, 30*time.Second, nodes, hostIDs(nodes))
	if got := again.Status().Epoch; got != epoch+1 {
		t.Errorf("epoch %d, want that behind the last, %d", got, epoch+1)
	}
	fresh.hold(heldTask(2))
	assigned(t, nodes, content.TaskID{2})
}

func TestNeighbourKnowsWhenEverySupernodeIsDead(t *testing.T) {
	b, nodes := newSwarm(t, 2)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	h := heldTask(1)
	nodes[0].hold(h)
	seeds := assigned(t, nodes, h.Task)
	b.stop(t)
	if err := b.host.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := newNode(t, b.info, nodes[1])
	p2ptest.Eventually(t, 5*time.Second, func() bool {
		return len(fresh.m.Pool()) == 2 && slices.Equal(entry(fresh, h.Task), seeds)
	}, "a fresh node does not learn the map from its neighbour")
	select {
	case <-fresh.Ready():
	default:
		t.Error("a node with a neighbour's pool is not ready")
	}
}

func TestSupernodeComesLater(t *testing.T) {
	key := newKey(t)
	probe, _ := newHost(t, key, "/ip4/127.0.0.1/tcp/0")
	listen, info := addr(t, probe), peer.AddrInfo{ID: probe.ID(), Addrs: probe.Addrs()}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	nodes := newNodes(t, info, 2)
	h := heldTask(1)
	nodes[0].hold(h) // does not block, and is not lost
	newBoss(t, key, listen)
	poolIs(t, 12*time.Second, nodes, hostIDs(nodes))
	assigned(t, nodes, h.Task)
}

func TestGoodbyeRemovesAndDeathIsNoticed(t *testing.T) {
	b, nodes := newSwarm(t, 4)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	h := heldTask(1)
	nodes[0].hold(h)
	assigned(t, nodes, h.Task)

	nodes[3].stop(t)
	if _, still := b.member(nodes[3].host.ID()); still {
		t.Error("a node that said goodbye is still a member")
	}
	poolIs(t, 3*time.Second, nodes[:3], hostIDs(nodes[:3]))

	dead := nodes[2].host.ID()
	if err := nodes[2].host.Close(); err != nil { // the network goes, no goodbye
		t.Fatal(err)
	}
	var beaten time.Time // not after its last beat
	p2ptest.Eventually(t, 5*time.Second, func() bool {
		before := time.Now()
		m, ok := b.member(dead)
		beaten = before.Add(-time.Duration(m.AgeMs+1) * time.Millisecond)
		return ok && m.State == supernode.Suspect
	}, "a member whose connection broke is no suspect")
	poolIs(t, 10*time.Second, nodes[:2], hostIDs(nodes[:2]))
	if lived := time.Since(beaten); lived < 3*period {
		t.Errorf("a suspect left the pool %s after its last beat, before its lease was over", lived)
	}
	p2ptest.Eventually(t, 3*time.Second, func() bool {
		seeds := entry(nodes[0], h.Task)
		return len(seeds) == 2 && !slices.Contains(seeds, dead) && !slices.Contains(seeds, nodes[3].host.ID())
	}, "the dead have not been replaced as seeds")
}

// TestLeaveIsTheLastWord has a node leave that goes on running: it is removed
// at once and for good, whatever it still reports, keeps its map, and says no
// second goodbye at its end.
func TestLeaveIsTheLastWord(t *testing.T) {
	b, nodes := newSwarm(t, 3)
	poolIs(t, 10*time.Second, nodes, hostIDs(nodes))
	h := heldTask(1)
	nodes[2].hold(h)
	assigned(t, nodes, h.Task)
	left := nodes[2].host.ID()
	nodes[2].Leave()
	nodes[2].Leave()
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		_, still := b.member(left)
		return !still
	}, "a node that left is still a member")
	poolIs(t, 10*time.Second, nodes, hostIDs(nodes[:2])) // of all, also of the one that left
	nodes[2].hold(heldTask(2))
	nodes[0].hold(heldTask(3))
	assigned(t, nodes, content.TaskID{3})
	if _, again := b.member(left); again || entry(nodes[0], content.TaskID{2}) != nil {
		t.Error("what a node reports after its goodbye is heard")
	}
	if seeds := assigned(t, nodes, h.Task); slices.Contains(seeds, left) {
		t.Errorf("a node that left is still among the seeds %v", seeds)
	}
	nodes[2].stop(t)
}

// TestForgedAssignment has a member of the swarm publish updates that no supernode
// signed, in its own name and in a supernode's.
func TestForgedAssignment(t *testing.T) {
	b, nodes := newSwarm(t, 2)
	poolIs(t, 3*time.Second, nodes, hostIDs(nodes))
	key := newKey(t)
	liar, ps := newHost(t, key, "/ip4/127.0.0.1/tcp/0")
	p2ptest.Connect(t, liar, nodes[0].host)
	forged, err := assignment.Sign(key, assignment.Update{
		Cursor:  assignment.Cursor{Epoch: 1 << 50, Seq: 1},
		Issued:  time.Now(),
		Assigns: []assignment.Assign{{Task: content.TaskID{66}, Size: 1, Seeds: []peer.ID{liar.ID()}, Lease: time.Hour}},
	})
	if err != nil {
		t.Fatal(err)
	}
	posing := forged
	posing.Supernode = b.info.ID
	p, err := assignment.NewPublisher(ps, assignment.Topic(""))
	if err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, 3*time.Second, func() bool { return len(ps.ListPeers(assignment.Topic(""))) > 0 }, "the liar finds nobody to lie to")
	for _, s := range []assignment.Signed{forged, posing} {
		if err := p.Publish(t.Context(), []assignment.Signed{s}); err != nil {
			t.Fatal(err)
		}
	}
	for _, reason := range []string{"untrusted", "signature"} {
		p2ptest.Eventually(t, 10*time.Second, func() bool {
			return counted(t, nodes[:1], "p2pnode_assignment_rejected_messages_total", reason) >= 1
		}, "no lie is refused as "+reason)
	}
	h := heldTask(1) // what is true comes through beside the lies
	nodes[1].hold(h)
	assigned(t, nodes, h.Task)
	for i, n := range nodes {
		if got := entry(n, content.TaskID{66}); got != nil {
			t.Errorf("node %d believes a forged assignment to %v", i, got)
		}
	}
}

// forgedLog has updates that no supernode signed, whoever asks.
type forgedLog struct {
	entries []assignment.Signed
	asked   atomic.Int64
}

func (f *forgedLog) Since([]assignment.Cursor, *content.Prefixes, int) ([]assignment.Signed, bool) {
	f.asked.Add(1)
	return f.entries, false
}

// TestForgedMap has a neighbour serve a map of its own making, with a pool, to a
// node whose supernode is dead.
func TestForgedMap(t *testing.T) {
	b := newBoss(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
	b.stop(t)
	if err := b.host.Close(); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	liar := &node{}
	liar.host, _ = newHost(t, key, "/ip4/127.0.0.1/tcp/0")
	log := &forgedLog{}
	for seq, u := range []assignment.Update{
		{Pool: &assignment.PoolPage{Pages: 1, Members: []assignment.Member{{ID: liar.host.ID(), Weight: 1}}}},
		{Assigns: []assignment.Assign{{Task: content.TaskID{66}, Size: 1, Seeds: []peer.ID{liar.host.ID()}, Lease: time.Hour}}},
	} {
		u.Cursor, u.Issued = assignment.Cursor{Epoch: 1 << 50, Seq: uint64(seq + 1)}, time.Now()
		forged, err := assignment.Sign(key, u)
		if err != nil {
			t.Fatal(err)
		}
		posing := forged
		posing.Supernode = b.info.ID
		log.entries = append(log.entries, forged, posing)
	}
	start(t, fetch.NewServer(liar.host, log, fetch.ServerConfig{Logger: quiet()}).Run)
	p2ptest.Eventually(t, 3*time.Second, func() bool { return slices.Contains(liar.host.Mux().Protocols(), fetch.Protocol) }, "the liar does not serve")
	n := newNode(t, b.info, liar)
	p2ptest.Eventually(t, 10*time.Second, func() bool { return log.asked.Load() > 1 }, "the liar is not asked again")
	if got := entry(n, content.TaskID{66}); got != nil || len(n.m.Pool()) != 0 || n.m.TrustedSigner(liar.host.ID()) {
		t.Errorf("believed: pool %v, seeds %v, the liar as a signer %v", n.m.Pool(), got, n.m.TrustedSigner(liar.host.ID()))
	}
}

func TestConfigIsChecked(t *testing.T) {
	h, ps := newHost(t, newKey(t), "/ip4/127.0.0.1/tcp/0")

	good := control.Config{Host: h, PubSub: ps, Beat: func() heartbeat.Beat { return heartbeat.Beat{} }, Map: nullMap{}}
	other := peer.AddrInfo{ID: mustID(t)}
	for _, tt := range []struct {
		name   string
		change func(*control.Config)
		ok     bool
	}{
		{"no supernode", func(*control.Config) {}, true},
		{"one supernode", func(c *control.Config) { c.Supernodes = []peer.AddrInfo{other} }, true},
		{"no host", func(c *control.Config) { c.Host = nil }, false},
		{"no pubsub", func(c *control.Config) { c.PubSub = nil }, false},
		{"no beat", func(c *control.Config) { c.Beat = nil }, false},
		{"no map", func(c *control.Config) { c.Map = nil }, false},
		{"negative interval", func(c *control.Config) { c.Interval = -1 }, false},
		{"itself as supernode", func(c *control.Config) { c.Supernodes = []peer.AddrInfo{{ID: h.ID()}} }, false},
		{"a supernode twice", func(c *control.Config) { c.Supernodes = []peer.AddrInfo{other, other} }, false},
		{"a supernode without ID", func(c *control.Config) { c.Supernodes = []peer.AddrInfo{{}} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := control.New(cfg); (err == nil) != tt.ok {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestWithoutSupernodesNothingBlocks(t *testing.T) {
	h, ps := newHost(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
	c, err := control.New(control.Config{
		Host: h, PubSub: ps, Map: nullMap{}, Logger: quiet(), Beat: func() heartbeat.Beat { return heartbeat.Beat{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Report(heldTask(1))
	c.Dropped(content.TaskID{1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Error(err)
	}
}

func mustID(t *testing.T) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// nullMap knows nothing.
type nullMap struct{}

func (nullMap) Apply(assignment.Signed, assignment.Update) {}
func (nullMap) Agree(assignment.Cursor, [32]byte) bool     { return true }
func (nullMap) Cursors() []assignment.Cursor               { return nil }
func (nullMap) Confirm(peer.ID)                            {}
func (nullMap) Pool() []assignment.Member                  { return nil }
func (nullMap) Follows() *content.Prefixes                 { return nil }
func (nullMap) Follow(bool) *content.Prefixes              { return nil }
func (nullMap) Reconsider() <-chan struct{}                { return nil }
func (nullMap) Use(content.TaskID)                         {}
func (nullMap) Shards() []int                              { return nil }
func (nullMap) Since([]assignment.Cursor, *content.Prefixes, int) ([]assignment.Signed, bool) {
	return nil, false
}
