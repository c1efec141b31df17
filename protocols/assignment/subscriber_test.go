package assignment

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

// recorder is a Sink that remembers cursors.
type recorder struct {
	mu sync.Mutex
	// mu guards the following.
	got []Cursor
}

func (r *recorder) Apply(s Signed, u Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := s.Open(anybody); err != nil {
		u.Seq = 0 // would fail the comparison
	}
	r.got = append(r.got, u.Cursor)
}

func (r *recorder) seqs() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []uint64
	for _, c := range r.got {
		out = append(out, c.Seq)
	}
	slices.Sort(out)
	return out
}

func signAt(t testing.TB, key crypto.PrivKey, seqs ...uint64) []Signed {
	t.Helper()
	var out []Signed
	for _, seq := range seqs {
		s, err := Sign(key, Update{Cursor: Cursor{Epoch: 5, Seq: seq}, Assigns: []Assign{testAssign(t)}})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func batchOf(t testing.TB, entries ...Signed) []byte {
	t.Helper()
	b, err := proto.Marshal(&pb.Batch{Signed: Encode(entries)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenBatch(t *testing.T) {
	key, id := testKey(t, 1)
	e := signAt(t, key, 0+1, 2, 3, 4, 5)
	forged := signAt(t, key, 9)[0]
	forged.Sig = slices.Clone(forged.Sig)
	forged.Sig[3]++
	otherKey, _ := testKey(t, 2)
	untrusted := signAt(t, otherKey, 9)[0]
	s := NewSubscriber(nil, "", only(id), nil, SubscriberConfig{})
	for _, step := range []struct {
		name string
		data []byte
		want []uint64
		err  error
	}{
		{"first", batchOf(t, e[1]), []uint64{2}, nil},
		{"twice", batchOf(t, e[1]), nil, nil},
		{"twice in one", batchOf(t, e[2], e[2]), []uint64{3}, nil},
		{"older, not seen", batchOf(t, e[0], e[1]), []uint64{1}, nil},
		{"with a forged one", batchOf(t, e[3], forged), nil, ErrSignature},
		{"with an untrusted one", batchOf(t, e[3], untrusted), nil, ErrUntrusted},
		{"good, after being with bad ones", batchOf(t, e[3]), []uint64{4}, nil},
		{"empty", nil, nil, nil},
		{"garbage", []byte{0xff, 1, 2}, nil, ErrMalformed},
		{"oversized", make([]byte, MaxBatch+1), nil, ErrTooLarge},
	} {
		t.Run(step.name, func(t *testing.T) {
			got, err := s.open(step.data)
			if !errors.Is(err, step.err) {
				t.Fatalf("err %v, want %v", err, step.err)
			}
			var seqs []uint64
			for _, o := range got {
				seqs = append(seqs, o.Update.Seq)
			}
			if !slices.Equal(seqs, step.want) {
				t.Errorf("opened %v, want %v", seqs, step.want)
			}
		})
	}
}

// node is a host with GossipSub that subscribes.
type node struct {
	host.Host
	ps  *pubsub.PubSub
	got recorder
	reg *prometheus.Registry
}

func newPubSub(t *testing.T, ctx context.Context, h host.Host) *pubsub.PubSub {
	t.Helper()
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func subscribe(t *testing.T, h host.Host, topic string, trusted func(peer.ID) bool) *node {
	t.Helper()
	// GossipSub ends after the subscriber.
	psCtx, psCancel := context.WithCancel(context.Background())
	t.Cleanup(psCancel)
	n := &node{Host: h, ps: newPubSub(t, psCtx, h), reg: prometheus.NewRegistry()}
	sub := NewSubscriber(n.ps, topic, trusted, &n.got, SubscriberConfig{Registerer: n.reg})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("subscriber: %v", err)
		}
	})
	return n
}

// Supernode and forger are connected to the relay alone, the leaf too: what the
// leaf gets, the relay has passed on.
func TestGossip(t *testing.T) {
	hosts := p2ptest.Hosts(t, 4)
	super, forger := hosts[0], hosts[1]
	key, id := super.Peerstore().PrivKey(super.ID()), super.ID()
	topic := Topic("")
	relay := subscribe(t, hosts[2], topic, only(id))
	leaf := subscribe(t, hosts[3], topic, only(id))
	publish := func(h host.Host) *Publisher {
		p, err := NewPublisher(newPubSub(t, t.Context(), h), topic)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, bad := publish(super), publish(forger)
	for _, h := range []host.Host{super, forger, leaf} {
		p2ptest.Connect(t, h, relay)
	}
	const wait = 20 * time.Second
	for _, p := range []*Publisher{good, bad} {
		p2ptest.Eventually(t, wait, func() bool { return slices.Contains(p.topic.ListPeers(), relay.ID()) }, "relay subscribed")
	}
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(relay.ps.ListPeers(topic), leaf.ID()) }, "leaf subscribed")

	// What is published before the mesh has formed may be lost.
	var seqs []uint64
	p2ptest.Eventually(t, wait, func() bool {
		seqs = append(seqs, uint64(len(seqs)+1))
		if err := good.Publish(t.Context(), signAt(t, key, seqs[len(seqs)-1])); err != nil {
			t.Fatal(err)
		}
		return len(leaf.got.seqs()) > 0
	}, "mesh from relay to leaf")
	lost := len(seqs)

	// Enough for several messages.
	for range 200 {
		seqs = append(seqs, uint64(len(seqs)+1))
	}
	if err := good.Publish(t.Context(), signAt(t, key, seqs[lost:]...)); err != nil {
		t.Fatal(err)
	}
	after := func(got []uint64) []uint64 {
		return slices.DeleteFunc(got, func(seq uint64) bool { return seq <= uint64(lost) })
	}
	for _, n := range []*node{relay, leaf} {
		p2ptest.Eventually(t, wait, func() bool { return slices.Equal(after(n.got.seqs()), seqs[lost:]) }, "all updates, each once")
	}

	// Neither another's signature nor another signer gets past the relay.
	forged := signAt(t, key, 100_000)
	forged[0].Sig = signAt(t, key, 100_001)[0].Sig
	untrusted := signAt(t, forger.Peerstore().PrivKey(forger.ID()), 100_002)
	for i, batch := range [][]Signed{forged, untrusted} {
		if err := bad.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		p2ptest.Eventually(t, wait, func() bool {
			return frametest.Count(t, relay.reg, "p2pnode_assignment_rejected_messages_total") == float64(i+1)
		}, "forged message rejected")
	}
	// A copy of what was seen goes nowhere, whoever sends it.
	if err := bad.Publish(t.Context(), signAt(t, key, seqs[lost])); err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, wait, func() bool {
		return frametest.Count(t, relay.reg, "p2pnode_assignment_ignored_messages_total") >= 1
	}, "copy ignored")
	seqs = append(seqs, uint64(len(seqs)+1))
	if err := good.Publish(t.Context(), signAt(t, key, seqs[len(seqs)-1])); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{relay, leaf} {
		p2ptest.Eventually(t, wait, func() bool { return slices.Equal(after(n.got.seqs()), seqs[lost:]) }, "the last update, and no forged one")
	}
	if got := frametest.Count(t, leaf.reg, "p2pnode_assignment_rejected_messages_total"); got != 0 {
		t.Errorf("%v forged messages reached the leaf", got)
	}
}

func TestSubscriberLeavesItsTopic(t *testing.T) {
	h := p2ptest.Hosts(t, 1)[0]
	ps := newPubSub(t, t.Context(), h)
	sub := NewSubscriber(ps, "topic", anybody, &recorder{}, SubscriberConfig{})
	for range 2 { // the second Run fails if the first left anything behind
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sub.Run(ctx) }()
		p2ptest.Eventually(t, 5*time.Second, func() bool { return slices.Contains(ps.GetTopics(), "topic") }, "subscribed")
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewPublisher(ps, "topic"); err != nil {
		t.Error(err)
	}
	if _, err := NewPublisher(ps, "topic"); err == nil {
		t.Error("joined one topic twice")
	}
}
