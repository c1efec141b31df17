package frame

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// openTimeout bounds the opening of a stream, with the dial where one is needed.
// It is no longer since a dial that began before its target returned may not
// notice that. Hosts keep dialling their supernodes with more patience, and a
// stream is then opened on what they got.
const openTimeout = 2 * time.Second

// Limits bounds what a server takes on.
type Limits struct {
	// Streams and StreamsPerPeer bound the streams served at once, in all and
	// of one peer. Streams beyond them are reset.
	Streams, StreamsPerPeer int
}

// Or returns l with the fields that are zero taken from def.
func (l Limits) Or(def Limits) Limits {
	if l.Streams == 0 {
		l.Streams = def.Streams
	}
	if l.StreamsPerPeer == 0 {
		l.StreamsPerPeer = def.StreamsPerPeer
	}
	return l
}

// Service is one protocol of a host, as its client and as its server see it.
type Service struct {
	Host     host.Host
	Protocol protocol.ID
	// Name is the resource manager's name of the service.
	Name string
	// Memory is reserved for each stream: its largest messages, in bytes.
	Memory int
	// Limits bounds the server; clients bound themselves.
	Limits  Limits
	Metrics *Metrics
	Logger  *slog.Logger
}

// Open opens a stream to a peer, dialling it where it is not connected, or where
// its connection turns out to be dead, also over a relay. The swarm's own dial backoff, which grows to five minutes, is
// cleared: callers have a shorter one. The caller closes or resets the stream.
func (s *Service) Open(ctx context.Context, to peer.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if n, ok := s.Host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		n.Backoff().Clear(to)
	}
	connected := s.Connected(to)
	st, err := s.Host.NewStream(network.WithAllowLimitedConn(ctx, s.Name), to, s.Protocol)
	if err != nil && connected && !s.Connected(to) {
		// The connection was dead, which says nothing of the peer.
		st, err = s.Host.NewStream(network.WithAllowLimitedConn(ctx, s.Name), to, s.Protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s stream to %s: %w", s.Name, to, err)
	}
	if err := s.admit(st); err != nil {
		_ = st.Reset()
		return nil, err
	}
	return st, nil
}

// Connected reports whether there is a connection to a peer, dead or alive.
func (s *Service) Connected(to peer.ID) bool {
	return s.Host.Network().Connectedness(to) == network.Connected
}

func (s *Service) admit(st network.Stream) error {
	if err := st.Scope().SetService(s.Name); err != nil {
		return fmt.Errorf("attach stream to service %s: %w", s.Name, err)
	}
	if err := st.Scope().ReserveMemory(s.Memory, network.ReservationPriorityMedium); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", s.Memory, s.Name, err)
	}
	return nil
}

// Serve handles the protocol's streams until ctx ends; then it takes no more,
// resets those that are open and returns when their handlers have. A stream
// whose handler returns nil is closed, any other reset, logged and counted.
// Streams over a limit are reset at once.
func (s *Service) Serve(ctx context.Context, handle func(context.Context, network.Stream) error) error {
	g := gate{limits: s.Limits, open: make(map[network.Stream]struct{}), peers: make(map[peer.ID]int)}
	s.Host.SetStreamHandler(s.Protocol, func(st network.Stream) {
		if !g.enter(st) {
			s.Metrics.Refused.Inc()
			_ = st.Reset()
			return
		}
		defer g.leave(st)
		err := s.admit(st)
		if err == nil {
			err = handle(ctx, st)
		}
		s.finish(ctx, st, err)
	})
	<-ctx.Done()
	s.Host.RemoveStreamHandler(s.Protocol)
	g.shut()
	return nil
}

func (s *Service) finish(ctx context.Context, st network.Stream, err error) {
	if err == nil {
		_ = st.Close()
		return
	}
	if ctx.Err() == nil {
		s.Metrics.Count(err)
		s.Logger.Debug("stream failed", "service", s.Name, "peer", st.Conn().RemotePeer(), "err", err)
	}
	_ = st.Reset()
}

// gate counts the streams that are served.
type gate struct {
	limits Limits
	wg     sync.WaitGroup
	mu     sync.Mutex
	// mu guards the following.
	closed bool
	open   map[network.Stream]struct{}
	peers  map[peer.ID]int
}

func (g *gate) enter(st network.Stream) bool {
	from := st.Conn().RemotePeer()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.open) >= g.limits.Streams || g.peers[from] >= g.limits.StreamsPerPeer {
		return false
	}
	g.open[st] = struct{}{}
	g.peers[from]++
	g.wg.Add(1)
	return true
}

func (g *gate) leave(st network.Stream) {
	from := st.Conn().RemotePeer()
	g.mu.Lock()
	delete(g.open, st)
	if g.peers[from]--; g.peers[from] == 0 {
		delete(g.peers, from)
	}
	g.mu.Unlock()
	g.wg.Done()
}

func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	for st := range g.open {
		_ = st.Reset()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// Interruptible runs f with the stream's deadline set to timeout from now, and
// brings the deadline forward when ctx ends, so that f returns at once. It
// returns f's error, joined with that of ctx where ctx has ended. No deadline
// is changed after it returned.
func Interruptible(ctx context.Context, st network.Stream, timeout time.Duration, f func() error) error {
	if err := st.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = st.SetDeadline(time.Now()) // fails only on a stream that is over
		close(done)
	})
	err := f()
	if !stop() {
		<-done
	}
	return errors.Join(err, ctx.Err())
}
