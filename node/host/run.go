package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

const (
	// keepEvery is the longest time between two looks at what is wanted and
	// what is connected; a peer that comes or goes causes one at once.
	keepEvery = time.Second
	// saveEvery is how often the addresses of met peers are saved anew,
	// saveSoon how soon a peer is saved that was not met before.
	saveEvery = time.Minute
	saveSoon  = 5 * time.Second
)

// Run joins the swarm and keeps the host in it until ctx ends; then it saves
// the peers it has met, waits for its dials, and returns nil. It keeps
// connections to Config.Bootstrap and Config.Site, to some saved peers, to some
// found on the LAN, and to those that wanted names (nil for none). wanted is asked every second or so, from one
// goroutine, must not block, and may name this host itself. A peer that cannot
// be reached is tried again for ever, with a growing pause of at most 15 s (5
// minutes for a saved peer, 4 s for one of the site and while nobody beyond the
// machine's links is connected), all of them soon once one is back; and logged once
// an outage.
func (h *Host) Run(ctx context.Context, wanted func() []peer.AddrInfo) error {
	changes, err := h.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged), eventbus.BufSize(256))
	if err != nil {
		return fmt.Errorf("subscribe to connection events: %w", err)
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	if h.nat != nil {
		traversal, stop := context.WithCancel(ctx)
		defer stop()
		parts.Go(func() {
			if err := h.nat.run(traversal, h); err != nil {
				h.log.Warn("cannot follow the host's reachability", "err", err)
			}
		})
	}
	var found chan peer.AddrInfo
	if h.near != nil {
		neighbours, stop := context.WithCancel(ctx)
		defer stop()
		parts.Go(func() { h.near.run(neighbours) })
		found = h.near.found
	}
	moves, stop := context.WithCancel(ctx)
	defer stop()
	moved := make(chan struct{}, 1)
	parts.Go(func() { h.watch(moves, moved) })
	met := h.loadMet()
	k := &keeper{h: h, wanted: wanted, saved: met.pick(), targets: map[peer.ID]*target{}, done: make(chan dialed, maxDials)}
	var dials sync.WaitGroup
	defer dials.Wait()
	defer changes.Close() // first: a dial can wait for room in its queue
	defer func() {
		h.observe(met)
		h.saveMet(met)
	}()

	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var joined, unsaved bool
	var lastSave time.Time
	for {
		for _, d := range k.step(time.Now()) {
			dials.Go(func() { k.done <- h.dial(ctx, d) })
		}
		unsaved = h.observe(met) || unsaved
		if age := time.Since(lastSave); age > saveEvery || unsaved && age > saveSoon {
			h.saveMet(met)
			lastSave, unsaved = time.Now(), false
		}
		if !joined && len(h.Network().Peers()) > 0 {
			joined = true
			// The DHT refreshes itself later on; its error is always nil.
			_ = h.DHT.Bootstrap(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case info := <-found:
			k.meet(info)
		case r := <-k.done:
			k.dialed(r, time.Now())
		case <-moved:
			k.hurry(time.Now())
		case <-changes.Out():
			drain(changes.Out())
		}
	}
}

// drain takes what is queued, so that a burst of events causes one look.
func drain(c <-chan any) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

// dial connects to a peer. libp2p's own pause between dials to an address is
// put aside: the keeper has its own, and a peer that came back must not wait
// for both.
func (h *Host) dial(ctx context.Context, to peer.AddrInfo) dialed {
	h.Redial(to.ID)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := h.Connect(network.WithAllowLimitedConn(ctx, "keep"), to)
	if gate := h.cfg.Gate; err == nil && gate != nil && len(gate.Chain()) > 0 {
		// A peer that refuses the hello is tried again as late as one that
		// cannot be reached.
		if _, ok := gate.await(to.ID); !ok {
			err = fmt.Errorf("%w: %s", ErrNotMember, to.ID)
		}
	}
	return dialed{id: to.ID, err: err}
}

// connected reports whether a peer is there, be it through a relay, and a member.
func (h *Host) connected(id peer.ID) bool {
	if h.Network().Connectedness(id) == network.NotConnected {
		return false
	}
	return h.cfg.Gate == nil || len(h.cfg.Gate.Chain()) == 0 || h.cfg.Gate.Role(id) != 0
}
