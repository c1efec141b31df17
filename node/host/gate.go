package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/membership"
)

const (
	// defaultHelloWait is GateConfig.HelloWait where it is 0.
	defaultHelloWait = 10 * time.Second
	// ownHello is after how long the side that was dialled says hello itself.
	ownHello = 3 * time.Second
	// streamWait is how long an outbound stream waits for the hello: a cold dial
	// through a relay takes that long, and what fails would back off.
	streamWait = 2 * time.Second
	// sweepEvery is how often connections are looked over.
	sweepEvery = 500 * time.Millisecond
	// notMember is the code that connections are closed with.
	notMember network.ConnErrorCode = 0x2001
)

// Errors of the gate.
var (
	// ErrNotMember: the peer has not shown a certificate, or did not accept ours.
	ErrNotMember = errors.New("peer is no member of the swarm")
	// ErrRole: its certificate does not allow that.
	ErrRole = errors.New("peer's role does not allow this protocol")
)

// GateConfig says whom a Gate lets in.
type GateConfig struct {
	// Swarm is the public identity of the swarm.
	Swarm peer.ID
	// Chain is the host's own certificate, empty while it has none.
	Chain membership.Chain
	// Revocations are looked at with each hello and each sweep.
	Revocations *membership.Revocations
	// Issuer issues certificates; nil for a host that issues none.
	Issuer membership.Issuer
	// Offline reports whether no supernode can be reached: then certificates
	// stay good for Grace after their end. Nil is never.
	Offline func() bool
	Grace   time.Duration
	// Built is when the program was made: a clock before that is wrong, and
	// times are not looked at. The zero time is long ago.
	Built time.Time
	// Refused hears why a peer refused the host's own certificate; it must not
	// block. Nil for nobody.
	Refused func(error)
	// Admitted hears of each peer that shows a good certificate; it must not block
	// for long. Nil for nobody.
	Admitted func(membership.Certificate)
	// MaxPending bounds connections that have not said hello; default a quarter
	// of the host's MaxPeers, at least 64. A new one takes the place of the oldest
	// from the address that has most of them.
	MaxPending int
	// HelloWait is how long a connection may be without a hello; default 10 s.
	HelloWait time.Duration
	// Now is nil for time.Now.
	Now func() time.Time
	// Logger is nil for slog.Default.
	Logger *slog.Logger
}

// Gate lets members in and nobody else. It stands in the resource manager, where
// each stream, in and out, tells its protocol before anything is done with it:
// before a peer has shown its certificate only membership, identify, ping and
// AutoNAT's dial-back pass. There are two levels. A peer whose certificate is
// good may open streams; to one that has also said that ours is good streams may
// be opened, and until then they wait: GossipSub gives a peer up that refuses
// four streams. A connection without a hello is closed after 10 s, one whose
// certificate ends or is revoked at once.
//
// A relayed connection has a hello of its own, end to end; a relay reservation
// needs the membership of the connection to the relay.
type Gate struct {
	cfg  GateConfig
	host host.Host
	log  *slog.Logger
	emit event.Emitter

	stop context.CancelFunc
	work sync.WaitGroup

	refusals atomic.Int64 // streams that did not pass
	unsaid   unsaid

	mu sync.RWMutex
	// mu guards the following.
	chain   membership.Chain
	own     membership.Certificate
	closed  bool
	conns   map[network.Conn]*admission
	members map[peer.ID]level
	spurned map[peer.ID]spurned
	changed chan struct{} // closed and replaced with each change
}

// level is what the hellos of a peer's connections permit.
type level struct {
	role membership.Role
	in   bool // their streams may come in
	both bool // ours may go out
}

// admission is what one connection's hello permits.
type admission struct {
	since        time.Time
	said         bool      // a hello of ours is or was under way
	again        time.Time // when one that failed is to be said again; zero for never
	cert, issuer membership.Certificate
	in, both     bool
}

// NewGate returns a gate for one host: put it into its Config.
func NewGate(cfg GateConfig) *Gate {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.HelloWait == 0 {
		cfg.HelloWait = defaultHelloWait
	}
	if cfg.Revocations == nil {
		cfg.Revocations = membership.NewRevocations(cfg.Swarm)
	}
	g := &Gate{
		cfg: cfg, log: cfg.Logger, chain: cfg.Chain, conns: make(map[network.Conn]*admission),
		members: make(map[peer.ID]level), spurned: make(map[peer.ID]spurned), changed: make(chan struct{}),
	}
	g.own, _, _ = cfg.Chain.Open(cfg.Swarm) // without one it is nobody's
	return g
}

// start begins to admit; the host does not listen yet.
func (g *Gate) start(h host.Host) error {
	g.host = h
	var err error
	if g.emit, err = h.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return fmt.Errorf("make membership gate: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	h.SetStreamHandler(membership.Protocol, g.serve)
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { g.connected(ctx, c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { g.disconnected(c) },
	})
	g.work.Go(func() { g.sweeps(ctx) })
	return nil
}

// close ends the gate, before its host.
func (g *Gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	if g.stop != nil {
		g.stop()
	}
	g.work.Wait()
	if g.emit != nil {
		_ = g.emit.Close()
	}
}

// Chain implements membership.Checker: the host's own certificate.
func (g *Gate) Chain() membership.Chain {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.chain
}

// Own returns the certificate of the host itself; false while there is none.
func (g *Gate) Own() (membership.Certificate, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.own, g.own.Role != 0
}

// SetChain gives the host a certificate, its first or a newer one, and shows it
// to all that it is connected to.
func (g *Gate) SetChain(ctx context.Context, chain membership.Chain) {
	own, _, _ := chain.Open(g.cfg.Swarm) // one that is no good is refused by all
	g.mu.Lock()
	g.chain, g.own = chain, own
	clear(g.spurned) // they may think otherwise now
	var conns []network.Conn
	for c, a := range g.conns {
		a.said = true
		conns = append(conns, c)
	}
	g.wake()
	g.mu.Unlock()
	for _, c := range conns {
		g.greet(ctx, c)
	}
}

// wake tells those that wait; the caller holds mu.
func (g *Gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// connected takes note of a connection. libp2p calls it: it must not block.
func (g *Gate) connected(ctx context.Context, c network.Conn) {
	out := c.Stat().Direction == network.DirOutbound
	g.mu.Lock()
	pending := 0
	for _, a := range g.conns {
		if !a.in {
			pending++
		}
	}
	var end network.Conn
	if !out && pending >= g.cfg.MaxPending {
		if end = g.crowded(); end == nil {
			end = c
		}
		delete(g.conns, end) // its place is free at once
	}
	speak := out && len(g.chain) > 0
	if end != c && !c.IsClosed() {
		g.conns[c] = &admission{since: time.Now(), said: speak}
	}
	g.mu.Unlock()
	if end != nil {
		g.leave(end)
	}
	if speak {
		g.greet(ctx, c)
	}
}

func (g *Gate) disconnected(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	g.count(c.RemotePeer())
	g.wake()
}

// count sums up what the connections of a peer permit; the caller holds mu.
func (g *Gate) count(id peer.ID) {
	var l level
	for c, a := range g.conns {
		if c.RemotePeer() == id && a.in {
			l = level{role: max(l.role, a.cert.Role), in: true, both: l.both || a.both}
		}
	}
	if l.in {
		g.members[id] = l
	} else {
		delete(g.members, id)
	}
}

// leave closes a connection, not under the caller's locks.
func (g *Gate) leave(c network.Conn) {
	g.spawn(func() { _ = c.CloseWithError(notMember) })
}

// spawn runs f where close waits for it, or not at all once that has begun.
func (g *Gate) spawn(f func()) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.closed {
		g.work.Go(f)
	}
}

// greet says hello on a connection.
func (g *Gate) greet(ctx context.Context, c network.Conn) {
	g.spawn(func() {
		err := membership.Hello(ctx, c, g)
		if err == nil || c.IsClosed() || ctx.Err() != nil {
			return
		}
		g.log.Debug("hello failed", "peer", c.RemotePeer(), "err", err)
		var refused *membership.RefusedError
		switch {
		case errors.Is(err, membership.ErrUnable):
			return // one of the two is about to join, and will say hello then
		case errors.As(err, &refused):
			if g.cfg.Refused != nil {
				g.cfg.Refused(err)
			}
		case !verdictOf(err):
			g.greetAgain(c) // or the peer says hello itself
			return
		}
		g.spurn(c.RemotePeer())
		_ = c.CloseWithError(notMember)
	})
}

// greetAgain has a hello said again that failed on the way, once the peer is in by
// another one: it may have been to show him a renewed certificate.
func (g *Gate) greetAgain(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.conns[c]; a != nil {
		a.again = time.Now().Add(ownHello)
	}
}

// verdictOf reports whether an error is about a certificate.
func verdictOf(err error) bool {
	for _, v := range []error{membership.ErrMalformed, membership.ErrOtherSwarm, membership.ErrExpired, membership.ErrNotYet, membership.ErrRevoked} {
		if errors.Is(err, v) {
			return true
		}
	}
	return false
}

// serve answers a membership stream.
func (g *Gate) serve(st network.Stream) {
	c := st.Conn()
	err := membership.Handle(st, g, g.cfg.Issuer, g.cfg.Swarm)
	if err == nil {
		return
	}
	g.log.Debug("membership refused", "peer", c.RemotePeer(), "err", err)
	var refused *membership.RefusedError
	if errors.As(err, &refused) && g.cfg.Refused != nil {
		g.cfg.Refused(err)
	}
	if verdictOf(err) {
		g.hangUp(c)
	}
}

// hangUp closes a connection once the peer has read why, or a second later.
func (g *Gate) hangUp(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.conns[c]; a != nil && !a.in {
		a.since = time.Now().Add(time.Second - g.cfg.HelloWait)
	}
}

// Check implements membership.Checker.
func (g *Gate) Check(c network.Conn, chain membership.Chain) error {
	cert, issuer, err := chain.Open(g.cfg.Swarm)
	if err != nil {
		return err
	}
	if cert.Peer != c.RemotePeer() {
		return fmt.Errorf("%w: of %s, shown by %s", membership.ErrMalformed, cert.Peer, c.RemotePeer())
	}
	return g.valid(cert, issuer)
}

// valid checks times and revocations.
func (g *Gate) valid(cert, issuer membership.Certificate) error {
	for _, c := range []membership.Certificate{issuer, cert} {
		if err := g.cfg.Revocations.Check(c); err != nil {
			return err
		}
		if err := g.inTime(c); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gate) inTime(c membership.Certificate) error {
	now := g.cfg.Now()
	err := c.Check(now)
	switch {
	case err == nil, now.Before(g.cfg.Built):
		return nil
	case errors.Is(err, membership.ErrExpired) && now.Before(c.Expires.Add(g.cfg.Grace)) && g.cfg.Offline != nil && g.cfg.Offline():
		return nil
	}
	return err
}

// Admit implements membership.Checker.
func (g *Gate) Admit(c network.Conn, chain membership.Chain, both bool) {
	cert, issuer, err := chain.Open(g.cfg.Swarm)
	if err != nil {
		return
	}
	ok, first := g.admit(c, func(a *admission) { a.cert, a.issuer, a.in, a.both = cert, issuer, true, a.both || both })
	if ok && g.cfg.Admitted != nil {
		g.cfg.Admitted(cert)
	}
	if first {
		g.announce(c.RemotePeer())
	}
}

// Confirm implements membership.Checker.
func (g *Gate) Confirm(c network.Conn) {
	if _, first := g.admit(c, func(a *admission) { a.both = a.both || a.in }); first {
		g.announce(c.RemotePeer())
	}
}

// admit changes what a connection's hello permits; ok is false where the
// connection is gone. first says that our streams to the peer pass from now on.
func (g *Gate) admit(c network.Conn, change func(*admission)) (ok, first bool) {
	id := c.RemotePeer()
	g.mu.Lock()
	a := g.conns[c]
	if a == nil || c.IsClosed() {
		g.mu.Unlock()
		return false, false
	}
	change(a)
	before := g.members[id]
	g.count(id)
	first = g.members[id].both && !before.both
	delete(g.spurned, id)
	g.wake()
	g.mu.Unlock()
	return true, first
}

// announce tells GossipSub and the DHT to look at a peer again, whose streams
// they may have been refused.
func (g *Gate) announce(id peer.ID) {
	if known, err := g.host.Peerstore().GetProtocols(id); err == nil && len(known) > 0 {
		_ = g.emit.Emit(event.EvtPeerProtocolsUpdated{Peer: id, Added: known})
	}
}

// sweeps looks all connections over, again and again.
func (g *Gate) sweeps(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		speak, end := g.sweep(time.Now())
		for _, c := range speak {
			g.greet(ctx, c)
		}
		for _, c := range end {
			g.leave(c)
		}
	}
}

// sweep returns the connections to say hello on and those to close.
func (g *Gate) sweep(now time.Time) (speak, end []network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c, a := range g.conns {
		age := now.Sub(a.since)
		switch {
		case a.in:
			if err := g.valid(a.cert, a.issuer); err != nil {
				g.log.Info("peer is no member any more", "peer", c.RemotePeer(), "err", err)
				a.in, a.both = false, false
				g.count(c.RemotePeer())
				end = append(end, c)
				break
			}
			if !a.again.IsZero() && now.After(a.again) {
				a.again = time.Time{}
				speak = append(speak, c)
			}
		case age > g.cfg.HelloWait:
			end = append(end, c)
		case age > ownHello && !a.said && len(g.chain) > 0:
			a.said = true
			speak = append(speak, c)
		}
	}
	return speak, end
}

// Role returns the role of a peer that is connected and admitted; 0 for others.
func (g *Gate) Role(id peer.ID) membership.Role {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.members[id].role
}

// Certificate returns that of a peer that is connected and admitted; of several
// the one that was got for joining last.
func (g *Gate) Certificate(id peer.ID) (cert membership.Certificate, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for c, a := range g.conns {
		if a.in && c.RemotePeer() == id && (!ok || a.cert.Since().After(cert.Since())) {
			cert, ok = a.cert, true
		}
	}
	return cert, ok
}

// Members returns how many peers are connected and admitted.
func (g *Gate) Members() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.members)
}

// await waits for both hellos with a connected peer, at most streamWait, and
// returns its level.
func (g *Gate) await(id peer.ID) (level, bool) {
	limit := time.NewTimer(streamWait)
	defer limit.Stop()
	for {
		g.mu.RLock()
		l, changed, closed := g.members[id], g.changed, g.closed
		g.mu.RUnlock()
		if l.both {
			return l, true
		}
		if closed || g.host.Network().Connectedness(id) == network.NotConnected {
			return l, false
		}
		select {
		case <-changed:
		case <-limit.C:
			return l, false
		}
	}
}
