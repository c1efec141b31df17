package host_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
)

// TestProvidersThroughTheDHT has hosts in a chain, the provider at one end and
// at the other a client that was told of its neighbour alone.
func TestProvidersThroughTheDHT(t *testing.T) {
	var servers []*host.Host
	for range 4 {
		h := newHost(t, host.Config{DHTServer: true})
		if n := len(servers); n > 0 {
			connect(t, h, servers[n-1])
		}
		servers = append(servers, h)
	}
	client := newHost(t, host.Config{})
	connect(t, client, servers[3])
	for i, h := range append(servers, client) {
		p2ptest.Eventually(t, patient, func() bool { return h.DHT.RoutingTable().Size() > 0 }, "host ", i, " has a routing table")
	}
	hash, err := multihash.Sum([]byte("task"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	key := cid.NewCidV1(cid.Raw, hash)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := servers[0].DHT.Provide(ctx, key, true); err != nil {
		t.Fatalf("provide: %v", err)
	}
	var found []peer.AddrInfo
	for p := range client.DHT.FindProvidersAsync(ctx, key, 1) {
		found = append(found, p)
	}
	if len(found) != 1 || found[0].ID != servers[0].ID() {
		t.Fatalf("found %v, want %s", found, servers[0].ID())
	}
}

// TestDialFindsAddressesInTheDHT dials by the peer ID alone.
func TestDialFindsAddressesInTheDHT(t *testing.T) {
	a, middle, b := newHost(t, host.Config{}), newHost(t, host.Config{DHTServer: true}), newHost(t, host.Config{DHTServer: true})
	connect(t, a, middle)
	connect(t, b, middle)
	p2ptest.Eventually(t, patient, func() bool {
		return a.DHT.RoutingTable().Size() > 0 && middle.DHT.RoutingTable().Size() > 0
	}, "routing tables")
	// What a's routing table has found on its own does not count.
	a.Peerstore().ClearAddrs(b.ID())
	if err := a.Network().ClosePeer(b.ID()); err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}); err != nil {
		t.Errorf("connect by ID: %v", err)
	}
	stranger, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: stranger}); err == nil {
		t.Error("connected to a peer that does not exist")
	}
}

func TestGossipReachesAll(t *testing.T) {
	// A burst beyond the default queues of 32, with room in ours for the copies
	// that a mesh makes. A larger one may lose messages on a busy machine: gossip
	// promises nothing, fetch repairs it. Nor does it promise what is published
	// while a mesh is made: a peer that is grafted is offered no more what came
	// before. So one of the first bursts has to reach all, and not the very first.
	const hosts, messages, bursts = 8, 64, 4
	var all []*host.Host
	for i := range hosts {
		h := newHost(t, host.Config{DHTServer: true})
		for j := max(0, i-3); j < i; j++ {
			connect(t, h, all[j])
		}
		all = append(all, h)
	}
	var topics []*pubsub.Topic
	var subs []*pubsub.Subscription
	for _, h := range all {
		topic, err := h.PubSub.Join("/p2pnode/test/assignments/1")
		if err != nil {
			t.Fatal(err)
		}
		sub, err := topic.Subscribe(pubsub.WithBufferSize(bursts * messages))
		if err != nil {
			t.Fatal(err)
		}
		topics, subs = append(topics, topic), append(subs, sub)
	}
	for i, topic := range topics {
		p2ptest.Eventually(t, patient, func() bool { return len(topic.ListPeers()) >= 3 }, "host ", i, " sees subscribers")
	}
	for burst := range bursts {
		err := spread(t, topics[0], subs, burst, messages)
		if err == nil {
			return
		}
		t.Logf("burst %d: %v", burst, err)
	}
	t.Errorf("none of %d bursts of %d messages reached all", bursts, messages)
}

// spread publishes messages and waits until each subscriber has all of them, for
// patient / 4 at most.
func spread(t *testing.T, topic *pubsub.Topic, subs []*pubsub.Subscription, burst, messages int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient/4)
	defer cancel()
	want := make(map[string]bool)
	for i := range messages {
		data := fmt.Sprintf("burst %d message %d", burst, i)
		want[data] = true
		if err := topic.Publish(ctx, []byte(data)); err != nil {
			return fmt.Errorf("publish %s: %w", data, err)
		}
	}
	var group errgroup.Group
	for i, sub := range subs {
		group.Go(func() error {
			seen := make(map[string]bool)
			for len(seen) < messages {
				m, err := sub.Next(ctx)
				if err != nil {
					return fmt.Errorf("host %d got %d of %d messages: %w", i, len(seen), messages, err)
				}
				if want[string(m.Data)] {
					seen[string(m.Data)] = true
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func TestCloseTwiceAndEarly(t *testing.T) {
	h := newHost(t, host.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Run(ctx, nil); err != nil {
		t.Errorf("Run with a context that has ended: %v", err)
	}
	start := time.Now()
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}
