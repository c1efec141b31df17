package control_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/supernode"
)

// period is the heartbeat period of the tests.
const period = 500 * time.Millisecond

// runner is something that runs until it is stopped.
type runner struct {
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
}

func start(t *testing.T, run func(context.Context) error) *runner {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends it in the regular way and waits for the end.
func (r *runner) stop(t *testing.T) {
	t.Helper()
	r.once.Do(func() {
		r.cancel()
		select {
		case err := <-r.done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newHost makes a host with GossipSub that closes with the test.
func newHost(t *testing.T, key crypto.PrivKey, listen string) (host.Host, *pubsub.PubSub) {
	t.Helper()
	h, err := libp2p.New(
		libp2p.Identity(key), libp2p.ListenAddrStrings(listen),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(),
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = h.Close()
	})
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithFloodPublish(true), pubsub.WithPeerOutboundQueueSize(256))
	if err != nil {
		t.Fatal(err)
	}
	return h, ps
}

// boss is a supernode.
type boss struct {
	*supernode.Supernode
	*runner
	key  crypto.PrivKey
	host host.Host
	info peer.AddrInfo
}

func newBoss(t *testing.T, key crypto.PrivKey, listen string) *boss {
	t.Helper()
	return newBossWith(t, key, listen, supernode.Config{})
}

// newBossWith makes a supernode with what cfg says, and the period of the tests.
func newBossWith(t *testing.T, key crypto.PrivKey, listen string, cfg supernode.Config) *boss {
	t.Helper()
	h, ps := newHost(t, key, listen)
	cfg.Host, cfg.PubSub, cfg.Key, cfg.Beat, cfg.PoolInterval = h, ps, key, period, period
	cfg.Logger, cfg.Registerer = quiet(), prometheus.NewRegistry()
	s, err := supernode.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &boss{
		Supernode: s, runner: start(t, s.Run), key: key, host: h,
		info: peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()},
	}
}

// member returns what the supernode knows of a peer.
func (b *boss) member(id peer.ID) (supernode.MemberStatus, bool) {
	for _, m := range b.Status().Members {
		if m.Peer == id {
			return m, true
		}
	}
	return supernode.MemberStatus{}, false
}

// node is a peer's control plane, with its map.
type node struct {
	*control.Control
	*runner
	host host.Host
	ps   *pubsub.PubSub
	m    *locate.Map
	reg  *prometheus.Registry

	mu   sync.Mutex
	held []report.Held
}

func newNode(t *testing.T, supernode peer.AddrInfo, neighbours ...*node) *node {
	t.Helper()
	return newNodeOf(t, []peer.AddrInfo{supernode}, neighbours...)
}

// newNodeOf makes a node that follows several supernodes.
func newNodeOf(t *testing.T, supernodes []peer.AddrInfo, neighbours ...*node) *node {
	t.Helper()
	return newNodeIn(t, "", supernodes, neighbours...)
}

// newNodeIn makes a node that hears the gossip of a swarm, by its name.
func newNodeIn(t *testing.T, swarm string, supernodes []peer.AddrInfo, neighbours ...*node) *node {
	t.Helper()
	return newNodeAs(t, swarm, true, supernodes, neighbours...)
}

// newNodeAs makes a node that offers to be a seed, or does not.
func newNodeAs(t *testing.T, swarm string, seed bool, supernodes []peer.AddrInfo, neighbours ...*node) *node {
	t.Helper()
	n := &node{reg: prometheus.NewRegistry()}
	var ids []peer.ID
	for _, s := range supernodes {
		ids = append(ids, s.ID)
	}
	n.host, n.ps = newHost(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
	n.m = locate.New(locate.Config{Self: n.host.ID(), SelfSeed: true, Supernodes: ids})
	c, err := control.New(control.Config{
		Host: n.host, PubSub: n.ps, Supernodes: supernodes, Interval: period, Stale: 4 * period, Map: n.m, Logger: quiet(), Registerer: n.reg, Swarm: swarm,
		Beat: func() heartbeat.Beat { return heartbeat.Beat{Addrs: n.host.Addrs(), Seed: seed, Capacity: 1 << 30} },
		AllHeld: func() []report.Held {
			n.mu.Lock()
			defer n.mu.Unlock()
			return slices.Clone(n.held)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Control = c
	for _, o := range neighbours {
		p2ptest.Connect(t, n.host, o.host)
	}
	n.runner = start(t, c.Run)
	return n
}

// hold makes the node hold a task and report it.
func (n *node) hold(h report.Held) {
	n.mu.Lock()
	n.held = append(n.held, h)
	n.mu.Unlock()
	n.Report(h)
}

// newSwarm makes a supernode and nodes that are each connected to the one
// before.
func newSwarm(t *testing.T, count int) (*boss, []*node) {
	t.Helper()
	b := newBoss(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
	return b, newNodes(t, b.info, count)
}

func newNodes(t *testing.T, supernode peer.AddrInfo, count int) []*node {
	t.Helper()
	var nodes []*node
	for i := range count {
		nodes = append(nodes, newNode(t, supernode, nodes[max(0, i-1):i]...))
	}
	return nodes
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func hostIDs(nodes []*node) []peer.ID {
	var out []peer.ID
	for _, n := range nodes {
		out = append(out, n.host.ID())
	}
	slices.Sort(out)
	return out
}

// poolIs waits until every node knows just this pool.
func poolIs(t *testing.T, within time.Duration, nodes []*node, want []peer.ID) {
	t.Helper()
	for i, n := range nodes {
		p2ptest.Eventually(t, within, func() bool {
			var got []peer.ID
			for _, m := range n.m.Pool() {
				got = append(got, m.ID)
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		}, fmt.Sprintf("node %d of %d does not know the pool of %d", i, len(nodes), len(want)))
	}
}

// assigned waits until every node knows the same assignment of a task, and
// returns its seeds, the head first. One that is replaced while it spreads is
// waited for too.
func assigned(t *testing.T, nodes []*node, task content.TaskID) []peer.ID {
	t.Helper()
	var want []peer.ID
	p2ptest.Eventually(t, 5*time.Second, func() bool {
		want = entry(nodes[0], task)
		return want != nil && !slices.ContainsFunc(nodes[1:], func(n *node) bool { return !slices.Equal(entry(n, task), want) })
	}, fmt.Sprintf("not all of %d nodes know the same assignment", len(nodes)))
	return want
}

func entry(n *node, task content.TaskID) []peer.ID {
	for e := range n.m.Entries() {
		if e.Task == task {
			return e.Seeds
		}
	}
	return nil
}

func ranking(nodes []*node, task content.TaskID) []peer.ID {
	var ms []content.Member
	for _, n := range nodes {
		ms = append(ms, content.Member{ID: n.host.ID(), Weight: 1})
	}
	var out []peer.ID
	for _, m := range content.Rank(nil, task[:], ms) {
		out = append(out, m.ID)
	}
	return out
}

func heldTask(i byte) report.Held {
	return report.Held{
		Task: content.TaskID{i}, URL: fmt.Sprintf("http://origin/%d", i), Generation: content.Generation{1},
		Size: 3 << 20, Present: []byte{7},
	}
}

func addr(t *testing.T, h host.Host) string {
	t.Helper()
	for _, a := range h.Addrs() {
		if _, err := a.ValueForProtocol(multiaddr.P_TCP); err == nil {
			return a.String()
		}
	}
	t.Fatal("no TCP address")
	return ""
}
