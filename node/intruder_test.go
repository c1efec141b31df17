package node_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/membership"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// intruder is a member of a closed swarm, with a certificate of its own, that does
// what it likes.
type intruder struct {
	hostileSeed
	*host.Host
	gate  *host.Gate
	other atomic.Bool // of a file it says that it is another one
	// shown is how often it was shown credentials, or asked to judge them.
	shown atomic.Int64
}

// intruder joins with a secret of a role.
func (s *closedSwarm) intruder(role string) *intruder {
	s.t.Helper()
	key, _ := p2ptest.Key(s.t)
	secret, err := membership.ParseSecret(s.secret(node.TokenConfig{Role: role}))
	if err != nil {
		s.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	x := &intruder{gate: host.NewGate(host.GateConfig{Swarm: secret.Swarm, Logger: log})}
	listen, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/tcp/0")
	if err != nil {
		s.t.Fatal(err)
	}
	if x.Host, err = host.New(host.Config{Key: key, Gate: x.gate, DHTServer: true, Listen: []multiaddr.Multiaddr{listen}, Logger: log}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = x.Close() })
	x.host = x.Host
	super := x.connect(s.t, s.supernode)
	chain, err := membership.Join(s.t.Context(), x.Host, super, secret)
	if err != nil {
		s.t.Fatal(err)
	}
	x.gate.SetChain(s.t.Context(), chain)
	return x
}

// connect dials a node and returns its ID.
func (x *intruder) connect(t *testing.T, addr string) peer.ID {
	t.Helper()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// Serve implements rangeread.Handler: it has every file, of bytes that it has
// signed itself.
func (x *intruder) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	if req.Authorize || req.Origin != nil && len(req.Origin.Header) > 0 {
		x.shown.Add(1)
	}
	if req.Origin == nil {
		req.Origin = &rangeread.Origin{}
	}
	if req.Generation.IsZero() || x.other.Load() {
		req.Generation = content.Generation{66}
	}
	return x.hostileSeed.Serve(ctx, from, req, a)
}

// publish tells the swarm, in its own name, in the supernode's, and in no form at
// all, that it alone is the seed of some tasks, and the pool.
func (x *intruder) publish(t *testing.T, super peer.ID, tasks ...content.TaskID) {
	t.Helper()
	p, err := assignment.NewPublisher(x.PubSub, assignment.Topic(node.DefaultSwarm))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	eventually(t, "the intruder finds whom to lie to", func() bool { return len(x.PubSub.ListPeers(assignment.Topic(node.DefaultSwarm))) >= 2 })
	var updates []assignment.Update
	for i, task := range tasks {
		updates = append(updates, assignment.Update{
			Cursor: assignment.Cursor{Epoch: 1 << 50, Seq: uint64(i + 1)}, Issued: time.Now(),
			Assigns: []assignment.Assign{{Task: task, Size: -1, Seeds: []peer.ID{x.ID()}, Lease: time.Hour}},
		})
	}
	updates = append(updates, assignment.Update{
		Cursor: assignment.Cursor{Epoch: 1 << 50, Seq: uint64(len(tasks) + 1)}, Issued: time.Now(),
		Pool: &assignment.PoolPage{Pages: 1, Members: []assignment.Member{{ID: x.ID(), Addrs: x.Addrs(), Weight: 1 << 40}}},
	})
	for _, u := range updates {
		own, err := assignment.Sign(x.Peerstore().PrivKey(x.ID()), u)
		if err != nil {
			t.Fatal(err)
		}
		posing, junk := own, own
		posing.Supernode = super
		junk.Raw = p2ptest.Bytes(u.Seq, 1000)
		for _, one := range []assignment.Signed{own, posing, junk} {
			if err := p.Publish(t.Context(), []assignment.Signed{one}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReaderIsNoSeed has a member with the certificate of a reader do all that
// takes another one: it beats as the largest seed of all, publishes assignments
// and a pool, announces files in the DHT, and serves what it has signed itself.
// Nobody believes it, and the others' reads succeed, also when it is the last that
// answers.
func TestReaderIsNoSeed(t *testing.T) {
	s := newClosedSwarm(t)
	o := p2ptest.NewOrigin(t)
	seed, stopSeed := s.start(s.config(s.secret(node.TokenConfig{Role: "seed"})))
	cfg := s.config(s.secret(node.TokenConfig{Role: "reader"}))
	reg := prometheus.NewRegistry()
	cfg.OriginFallback, cfg.Registerer, cfg.Gatherer = true, reg, reg
	reader, _ := s.start(cfg)
	eventually(t, "the reader knows the pool", func() bool { return len(reader.ReadStatus().Pool) == 1 })

	x := s.intruder("reader")
	for _, n := range []*node.Node{seed, reader} {
		x.connect(t, n.Info().Addrs[0])
	}
	server := rangeread.NewServer(rangeread.ServerConfig{Host: x.Host, Handler: x})
	x.background(t, server.Run)
	x.beat(t, s.supernode)

	urls, bodies := make([]string, 4), make([][]byte, 4)
	var tasks []content.TaskID
	for i := range urls {
		bodies[i] = p2ptest.Bytes(uint64(i), 3<<20)
		urls[i] = o.Add("/"+string(rune('0'+i)), bodies[i])
		task, err := content.NewTask(urls[i], content.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task.ID)
	}
	super, err := peer.Decode(s.id)
	if err != nil {
		t.Fatal(err)
	}
	x.publish(t, super, tasks...)
	for _, reason := range []string{"untrusted", "signature", "malformed"} {
		eventually(t, "the reader has refused what is "+reason, func() bool {
			return metric(t, reader, `p2pnode_assignment_rejected_messages_total{part="node",reason="`+reason+`"}`) >= 5
		})
	}
	fetched(t, reader, urls[0], bodies[0])
	if n := o.Bytes("/0"); n != int64(len(bodies[0])) || x.asked.Load() != 0 {
		t.Errorf("the origin sent %d bytes, want %d; the intruder was asked %d times", n, len(bodies[0]), x.asked.Load())
	}

	for _, task := range tasks {
		if err := x.DHT.Provide(t.Context(), task.CID(), true); err != nil {
			t.Fatal(err)
		}
	}
	stopSeed()
	o.SetFault(func(r *http.Request) p2ptest.Fault {
		if r.URL.Path == "/3" && r.Header.Get("Authorization") == "" {
			return p2ptest.Fault{Status: http.StatusUnauthorized}
		}
		return p2ptest.Fault{}
	})
	fetched(t, reader, urls[1], bodies[1])
	x.other.Store(true)
	fetched(t, reader, urls[2], bodies[2])
	if x.asked.Load() == 0 {
		t.Error("nobody asked the intruder: nothing was tested")
	}
	if res, body := askProxy(t, reader, urls[3], http.Header{"Authorization": {"hunter2"}}); res.StatusCode != http.StatusOK || !slices.Equal(body, bodies[3]) {
		t.Errorf("a private file: %s, %d bytes", res.Status, len(body))
	}
	if n := x.shown.Load(); n != 0 {
		t.Errorf("the intruder was shown credentials %d times", n)
	}
	if pool := reader.ReadStatus().Pool; slices.Contains(pool, x.ID()) || reader.TrustedSigner(x.ID()) {
		t.Errorf("the intruder is in the pool %v, or its signature counts", pool)
	}
}
