package rangeread

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
)

// Handler answers requests.
type Handler interface {
	// Serve answers one request by the methods of a: Header first, then the
	// bytes. It returns nil when all was sent. An *Error before the header
	// becomes the answer's status; any error after it ends the answer with an
	// ERROR frame; an error of another type counts as StatusInternal. It must
	// return soon after ctx ends.
	Serve(ctx context.Context, from peer.ID, req Request, a *Answer) error
}

// ServerConfig configures a Server.
type ServerConfig struct {
	Host    host.Host
	Handler Handler
	// Pace is told of n bytes of a file before they are sent to a peer and returns
	// for how long they have to wait; nil for none. The reader gets WAIT meanwhile.
	// A leaf (16 KiB) alone, or less, does not wait. It must not block.
	Pace func(to peer.ID, n int) time.Duration
	// Logger; nil discards.
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Server answers range reads.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	metrics *serverMetrics
	parts   partParents

	mu sync.Mutex
	// mu guards the following.
	streams map[network.Stream]struct{}
	peers   map[peer.ID]*load
	closed  bool
	wg      sync.WaitGroup
}

// load counts what one peer has open.
type load struct {
	streams int // guarded by Server.mu
	active  atomic.Int32
}

// NewServer returns a server; Run makes it answer.
func NewServer(cfg ServerConfig) *Server {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg: cfg, log: log, metrics: newServerMetrics(cfg.Registerer),
		streams: map[network.Stream]struct{}{}, peers: map[peer.ID]*load{},
	}
}

// Run answers requests until ctx ends; then it resets what is open and returns
// when all handlers have ended. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	s.cfg.Host.SetStreamHandler(ProtocolID, func(st network.Stream) {
		l := s.add(st)
		if l == nil {
			_ = st.Reset()
			return
		}
		defer s.remove(st)
		if err := newSession(s, st, l).run(ctx); err != nil {
			_ = st.Reset()
			s.log.Debug("range stream ended", "peer", st.Conn().RemotePeer(), "err", err)
			return
		}
		_ = st.Close()
	})
	<-ctx.Done()
	s.cfg.Host.RemoveStreamHandler(ProtocolID)
	s.mu.Lock()
	s.closed = true
	open := slices.Collect(maps.Keys(s.streams))
	s.mu.Unlock()
	for _, st := range open {
		s.wg.Go(func() { _ = st.Reset() }) // may block while the connection takes no bytes
	}
	s.wg.Wait()
	return nil
}

// add counts a stream; it returns nil where its peer has too many.
func (s *Server) add(st network.Stream) *load {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := st.Conn().RemotePeer()
	l := s.peers[id]
	if l == nil {
		l = new(load)
	}
	if s.closed || l.streams >= maxStreams {
		s.metrics.refuse.Inc()
		return nil
	}
	l.streams++
	s.peers[id] = l
	s.streams[st] = struct{}{}
	s.wg.Add(1)
	return l
}

func (s *Server) remove(st network.Stream) {
	s.mu.Lock()
	id := st.Conn().RemotePeer()
	l := s.peers[id]
	if l.streams--; l.streams == 0 {
		delete(s.peers, id)
	}
	delete(s.streams, st)
	s.mu.Unlock()
	s.wg.Done()
}

// serve has the handler answer one request of a peer; the error is the answer's.
func (s *Server) serve(ctx context.Context, from peer.ID, l *load, req Request, a *Answer) error {
	defer l.active.Add(-1)
	if l.active.Add(1) > MaxReads {
		return &Error{Status: StatusBusy, RetryAfter: WaitEvery, Size: -1, Detail: "too many reads at once"}
	}
	s.metrics.active.Inc()
	defer s.metrics.active.Dec()
	return s.cfg.Handler.Serve(ctx, from, req, a)
}
