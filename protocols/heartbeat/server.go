package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// Sink takes what peers say. Its methods are called one at a time for one peer,
// at the same time for different ones, and must not block.
type Sink interface {
	// Beat takes a peer's beat and returns the answer, whose Seq it leaves.
	Beat(from peer.ID, b Beat) Ack
	// Gone says, once after the peer's last Beat, that its stream has ended and
	// no other has taken its place: the peer said goodbye, or else was lost. A
	// server that stops says it of all peers.
	Gone(from peer.ID, goodbye bool)
}

// ServerConfig holds what is optional; its zero value is good.
type ServerConfig struct {
	// Idle is how long a stream waits for a beat; 0 is DefaultIdle.
	Idle time.Duration
	// Timeout of writing one acknowledgement; 0 is DefaultTimeout.
	Timeout time.Duration
	// Limits; fields that are 0 are those of DefaultLimits.
	Limits Limits
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Server answers the beats of all peers.
type Server struct {
	service frame.Service
	sink    Sink
	idle    time.Duration
	timeout time.Duration

	mu sync.Mutex
	// mu guards the following: the newest stream of each peer; the service's
	// limits bound it.
	live map[peer.ID]*turn
}

// turn is one stream's time as the stream of its peer.
type turn struct {
	st network.Stream
	// beaten says that the sink has a Beat of the peer that no Gone followed.
	// It belongs to the stream's handler until done is closed.
	beaten bool
	done   chan struct{}
}

// NewServer returns a server; it serves nothing before Run.
func NewServer(h host.Host, sink Sink, cfg ServerConfig) *Server {
	s := &Server{
		service: newService(h, cfg.Limits, cfg.Logger, cfg.Registerer),
		sink:    sink,
		idle:    cfg.Idle,
		timeout: cfg.Timeout,
		live:    make(map[peer.ID]*turn),
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

func (s *Server) handle(ctx context.Context, st network.Stream) (err error) {
	from := st.Conn().RemotePeer()
	t := s.enter(from, st)
	goodbye := false
	defer func() { s.leave(from, t, goodbye) }()
	in, out := frame.NewReader(st, maxBeat), frame.NewWriter(st, maxAck)
	limit := rate.NewLimiter(maxRate, maxRate)
	var last uint64
	for {
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		b, err := s.read(st, in, last)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read beat after %d: %w", last, err)
		}
		last = b.Seq
		if b.Goodbye {
			goodbye = true
			return nil
		}
		t.beaten = true
		ack := s.sink.Beat(from, b)
		ack.Seq, ack.Time = b.Seq, time.Now()
		if err := s.write(st, out, ack); err != nil {
			return fmt.Errorf("acknowledge beat %d: %w", b.Seq, err)
		}
	}
}

func (s *Server) read(st network.Stream, in *frame.Reader, last uint64) (Beat, error) {
	if err := st.SetReadDeadline(time.Now().Add(s.idle)); err != nil {
		return Beat{}, err
	}
	var m pb.Beat
	if err := in.Read(&m); err != nil {
		return Beat{}, err
	}
	b, err := beatFromProto(&m)
	if err == nil && b.Seq <= last {
		err = frame.Malformed("beat %d after %d", b.Seq, last)
	}
	return b, err
}

func (s *Server) write(st network.Stream, out *frame.Writer, ack Ack) error {
	if err := st.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	return out.Write(ackToProto(ack))
}

// enter makes st the peer's stream. It resets the one before, which a peer that
// has connected anew has given up, and waits for its handler, so that the sink
// hears of the peer from one stream at a time.
func (s *Server) enter(from peer.ID, st network.Stream) *turn {
	t := &turn{st: st, done: make(chan struct{})}
	s.mu.Lock()
	before := s.live[from]
	s.live[from] = t
	s.mu.Unlock()
	if before != nil {
		_ = before.st.Reset()
		<-before.done
		t.beaten = before.beaten
	}
	return t
}

// leave says Gone unless another stream has taken the peer over.
func (s *Server) leave(from peer.ID, t *turn, goodbye bool) {
	defer close(t.done)
	s.mu.Lock()
	newest := s.live[from] == t
	s.mu.Unlock()
	if newest && t.beaten {
		s.sink.Gone(from, goodbye)
		t.beaten = false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[from] == t {
		delete(s.live, from)
	}
}
