package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/report/pb"
)

// DefaultPeers is how many peers' last numbers a server remembers. A peer that
// was forgotten may be heard twice with one report.
const DefaultPeers = 8192

// Sink takes what peers report.
type Sink interface {
	// Report takes one report. It is called one at a time for one peer, at the
	// same time for different ones. Only where it returns nil is the report
	// acknowledged; otherwise the peer sends it again.
	Report(from peer.ID, r Report) error
}

// ServerConfig holds what is optional; its zero value is good.
type ServerConfig struct {
	// Idle is how long a stream waits for a report; 0 is DefaultIdle.
	Idle time.Duration
	// Timeout of writing one acknowledgement; 0 is DefaultTimeout.
	Timeout time.Duration
	// Peers bounds the peers whose last number is remembered; 0 is DefaultPeers.
	Peers int
	// Limits; fields that are 0 are those of DefaultLimits.
	Limits Limits
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Server takes the reports of all peers.
type Server struct {
	service frame.Service
	metrics *metrics
	sink    Sink
	idle    time.Duration
	timeout time.Duration

	mu sync.Mutex
	// mu guards the following.
	heard *lru.Cache[peer.ID, *hearing]
}

// hearing is what a server remembers of one peer.
type hearing struct {
	rate *rate.Limiter // of reports

	mu sync.Mutex
	// mu guards the following, and is held while the sink takes a report.
	session, seq uint64
}

// NewServer returns a server; it serves nothing before Run.
func NewServer(h host.Host, sink Sink, cfg ServerConfig) *Server {
	heard, err := lru.New[peer.ID, *hearing](cmp.Or(cfg.Peers, DefaultPeers))
	if err != nil {
		panic("report: " + err.Error()) // a positive size is always good
	}
	s := &Server{
		service: newService(h, cfg.Limits, cfg.Logger, cfg.Registerer),
		metrics: newMetrics(cfg.Registerer),
		sink:    sink,
		idle:    cfg.Idle,
		timeout: cfg.Timeout,
		heard:   heard,
	}
	if s.idle == 0 {
		s.idle = DefaultIdle
	}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	return s
}

// Run serves until ctx ends, and returns when all handlers have.
func (s *Server) Run(ctx context.Context) error { return s.service.Serve(ctx, s.handle) }

func (s *Server) handle(ctx context.Context, st network.Stream) error {
	from := st.Conn().RemotePeer()
	in, out := frame.NewReader(st, maxReport), frame.NewWriter(st, maxAck)
	for {
		// What comes meanwhile waits at its sender, and is acknowledged in time.
		if err := s.hearing(from).rate.Wait(ctx); err != nil {
			return err
		}
		if err := st.SetReadDeadline(time.Now().Add(s.idle)); err != nil {
			return err
		}
		var m pb.Report
		if err := in.Read(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read report: %w", err)
		}
		if err := s.take(from, &m); err != nil {
			return fmt.Errorf("take report %d: %w", m.GetSeq(), err)
		}
		if err := st.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		if err := out.Write(&pb.Ack{Seq: m.GetSeq()}); err != nil {
			return fmt.Errorf("acknowledge report %d: %w", m.GetSeq(), err)
		}
	}
}

// take hands a report to the sink unless it was taken before.
func (s *Server) take(from peer.ID, m *pb.Report) error {
	r, err := reportFromProto(m)
	if err != nil {
		return err
	}
	h := s.hearing(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.GetSession() == h.session && m.GetSeq() <= h.seq {
		s.metrics.repeated.Inc()
		return nil
	}
	if err := s.sink.Report(from, r); err != nil {
		return err
	}
	h.session, h.seq = m.GetSession(), m.GetSeq()
	return nil
}

func (s *Server) hearing(from peer.ID) *hearing {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.heard.Get(from)
	if !ok {
		h = &hearing{rate: rate.NewLimiter(maxRate, maxBurst)}
		s.heard.Add(from, h)
	}
	return h
}
