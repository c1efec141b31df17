package node_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// hostileSeed is a member with the role of a seed, and by its own account far the
// largest: it is elected first, and answers as it likes.
type hostileSeed struct {
	host  host.Host
	asked atomic.Int64
}

// beat makes it a seed of a supernode.
func (h *hostileSeed) beat(t *testing.T, supernode string) {
	t.Helper()
	info, err := peer.AddrInfoFromString(supernode)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.host.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	sender := heartbeat.NewSender(h.host, heartbeat.SenderConfig{Interval: 200 * time.Millisecond})
	h.background(t, func(ctx context.Context) error {
		return sender.Run(ctx, info.ID, func() heartbeat.Beat {
			return heartbeat.Beat{Addrs: h.host.Addrs(), Seed: true, Capacity: 1 << 40, Free: 1 << 40, Reachability: heartbeat.ReachabilityPublic}
		}, func(heartbeat.Ack) {})
	})
}

func (h *hostileSeed) background(t *testing.T, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
}

// Serve implements rangeread.Handler: bytes that are not what it signs.
func (h *hostileSeed) Serve(_ context.Context, _ peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	h.asked.Add(1)
	if req.Generation.IsZero() || req.Origin == nil {
		return rangeread.NewError(rangeread.StatusNotFound, "not here")
	}
	const size = 3 << 20
	rng, err := a.Header(rangeread.Header{Meta: content.Meta{Size: size, Generation: req.Generation}})
	if err != nil {
		return err
	}
	key := h.host.Peerstore().PrivKey(h.host.ID())
	for i := rng.Off / content.BlockSize; !a.Done(); i++ {
		outboard, root := content.Outboard(p2ptest.Bytes(66, content.BlockSize))
		seal, err := content.SealBlock(key, h.host.ID(), content.BlockName{Task: req.Task, Generation: req.Generation, FileSize: size, Index: i}, root)
		if err != nil {
			return err
		}
		lie := func(p []byte, _ int64) error { clear(p); return nil }
		if err := a.Complete(i, min(rng.End(), (i+1)*content.BlockSize), seal, outboard, lie); err != nil {
			return err
		}
	}
	return nil
}

// serve answers streams of range reads in a way.
func (h *hostileSeed) serve(t *testing.T, way string) {
	t.Helper()
	status := map[string]*rangeread.Error{
		"says that nothing is there": rangeread.NewError(rangeread.StatusNotFound, "no"),
		"is always busy":             {Status: rangeread.StatusBusy, RetryAfter: time.Hour, Size: -1},
		"forbids":                    rangeread.NewError(rangeread.StatusForbidden, "no"),
		"says that it has changed":   rangeread.NewError(rangeread.StatusChanged, "no"),
	}
	raw := map[string]func(network.Stream){
		"says nothing":    func(network.Stream) {},
		"resets":          func(st network.Stream) { _ = st.Reset() },
		"closes":          func(st network.Stream) { _ = st.Close() },
		"sends rubbish":   func(st network.Stream) { _, _ = st.Write(bytes.Repeat([]byte{0xff}, 4096)) },
		"sends no header": func(st network.Stream) { _, _ = st.Write([]byte{3, 4, 1, 2, 3, 4}) },
	}
	if f := raw[way]; f != nil {
		h.host.SetStreamHandler(rangeread.ProtocolID, func(st network.Stream) { h.asked.Add(1); f(st) })
		return
	}
	var handler rangeread.Handler = h
	if e := status[way]; e != nil {
		handler = refuser{h, e}
	}
	server := rangeread.NewServer(rangeread.ServerConfig{Host: h.host, Handler: handler})
	h.background(t, server.Run)
	eventually(t, "the hostile seed serves", func() bool { return slices.Contains(h.host.Mux().Protocols(), rangeread.ProtocolID) })
}

type refuser struct {
	h   *hostileSeed
	err *rangeread.Error
}

func (r refuser) Serve(context.Context, peer.ID, rangeread.Request, *rangeread.Answer) error {
	r.h.asked.Add(1)
	return r.err
}

// Beside a seed that is elected first and does its worst, the others' reads
// succeed, whatever that is, with the right bytes, within seconds, and without the
// origin being asked by who is no seed.
func TestHostileSeed(t *testing.T) {
	for _, way := range []string{
		"says nothing", "resets", "closes", "sends rubbish", "sends no header", "sends wrong bytes",
		"says that nothing is there", "is always busy", "forbids", "says that it has changed",
	} {
		t.Run(way, func(t *testing.T) {
			first := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: 200 * time.Millisecond})
			super := first.Info().Supernode
			seed := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: 200 * time.Millisecond, Supernodes: []string{super}})
			reader := startNode(t, node.Config{OriginAllow: []string{"127.0.0.0/8"}, Beat: 200 * time.Millisecond, Supernodes: []string{super}})
			h := &hostileSeed{host: p2ptest.Hosts(t, 1)[0]}
			h.serve(t, way)
			h.beat(t, super)
			for _, n := range []*node.Node{first, seed, reader} {
				eventually(t, "all are in the pool", func() bool { return len(n.ReadStatus().Pool) == 3 })
			}
			o := p2ptest.NewOrigin(t)
			for i := range 4 {
				body := p2ptest.Bytes(uint64(i), 3<<20)
				url := o.Add(fmt.Sprintf("/%d", i), body)
				begun := time.Now()
				if status, got := fetch(t, reader.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(got, body) {
					t.Errorf("file %d after %v: %d, %d bytes: %.300s", i, time.Since(begun), status, len(got), got)
				}
				if took := time.Since(begun); took > 20*time.Second {
					t.Errorf("file %d took %v", i, took)
				} else {
					t.Logf("file %d took %v", i, took)
				}
			}
			if h.asked.Load() == 0 {
				t.Error("nobody asked the hostile seed: nothing was tested")
			}
		})
	}
}
