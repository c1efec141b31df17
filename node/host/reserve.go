package host

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// wantRelays is how many relays a host reserves at, where it knows so many:
	// one may die.
	wantRelays = 3
	// reserveTimeout bounds one request, reservePause is the pause after a
	// refusal, ±50 %.
	reserveTimeout = 5 * time.Second
	reservePause   = 10 * time.Second
	// reserveEvery is how often the reservations are looked at; a connection
	// that comes or goes causes a look at once.
	reserveEvery = time.Second
	// maxRelayAddrs is how many addresses of one relay are announced.
	maxRelayAddrs = 2
)

// slot is a reservation at a relay.
type slot struct {
	until, renew time.Time
}

// reserver keeps reservations at relays. It belongs to one goroutine; requests
// run in others.
type reserver struct {
	h     corehost.Host
	log   *slog.Logger
	slots map[peer.ID]slot
	// asking has the relays that are being asked, resting those that refused.
	asking  map[peer.ID]bool
	resting map[peer.ID]time.Time
	done    chan reserved
}

// reserved is the outcome of a request.
type reserved struct {
	relay peer.ID
	until time.Time
	err   error
}

func newReserver(h corehost.Host, log *slog.Logger) *reserver {
	return &reserver{
		h: h, log: log, slots: map[peer.ID]slot{}, asking: map[peer.ID]bool{}, resting: map[peer.ID]time.Time{},
		done: make(chan reserved, 2*wantRelays),
	}
}

// step drops what is lost and returns the relays to ask now. wanted is false
// for a host that needs no relay.
func (r *reserver) step(now time.Time, wanted bool) []peer.ID {
	var due []peer.ID
	for id, s := range r.slots {
		switch {
		case !wanted, now.After(s.until), r.h.Network().Connectedness(id) != network.Connected:
			delete(r.slots, id)
			r.h.ConnManager().Unprotect(id, relayTag)
			if wanted {
				r.log.Info("relay is lost", "relay", id)
			}
		case now.After(s.renew) && !r.asking[id]:
			due = append(due, id)
		}
	}
	for id, until := range r.resting {
		if now.After(until) {
			delete(r.resting, id)
		}
	}
	if !wanted {
		return nil
	}
	for _, id := range r.candidates() {
		if len(r.slots)+len(r.asking)+len(due) >= wantRelays {
			break
		}
		due = append(due, id)
	}
	for _, id := range due {
		r.asking[id] = true
	}
	return due
}

const relayTag = "p2pnode/relay"

// candidates returns the directly connected peers that are relays and are
// neither in use nor at rest, in random order.
func (r *reserver) candidates() []peer.ID {
	var out []peer.ID
	for _, id := range r.h.Network().Peers() {
		_, used := r.slots[id]
		_, rests := r.resting[id]
		if used || rests || r.asking[id] || r.h.Network().Connectedness(id) != network.Connected || len(r.relayAddrs(id)) == 0 {
			continue
		}
		if p, err := r.h.Peerstore().SupportsProtocols(id, proto.ProtoIDv2Hop); err == nil && len(p) > 0 {
			out = append(out, id)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// ask reserves at a relay; it blocks.
func (r *reserver) ask(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, reserveTimeout)
	defer cancel()
	out := reserved{relay: id}
	s, err := client.Reserve(network.WithNoDial(ctx, "reserve"), r.h, peer.AddrInfo{ID: id})
	if out.err = err; err == nil {
		out.until = s.Expiration
	}
	r.done <- out
}

// answered takes in an outcome.
func (r *reserver) answered(a reserved, now time.Time) {
	delete(r.asking, a.relay)
	if a.err != nil {
		r.log.Debug("relay gives no reservation", "relay", a.relay, "err", a.err)
		r.resting[a.relay] = now.Add(time.Duration((0.5 + rand.Float64()) * float64(reservePause)))
		return
	}
	if _, renewed := r.slots[a.relay]; !renewed {
		r.log.Info("reserved at relay", "relay", a.relay)
	}
	r.h.ConnManager().Protect(a.relay, relayTag)
	r.slots[a.relay] = slot{until: a.until, renew: now.Add(a.until.Sub(now) / 2)}
}

// addrs returns the addresses at which this host is reached through its relays,
// in a stable order.
func (r *reserver) addrs() []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for id := range r.slots {
		circuit, err := multiaddr.NewMultiaddr("/p2p/" + id.String() + "/p2p-circuit")
		if err != nil {
			continue // no peer ID prints so
		}
		for _, a := range r.relayAddrs(id) {
			out = append(out, a.Encapsulate(circuit))
		}
	}
	slices.SortFunc(out, multiaddr.Multiaddr.Compare)
	return out
}

// relayAddrs returns where a relay is dialled, public addresses first, TCP and
// QUIC in turn, none of loopback.
func (r *reserver) relayAddrs(id peer.ID) []multiaddr.Multiaddr {
	addrs := slices.DeleteFunc(r.h.Peerstore().Addrs(id), func(a multiaddr.Multiaddr) bool {
		return isCircuit(a) || manet.IsIPLoopback(a) || !isTCP(a) && !isQUIC(a)
	})
	private := func(a multiaddr.Multiaddr) int {
		if manet.IsPublicAddr(a) {
			return 0
		}
		return 1
	}
	slices.SortFunc(addrs, func(a, b multiaddr.Multiaddr) int { return cmp.Or(private(a)-private(b), a.Compare(b)) })
	var out []multiaddr.Multiaddr
	for _, is := range []func(multiaddr.Multiaddr) bool{isTCP, isQUIC} {
		if i := slices.IndexFunc(addrs, is); i >= 0 {
			out = append(out, addrs[i])
		}
	}
	return out[:min(len(out), maxRelayAddrs)]
}

// run finds out where the host stands, keeps reservations where it needs them,
// and tells the rest of the host, until ctx ends.
func (t *traversal) run(ctx context.Context, h *Host) error {
	events, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerConnectednessChanged), new(event.EvtHostReachableAddrsChanged),
	}, eventbus.BufSize(256))
	if err != nil {
		return err
	}
	defer events.Close()
	requests, stop := context.WithCancel(ctx)
	defer stop()
	tick := time.NewTicker(reserveEvery)
	defer tick.Stop()
	var running int
	defer func() {
		stop()
		for ; running > 0; running-- {
			<-t.reserver.done
		}
	}()
	told := announced{reach: "none"}
	for {
		now := t.reach.now()
		for _, id := range t.reserver.step(time.Now(), now == ReachPunchable || now == ReachRelayed) {
			running++
			go t.reserver.ask(requests, id)
		}
		t.puncher.step(time.Now())
		t.tell(h, &told, now)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.reach.prune()
		case a := <-t.reserver.done:
			running--
			t.reserver.answered(a, time.Now())
		case e, ok := <-events.Out():
			if !ok {
				return nil
			}
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				t.reach.identified(e)
			case event.EvtHostReachableAddrsChanged:
				t.reach.confirmed(e)
			}
		}
	}
}

// announced is what the rest of the host was told last.
type announced struct {
	reach Reachability
	addrs []multiaddr.Multiaddr
}

// tell announces what has changed: the relays become addresses of the host, and
// the DHT serves others only from where they reach it.
func (t *traversal) tell(h *Host, told *announced, now Reachability) {
	if addrs := t.reserver.addrs(); !slices.EqualFunc(addrs, told.addrs, multiaddr.Multiaddr.Equal) {
		told.addrs = addrs
		_ = t.addrs.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: slices.Clone(addrs)}) // fails only after Close
	}
	if now == told.reach {
		return
	}
	h.log.Info("reachability", "is", cmp.Or(string(now), "unknown"))
	told.reach = now
	as := network.ReachabilityUnknown
	switch now {
	case ReachPublic:
		as = network.ReachabilityPublic
	case ReachPunchable, ReachRelayed:
		as = network.ReachabilityPrivate
	}
	_ = t.reachable.Emit(event.EvtLocalReachabilityChanged{Reachability: as}) // fails only after Close
}
