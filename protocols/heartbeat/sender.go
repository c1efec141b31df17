package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// goodbyeTimeout bounds the goodbye, and with it the end of Sender.Run.
const goodbyeTimeout = 500 * time.Millisecond

// nudgeGap is the part of the interval that lies between two beats at least,
// however often Nudge is called.
const nudgeGap = 25

// SenderConfig holds what is optional; its zero value is good.
type SenderConfig struct {
	// Interval between beats, each varied by 10 %; 0 is DefaultInterval.
	Interval time.Duration
	// Timeout of one acknowledgement; 0 is DefaultTimeout.
	Timeout time.Duration
	// Random returns a number in [0,1); nil is the real one.
	Random func() float64
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Sender sends the beats of one peer to any number of supernodes. It is safe
// for concurrent use.
type Sender struct {
	service  frame.Service
	interval time.Duration
	timeout  time.Duration
	random   func() float64
	session  uint64

	mu sync.Mutex
	// mu guards the following: one channel for each Run.
	nudges map[chan struct{}]struct{}
}

// NewSender returns a sender with a session of its own; it starts nothing.
func NewSender(h host.Host, cfg SenderConfig) *Sender {
	s := &Sender{
		service:  newService(h, Limits{}, cfg.Logger, cfg.Registerer),
		interval: cfg.Interval,
		timeout:  cfg.Timeout,
		random:   cfg.Random,
		session:  rand.Uint64() | 1,
		nudges:   make(map[chan struct{}]struct{}),
	}
	if s.interval == 0 {
		s.interval = DefaultInterval
	}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.random == nil {
		s.random = rand.Float64
	}
	return s
}

func newService(h host.Host, limits Limits, log *slog.Logger, reg prometheus.Registerer) frame.Service {
	if log == nil {
		log = slog.Default()
	}
	return frame.Service{
		Host: h, Protocol: Protocol, Name: ServiceName, Memory: maxBeat + maxAck,
		Limits: limits.Or(DefaultLimits), Metrics: frame.NewMetrics(reg, "heartbeat"), Logger: log,
	}
}

// Nudge makes every Run beat soon instead of at its next period: something in
// the beat has changed. It never blocks; nudges that come together are one.
func (s *Sender) Nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.nudges {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Run beats to one supernode until ctx ends, then says goodbye, which takes at
// most 500 ms, and returns nil. The peerstore must keep the supernode's addresses
// with PermanentAddrTTL: shorter-lived ones go when a supernode that shuts down
// says that it has none left. After any failure it opens a new stream, with pauses of at most 3 s.
// next is called for each beat and onAck for each answer, by one goroutine;
// neither must block.
func (s *Sender) Run(ctx context.Context, to peer.ID, next func() Beat, onAck func(Ack)) error {
	nudge := make(chan struct{}, 1)
	s.mu.Lock()
	s.nudges[nudge] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.nudges, nudge)
		s.mu.Unlock()
	}()
	r := run{Sender: s, to: to, next: next, onAck: onAck, nudge: nudge, retry: frame.NewRetry(), up: true}
	for {
		before := s.service.Connected(to)
		err := r.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if before && !s.service.Connected(to) {
			r.retry.Reset() // the connection was dead, which says nothing of the peer
		}
		s.service.Metrics.Count(err)
		level := slog.LevelDebug
		if r.up { // the first failure of an outage
			level, r.up = slog.LevelWarn, false
		}
		s.service.Logger.Log(ctx, level, "heartbeat failed", "peer", to, "err", err)
		if r.retry.Wait(ctx) != nil {
			return nil
		}
	}
}

// run is one call of Run.
type run struct {
	*Sender
	to    peer.ID
	next  func() Beat
	onAck func(Ack)
	nudge chan struct{}
	retry *frame.Retry
	seq   uint64
	// up says that the supernode answered last, or was not tried yet.
	up bool
}

// connect opens a stream and beats on it until it fails or ctx ends.
func (r *run) connect(ctx context.Context) error {
	st, err := r.service.Open(ctx, r.to)
	if err != nil {
		return err
	}
	in, out := frame.NewReader(st, maxAck), frame.NewWriter(st, maxBeat)
	for {
		wrote := false
		err := frame.Interruptible(ctx, st, r.timeout, func() error {
			b, start := r.next(), time.Now()
			if err := r.write(out, b); err != nil {
				return err
			}
			wrote = true
			return r.read(in, start)
		})
		if ctx.Err() != nil && wrote {
			r.goodbye(st, out)
			return nil
		}
		if err != nil {
			_ = st.Reset()
			return fmt.Errorf("beat %d to %s: %w", r.seq, r.to, err)
		}
		if !r.pause(ctx) {
			r.goodbye(st, out)
			return nil
		}
	}
}

func (r *run) write(out *frame.Writer, b Beat) error {
	r.seq++
	b.Session, b.Seq = r.session, r.seq
	m := beatToProto(b)
	if _, err := beatFromProto(m); err != nil {
		return err
	}
	return out.Write(m)
}

// read takes the answer to the beat that was written at start.
func (r *run) read(in *frame.Reader, start time.Time) error {
	var m pb.Ack
	if err := in.Read(&m); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // a supernode closes only after a goodbye
		}
		return err
	}
	ack, err := ackFromProto(&m)
	if err != nil {
		return err
	}
	if ack.Seq != r.seq {
		return frame.Malformed("acknowledgement of beat %d", ack.Seq)
	}
	if !r.up {
		r.service.Logger.Info("heartbeat answered again", "peer", r.to)
	}
	r.up = true
	ack.RTT = time.Since(start)
	r.retry.Reset()
	r.onAck(ack)
	return nil
}

// pause waits for the next beat's time; false when ctx ended.
func (r *run) pause(ctx context.Context) bool {
	period := time.Duration((0.9 + 0.2*r.random()) * float64(r.interval))
	gap := r.interval / nudgeGap
	if frame.Sleep(ctx, gap) != nil {
		return false
	}
	t := time.NewTimer(period - gap)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-r.nudge:
	case <-t.C:
	}
	return true
}

// goodbye tells the supernode that the peer leaves and waits until it has read
// that, or for goodbyeTimeout.
func (r *run) goodbye(st network.Stream, out *frame.Writer) {
	err := st.SetDeadline(time.Now().Add(goodbyeTimeout))
	if err == nil {
		err = r.write(out, Beat{Goodbye: true})
	}
	if err == nil {
		err = st.CloseWrite()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(st, 2*maxAck))
	}
	if err != nil {
		r.service.Logger.Debug("goodbye failed", "peer", r.to, "err", err)
	}
	_ = st.Close()
}
