package supernode_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/supernode"
)

// TestServesAMember talks to a supernode by the protocols alone.
func TestServesAMember(t *testing.T) {
	hosts := p2ptest.Hosts(t, 2)
	boss, member := hosts[0], hosts[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ps, err := pubsub.NewGossipSub(ctx, boss)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s, err := supernode.New(supernode.Config{
		Host: boss, PubSub: ps, Key: boss.Peerstore().PrivKey(boss.ID()), Beat: 200 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	p2ptest.Connect(t, member, boss)
	before := goleak.IgnoreCurrent()
	runCtx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(runCtx) }()

	acks := make(chan heartbeat.Ack, 64)
	sender := heartbeat.NewSender(member, heartbeat.SenderConfig{Interval: 100 * time.Millisecond})
	beats := make(chan error, 1)
	go func() {
		beats <- sender.Run(runCtx, boss.ID(), func() heartbeat.Beat { return heartbeat.Beat{Seed: true} }, func(a heartbeat.Ack) { acks <- a })
	}()
	reports := report.NewSender(member, report.SenderConfig{})
	reports.Enqueue(report.Held{Task: content.TaskID{1}, URL: "http://x/1", Size: 9})
	reported := make(chan error, 1)
	go func() { reported <- reports.Run(runCtx, boss.ID()) }()

	var last heartbeat.Ack
	p2ptest.Eventually(t, 5*time.Second, func() bool {
		last = <-acks
		return last.Cursor.Seq >= 2
	}, "no pool and assignment were published")
	entries, complete, err := fetch.NewClient(member, fetch.ClientConfig{}).Since(t.Context(), boss.ID(), nil, nil)
	if err != nil || !complete {
		t.Fatalf("fetch: complete %t, %v", complete, err)
	}
	var sum assignment.HashSum
	var pool []assignment.Member
	for _, e := range entries {
		u, err := e.Open(func(id peer.ID) bool { return id == boss.ID() })
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range u.Assigns {
			sum.Toggle(assignment.EntryDigest(a))
		}
		if u.Pool != nil {
			pool = append(pool, u.Pool.Members...)
		}
	}
	if assignment.Hash(last.Cursor.Epoch, sum, assignment.PoolDigest(pool)) != last.MapHash {
		t.Errorf("%d fetched updates do not make the hash of the acknowledgement", len(entries))
	}
	if got, err := reg.Gather(); err != nil || len(got) == 0 {
		t.Errorf("%d metrics, %v", len(got), err)
	}
	stop()
	for _, c := range []chan error{done, beats, reported} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/libp2p/go-libp2p-pubsub.(*PubSub).handleNewStream"))
}

func TestConfigIsChecked(t *testing.T) {
	h := p2ptest.Hosts(t, 1)[0]
	ps, err := pubsub.NewGossipSub(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := supernode.Config{Host: h, PubSub: ps, Key: h.Peerstore().PrivKey(h.ID())}
	for _, tt := range []struct {
		name   string
		change func(*supernode.Config)
		ok     bool
	}{
		{"defaults", func(*supernode.Config) {}, true},
		{"no host", func(c *supernode.Config) { c.Host = nil }, false},
		{"no pubsub", func(c *supernode.Config) { c.PubSub = nil }, false},
		{"no key", func(c *supernode.Config) { c.Key = nil }, false},
		{"another's key", func(c *supernode.Config) { c.Key = other }, false},
		{"too many replicas", func(c *supernode.Config) { c.Replicas = assignment.MaxSeeds + 1 }, false},
		{"negative peers", func(c *supernode.Config) { c.MaxPeers = -1 }, false},
		{"negative tasks", func(c *supernode.Config) { c.MaxTasks = -1 }, false},
		{"too long a lease", func(c *supernode.Config) { c.Lease = assignment.MaxLease + 1 }, false},
		{"negative beat", func(c *supernode.Config) { c.Beat = -1 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := supernode.New(cfg); (err == nil) != tt.ok {
				t.Errorf("New: %v", err)
			}
		})
	}
}
