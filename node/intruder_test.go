package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
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
	key, id := p2ptest.Key(s.t)
	cfg := node.TokenConfig{Role: role}
	if role == "supernode" {
		cfg.Peer = id.String()
	}
	secret, err := membership.ParseSecret(s.secret(cfg))
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
	super, chain := x.connect(s.t, s.supernode), secret.Issuer
	if role != "supernode" {
		if chain, err = membership.Join(s.t.Context(), x.Host, super, secret); err != nil {
			s.t.Fatal(err)
		}
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

// publisher joins the topic of the assignments, and waits until so many follow it.
func (x *intruder) publisher(t *testing.T, followers int) *assignment.Publisher {
	t.Helper()
	name := assignment.Topic(node.DefaultSwarm)
	p, err := assignment.NewPublisher(x.PubSub, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	eventually(t, "the intruder finds whom to lie to", func() bool { return len(x.PubSub.ListPeers(name)) >= followers })
	return p
}

// sign signs updates, numbered from one on, of an epoch.
func (x *intruder) sign(t *testing.T, epoch uint64, updates ...assignment.Update) (out []assignment.Signed) {
	t.Helper()
	for i, u := range updates {
		u.Epoch, u.Seq, u.Issued = epoch, uint64(i+1), time.Now()
		signed, err := assignment.Sign(x.Peerstore().PrivKey(x.ID()), u)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, signed)
	}
	return out
}

// assign says who are the seeds of a task.
func assign(task content.TaskID, seeds ...peer.ID) assignment.Assign {
	return assignment.Assign{Task: task, Size: -1, Seeds: seeds, Lease: time.Hour}
}

// pool says that the intruder alone is in it.
func (x *intruder) pool() *assignment.PoolPage {
	return &assignment.PoolPage{Pages: 1, Members: []assignment.Member{{ID: x.ID(), Addrs: x.Addrs(), Weight: 1 << 40}}}
}

// publish tells the swarm, in its own name, in the supernode's, and in no form at
// all, that it alone is the seed of some tasks, and the pool.
func (x *intruder) publish(t *testing.T, super peer.ID, tasks ...content.TaskID) {
	t.Helper()
	p := x.publisher(t, 2)
	updates := []assignment.Update{{Pool: x.pool()}}
	for _, task := range tasks {
		updates = append(updates, assignment.Update{Assigns: []assignment.Assign{assign(task, x.ID())}})
	}
	for i, own := range x.sign(t, 1<<50, updates...) {
		posing, junk := own, own
		posing.Supernode = super
		junk.Raw = p2ptest.Bytes(uint64(i), 1000)
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
		urls[i] = o.Add(fmt.Sprint("/", i), bodies[i])
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
			return rejected(t, reader, reason) >= 5
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

// rejected is how many messages of gossip a node with metrics has refused, for a
// reason.
func rejected(t *testing.T, n *node.Node, reason string) float64 {
	t.Helper()
	return metric(t, n, `p2pnode_assignment_rejected_messages_total{part="node",reason="`+reason+`"}`)
}

// TestSybilReaders has members with certificates of readers beat as the largest
// seeds there are: the pool has the honest seeds alone.
func TestSybilReaders(t *testing.T) {
	const sybils = 16
	s := newClosedSwarm(t)
	many := s.secret(node.TokenConfig{Role: "seed"})
	first, _ := s.start(s.config(many))
	for range sybils {
		s.intruder("reader").beat(t, s.supernode)
	}
	eventually(t, "all have beaten", func() bool { return len(s.super.ReadStatus().Members) == sybils+1 })
	second, _ := s.start(s.config(many)) // a new pool
	for _, n := range []*node.Node{first, second} {
		eventually(t, "the pool has both seeds", func() bool { return len(n.ReadStatus().Pool) >= 2 })
		for _, id := range n.ReadStatus().Pool {
			if id.String() != first.Info().Peer && id.String() != second.Info().Peer {
				t.Errorf("%s is in the pool", id)
			}
		}
	}
}

// plain makes a host without a gate, with the key of another.
func plain(t *testing.T, of *intruder) p2phost.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.Identity(of.Peerstore().PrivKey(of.ID())), libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// believer shows a chain and believes anybody.
type believer struct{ chain membership.Chain }

func (b believer) Chain() membership.Chain                    { return b.chain }
func (b believer) Check(network.Conn, membership.Chain) error { return nil }
func (b believer) Admit(network.Conn, membership.Chain, bool) {}
func (b believer) Confirm(network.Conn)                       {}

// intrude dials a node as a peer without a gate of its own does, shows a chain, and
// opens a stream all the same. It returns nil where that is served.
func intrude(ctx context.Context, h p2phost.Host, to peer.AddrInfo, chain membership.Chain) error {
	if err := h.Connect(ctx, to); err != nil {
		return err
	}
	for _, c := range h.Network().ConnsToPeer(to.ID) {
		if membership.Hello(ctx, c, believer{chain}) == nil {
			return nil
		}
	}
	st, err := h.NewStream(ctx, to.ID, rangeread.ProtocolID)
	if err != nil {
		return err
	}
	defer func() { _ = st.Reset() }()
	if err := st.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := st.Write([]byte{1}); err != nil {
		return err
	}
	_, err = st.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// TestRevokedMemberDialsOn has a member that was revoked go on: it dials the others
// again and again, with a host of its own that asks nobody, shows its certificate,
// and opens streams. Nothing of that is served. Of who is revoked for good nobody
// takes a connection, nor dials it, though the pool names it.
func TestRevokedMemberDialsOn(t *testing.T) {
	for _, before := range []time.Time{{}, time.Now().Add(time.Minute)} {
		s := newClosedSwarm(t)
		a, _ := s.start(s.config(s.secret(node.TokenConfig{Role: "seed"})))
		x := s.intruder("seed")
		x.beat(t, s.supernode)
		x.connect(t, a.Info().Addrs[0])
		eventually(t, "both are in the pool", func() bool {
			return len(a.ReadStatus().Pool) == 2 && a.ReadStatus().Membership.Members == 2
		})
		h := plain(t, x)
		to, err := peer.AddrInfoFromString(a.Info().Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := intrude(t.Context(), h, *to, x.gate.Chain()); err != nil {
			t.Fatalf("before the revocation: %v", err)
		}
		start := time.Now()
		s.revoke(s.admin, x.ID().String(), before)
		eventually(t, "it is out", func() bool {
			return a.ReadStatus().Membership.Members == 1 && a.ReadStatus().Membership.Revocations == 1 && h.Network().Connectedness(to.ID) != network.Connected
		})
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it was out after %v, with a heartbeat each 0.2 s", took)
		}
		var dialled atomic.Int64
		x.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
			if c.RemotePeer() == to.ID && c.Stat().Direction == network.DirInbound {
				dialled.Add(1)
			}
		}})
		for range 20 {
			h.Network().(*swarm.Swarm).Backoff().Clear(to.ID)
			if err := intrude(t.Context(), h, *to, x.gate.Chain()); err == nil {
				t.Fatal("a revoked member is served")
			}
		}
		if n := a.ReadStatus().Membership.Members; n != 1 {
			t.Errorf("%d members", n)
		}
		o := p2ptest.NewOrigin(t)
		for i := range 4 { // some of which are the revoked seed's by the map
			body := p2ptest.Bytes(uint64(i), 3<<20)
			fetched(t, a, o.Add(fmt.Sprint("/", i), body), body)
		}
		if n := dialled.Load(); n != 0 && before.IsZero() {
			t.Errorf("it was dialled %d times", n)
		}
	}
}

// TestRevokedSupernodeElectsOn has a supernode that was revoked go on electing: an
// accomplice publishes what it signs. Nobody hears it any more.
func TestRevokedSupernodeElectsOn(t *testing.T) {
	s := newClosedSwarm(t)
	x, y := s.intruder("supernode"), s.intruder("reader")
	cfg := s.config(s.secret(node.TokenConfig{Role: "seed"}))
	reg := prometheus.NewRegistry()
	cfg.Supernodes = []string{s.supernode, fmt.Sprintf("%s/p2p/%s", x.Addrs()[0], x.ID())}
	cfg.Registerer, cfg.Gatherer = reg, reg
	n, _ := s.start(cfg)
	x.connect(t, n.Info().Addrs[0])
	y.connect(t, n.Info().Addrs[0])
	o := p2ptest.NewOrigin(t)
	body := p2ptest.Bytes(1, 3<<20)
	url := o.Add("/f", body)
	task, err := content.NewTask(url, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	now := uint64(time.Now().UnixMilli())
	elects := []assignment.Update{{Pool: x.pool()}, {Assigns: []assignment.Assign{assign(task.ID, x.ID())}}}
	if err := x.publisher(t, 1).Publish(t.Context(), x.sign(t, now, elects...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both supernodes are heard", func() bool { return n.Heard() == 2 && n.TrustedSigner(x.ID()) })
	s.revoke(s.admin, x.ID().String(), time.Time{})
	eventually(t, "the map has forgotten it", func() bool { return n.Heard() == 1 && !n.TrustedSigner(x.ID()) })

	accomplice := y.publisher(t, 1)
	elects = append(elects, elects...) // with numbers that are new
	for _, signed := range append(x.sign(t, now, elects...), x.sign(t, now+1, elects...)...) {
		if err := accomplice.Publish(t.Context(), []assignment.Signed{signed}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what is new of it is refused", func() bool { return rejected(t, n, "untrusted") >= 6 })
	if n.Heard() != 1 || n.TrustedSigner(x.ID()) {
		t.Errorf("%d supernodes are heard; who is elected is believed: %t", n.Heard(), n.TrustedSigner(x.ID()))
	}
	fetched(t, n, url, body)
	if x.asked.Load() != 0 {
		t.Error("who was elected was asked")
	}
}
