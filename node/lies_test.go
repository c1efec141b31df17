package node_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// strangers returns peers that there are not.
func strangers(t *testing.T, n int) (out []peer.ID) {
	t.Helper()
	for range n {
		_, id := p2ptest.Key(t)
		out = append(out, id)
	}
	return out
}

// TestLyingSupernode has one of two supernodes, with its certificate, publish lies
// about files: seeds that are dead, or are none, another size or version, another
// address. Reads through a node that asks no origin itself succeed all the same,
// within seconds, with the right bytes.
func TestLyingSupernode(t *testing.T) {
	s := newClosedSwarm(t)
	x, y := s.intruder("supernode"), s.intruder("reader")
	server := rangeread.NewServer(rangeread.ServerConfig{Host: y.Host, Handler: y})
	y.background(t, server.Run)
	many := s.secret(node.TokenConfig{Role: "seed"})
	var nodes []*node.Node
	var honest []peer.ID
	for _, secret := range []string{many, many, s.secret(node.TokenConfig{Role: "reader"})} {
		cfg := s.config(secret)
		cfg.Supernodes = []string{s.supernode, fmt.Sprintf("%s/p2p/%s", x.Addrs()[0], x.ID())}
		n, _ := s.start(cfg)
		x.connect(t, n.Info().Addrs[0])
		honest = append(honest, y.connect(t, n.Info().Addrs[0]))
		nodes = append(nodes, n)
	}
	honest = honest[:2]
	for _, n := range nodes {
		eventually(t, "all know the pool", func() bool { return len(n.ReadStatus().Pool) == 2 })
	}

	super, err := peer.Decode(s.id)
	if err != nil {
		t.Fatal(err)
	}
	supernodes := []content.Member{{ID: super, Weight: 1}, {ID: x.ID(), Weight: 1}}
	lies := map[string]func(*assignment.Assign){
		"dead seeds":       func(a *assignment.Assign) { a.Seeds = strangers(t, 2) },
		"many dead seeds":  func(a *assignment.Assign) { a.Seeds = strangers(t, 8) },
		"a dead one first": func(a *assignment.Assign) { a.Seeds = append(strangers(t, 1), honest...) },
		"a reader":         func(a *assignment.Assign) { a.Seeds = []peer.ID{y.ID()} },
		"itself":           func(a *assignment.Assign) { a.Seeds = []peer.ID{x.ID()} },
		"a small size":     func(a *assignment.Assign) { a.Size = 7 },
		"a large size":     func(a *assignment.Assign) { a.Size = 1 << 40 },
		"another version":  func(a *assignment.Assign) { a.Generation, a.Size = content.Generation{66}, 5<<20 },
		"another address":  func(a *assignment.Assign) { a.URL = "http://127.0.0.1:1/" },
		"no ranges":        func(a *assignment.Assign) { a.Sequential = true },
		"withdrawn":        func(a *assignment.Assign) { a.Lease = 0 },
	}
	o := p2ptest.NewOrigin(t)
	var updates []assignment.Update
	files := map[string]string{} // URLs, by lie
	body := p2ptest.Bytes(7, 3<<20)
	for name, lie := range lies {
		for i := 0; ; i++ {
			path := fmt.Sprintf("/%d/%d", len(files), i)
			task, err := content.NewTask(o.URL+path, content.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			if first, _ := content.First(task.ID[:], supernodes); first.ID == x.ID() { // it is the one to say who the seeds are
				files[name] = o.Add(path, body)
				a := assign(task.ID, honest...)
				lie(&a)
				updates = append(updates, assignment.Update{Assigns: []assignment.Assign{a}})
				break
			}
		}
	}
	now := uint64(time.Now().UnixMilli())
	if err := x.publisher(t, len(nodes)).Publish(t.Context(), x.sign(t, now, updates...)); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "all have heard the lies", func() bool { return n.HeardOf(x.ID()) == uint64(len(updates)) })
	}
	for name, url := range files {
		begun := time.Now()
		status, got := fetch(t, nodes[2].Info().Proxy+"/url/"+url)
		took := time.Since(begun)
		if status != http.StatusOK || !bytes.Equal(got, body) || took > 25*time.Second {
			t.Errorf("%s, after %v: %d, %d bytes: %.300s", name, took, status, len(got), got)
		}
		t.Logf("%s: %v", name, took)
	}
}

// TestReplayedGossip has a member publish again what it has heard, in another order
// and many times over, and junk, to one node of three. That one does not believe what
// is old, nor passes any of it on to the others, and reads succeed beside it.
func TestReplayedGossip(t *testing.T) {
	s := newClosedSwarm(t)
	y := s.intruder("reader")
	topic, err := y.PubSub.Join(assignment.Topic(node.DefaultSwarm))
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard [][]byte
	y.background(t, func(ctx context.Context) error {
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			mu.Lock()
			heard = append(heard, m.Data)
			mu.Unlock()
		}
	})
	messages := func() [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
	super := y.connect(t, s.supernode)
	eventually(t, "the supernode sees the member in the topic", func() bool { return y.Network().Connectedness(super) == network.Connected })

	o := p2ptest.NewOrigin(t)
	many := s.secret(node.TokenConfig{Role: "seed"})
	var nodes []*node.Node
	var first peer.ID
	for i := range 3 { // pools of one, two and three
		cfg := s.config(many)
		reg := prometheus.NewRegistry()
		cfg.Registerer, cfg.Gatherer = reg, reg
		n, _ := s.start(cfg)
		if id := y.connect(t, n.Info().Addrs[0]); i == 0 {
			first = id
		} else {
			y.PubSub.BlacklistPeer(id) // the member publishes nothing to it
		}
		nodes = append(nodes, n)
		for _, n := range nodes {
			eventually(t, "all know the pool", func() bool { return len(n.ReadStatus().Pool) == i+1 })
		}
		body := p2ptest.Bytes(uint64(i), 1<<20)
		fetched(t, n, o.Add(fmt.Sprint("/", i), body), body)
	}
	eventually(t, "the member has heard of pools and files", func() bool { return len(messages()) >= 4 })
	eventually(t, "the first node alone can hear the member", func() bool { return slices.Equal(topic.ListPeers(), []peer.ID{first}) })
	old := messages()
	slices.Reverse(old)
	for i := range 50 {
		for _, data := range old {
			if err := topic.Publish(t.Context(), data); err != nil {
				t.Fatal(err)
			}
		}
		if err := topic.Publish(t.Context(), p2ptest.Bytes(uint64(i), 1+i*1000)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			body := p2ptest.Bytes(uint64(100+i), 1<<20)
			fetched(t, nodes[i/10%len(nodes)], o.Add(fmt.Sprint("/beside/", i), body), body)
		}
	}
	for i, n := range nodes {
		junk := func() float64 { return rejected(t, n, "malformed") + rejected(t, n, "oversized") }
		if i == 0 {
			eventually(t, "what is junk is refused", func() bool { return junk() >= 20 })
			eventually(t, "what is old is ignored", func() bool { return ignored(t, n) >= 20 })
		} else if junk() != 0 || ignored(t, n) != 0 {
			t.Errorf("node %d was passed on %v messages of junk and %v old ones", i, junk(), ignored(t, n))
		}
		if pool := n.ReadStatus().Pool; len(pool) != len(nodes) {
			t.Errorf("node %d has a pool of %d", i, len(pool))
		}
	}
}

// ignored is how many messages of gossip a node with metrics knew already.
func ignored(t *testing.T, n *node.Node) float64 {
	t.Helper()
	return metric(t, n, `p2pnode_assignment_ignored_messages_total{part="node"}`)
}

// TestOfflineMembers has nodes whose supernodes are all dead, and whose certificates
// have ended since: for the time of grace they are members to one another, also one
// that starts again; without it they are none.
func TestOfflineMembers(t *testing.T) {
	for _, grace := range []time.Duration{0, -1} { // the default, and none
		s := newClosedSwarm(t)
		o := p2ptest.NewOrigin(t)
		start := func(role string) (*node.Node, func(), node.Config) {
			cfg := s.config(s.secret(node.TokenConfig{Role: role, Lifetime: 6 * time.Second}))
			cfg.OfflineGrace = grace
			n, stop := s.start(cfg)
			return n, stop, cfg
		}
		seed, _, _ := start("seed")
		reader, stop, cfg := start("reader")
		for _, n := range []*node.Node{seed, reader} {
			eventually(t, "both know one another", func() bool {
				return n.ReadStatus().Membership.Members == 2 && len(n.ReadStatus().Pool) == 1
			})
		}
		s.stop()
		over := func(n *node.Node) func() bool {
			return func() bool { return time.Now().After(n.ReadStatus().Membership.Expires.Add(2 * time.Second)) }
		}
		eventually(t, "the seed's certificate is over", over(seed))
		eventually(t, "the reader's certificate is over", over(reader))
		if grace < 0 {
			for _, n := range []*node.Node{seed, reader} {
				eventually(t, "they are no members any more", func() bool { return n.ReadStatus().Membership.Members == 0 })
			}
			continue
		}
		body := p2ptest.Bytes(1, 3<<20)
		fetched(t, reader, o.Add("/1", body), body)
		stop()
		reader, _ = s.start(cfg)
		eventually(t, "who starts again is a member", func() bool { return reader.ReadStatus().Membership.Members == 1 })
		body = p2ptest.Bytes(2, 3<<20)
		fetched(t, reader, o.Add("/2", body), body)
	}
}
