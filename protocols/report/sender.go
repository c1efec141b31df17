package report

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
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/report/pb"
)

// slowest is the rate, in bytes a second, at which a report comes through at
// least: one that did not fit into its time would be sent again for ever.
const slowest = 16 << 10

// SenderConfig holds what is optional; its zero value is good.
type SenderConfig struct {
	// Timeout of one acknowledgement, besides 1 s for each 16 KiB of the report; 0
	// is DefaultTimeout.
	Timeout time.Duration
	// Pace is the time from one report that was not full to the next; 0 is
	// DefaultPace.
	Pace time.Duration
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Sender reports to one supernode. Enqueue and Drop are safe for concurrent use.
type Sender struct {
	service frame.Service
	metrics *metrics
	timeout time.Duration
	pace    time.Duration
	session uint64
	wake    chan struct{}

	mu sync.Mutex
	// mu guards the following.
	queue queue
	// sent is the report that is not yet acknowledged, seq its number or that
	// of the last one.
	sent *pb.Report
	full bool
	seq  uint64
}

// NewSender returns a sender with a session of its own; it starts nothing.
func NewSender(h host.Host, cfg SenderConfig) *Sender {
	s := &Sender{
		service: newService(h, Limits{}, cfg.Logger, cfg.Registerer),
		metrics: newMetrics(cfg.Registerer),
		timeout: cfg.Timeout,
		pace:    cfg.Pace,
		session: rand.Uint64() | 1,
		wake:    make(chan struct{}, 1),
		queue:   newQueue(),
	}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.pace == 0 {
		s.pace = DefaultPace
	}
	return s
}

func newService(h host.Host, limits Limits, log *slog.Logger, reg prometheus.Registerer) frame.Service {
	if log == nil {
		log = slog.Default()
	}
	return frame.Service{
		Host: h, Protocol: Protocol, Name: ServiceName, Memory: maxReport + maxAck,
		Limits: limits.Or(DefaultLimits), Metrics: frame.NewMetrics(reg, "report"), Logger: log,
	}
}

// Enqueue queues what is held of a task, in the place of what is queued for it.
// It never blocks; at MaxQueue tasks the oldest goes unreported. Present belongs
// to the Sender from then on.
func (s *Sender) Enqueue(h Held) { s.put(item{news: isHeld, held: h}) }

// Drop queues that a task is no longer held, as Enqueue does.
func (s *Sender) Drop(task content.TaskID) {
	s.put(item{news: isDropped, held: Held{Task: task}})
}

// Read queues what others read of a task, beside what is queued of its blocks:
// bytes add up, and of the distinct readers 256 are kept. d.Readers, in
// ascending order, belongs to the Sender from then on.
func (s *Sender) Read(d Demand) {
	s.put(item{held: Held{Task: d.Task}, demand: d})
}

func (s *Sender) put(it item) {
	s.mu.Lock()
	before := s.queue.len()
	lost := s.queue.put(it)
	s.metrics.queued.Add(float64(s.queue.len() - before))
	s.mu.Unlock()
	if lost {
		s.metrics.lost.Inc()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run reports to the supernode until ctx ends, then returns nil; what is queued
// then stays for a next Run. The peerstore must keep the supernode's addresses
// with PermanentAddrTTL: shorter-lived ones go when a supernode that shuts down
// says that it has none left. After any failure it sends the same report again, on a new stream, with pauses
// of at most 3 s. One Run at a time.
func (s *Sender) Run(ctx context.Context, to peer.ID) error {
	r := run{Sender: s, to: to, retry: frame.NewRetry()}
	defer r.hangUp(nil)
	for {
		m, full, again := s.next()
		if m == nil {
			if !r.idle(ctx) {
				return nil
			}
			continue
		}
		if again {
			s.metrics.resent.Inc()
		}
		reused := r.st != nil
		err := r.send(ctx, m)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.hangUp(err)
			s.service.Metrics.Count(err)
			s.service.Logger.Debug("report failed", "peer", to, "seq", m.GetSeq(), "err", err)
			if !reused && r.retry.Wait(ctx) != nil {
				return nil
			}
			continue
		}
		r.retry.Reset()
		s.acknowledge()
		if !full && frame.Sleep(ctx, s.pace) != nil {
			return nil
		}
	}
}

// next returns the report to send: the one that is not acknowledged (again is
// true), or a new one, or nil where nothing waits. full says that there was no
// room for all that waits.
func (s *Sender) next() (m *pb.Report, full, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent != nil {
		return s.sent, s.full, true
	}
	m = &pb.Report{Session: s.session, Seq: s.seq + 1}
	room, tasks := reportRoom, 0
	for {
		it, ok := s.queue.oldest()
		if !ok || tasks == maxTasks {
			full = ok
			break
		}
		size, add, err := encode(it)
		if err == nil && size > room {
			full = true
			break
		}
		s.queue.pop()
		s.metrics.queued.Dec()
		if err != nil {
			s.metrics.refused.Inc()
			s.service.Logger.Warn("task cannot be reported", "task", it.held.Task, "err", err)
			continue
		}
		add(m)
		room -= size
		tasks++
	}
	if tasks == 0 {
		return nil, false, false
	}
	s.seq++
	s.sent, s.full = m, full
	return m, full, false
}

// encode returns the size of an item in a report, and what adds it.
func encode(it item) (size int, add func(*pb.Report), err error) {
	const overhead = 4 // tag and length
	task := it.held.Task
	var held *pb.Held
	var demand *pb.Demand
	switch it.news {
	case isHeld:
		if held, err = heldToProto(it.held); err != nil {
			return 0, nil, err
		}
		size += overhead + proto.Size(held)
	case isDropped:
		size += overhead + len(task)
	}
	if it.demand.Bytes > 0 || len(it.demand.Readers) > 0 {
		it.demand.Task = task
		demand = demandToProto(it.demand)
		if _, err := demandFromProto(demand); err != nil {
			return 0, nil, err
		}
		size += overhead + proto.Size(demand)
	}
	return size, func(m *pb.Report) {
		switch it.news {
		case isHeld:
			m.Held = append(m.Held, held)
		case isDropped:
			m.Dropped = append(m.Dropped, task[:])
		}
		if demand != nil {
			m.Demand = append(m.Demand, demand)
		}
	}, nil
}

func (s *Sender) acknowledge() {
	s.mu.Lock()
	s.sent = nil
	s.mu.Unlock()
	s.metrics.acknowledged.Inc()
}

// run is one call of Run: the supernode and the stream to it, if one is open.
type run struct {
	*Sender
	to    peer.ID
	retry *frame.Retry
	st    network.Stream
}

// send sends one report and waits until it is acknowledged.
func (r *run) send(ctx context.Context, m *pb.Report) error {
	if r.st == nil {
		st, err := r.service.Open(ctx, r.to)
		if err != nil {
			return err
		}
		r.st = st
	}
	err := frame.Interruptible(ctx, r.st, r.patience(m), func() error {
		if err := frame.NewWriter(r.st, maxReport).Write(m); err != nil {
			return err
		}
		var ack pb.Ack
		if err := frame.NewReader(r.st, maxAck).Read(&ack); err != nil {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if ack.GetSeq() != m.GetSeq() {
			return frame.Malformed("acknowledgement of report %d", ack.GetSeq())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("report %d to %s: %w", m.GetSeq(), r.to, err)
	}
	return nil
}

// patience is how long the acknowledgement of a report may take.
func (s *Sender) patience(m *pb.Report) time.Duration {
	return s.timeout + time.Duration(proto.Size(m))*time.Second/slowest
}

// idle waits until something is queued; false when ctx ended. The stream is
// closed before the server's patience ends.
func (r *run) idle(ctx context.Context) bool {
	t := time.NewTimer(DefaultIdle * 2 / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-r.wake:
			return true
		case <-t.C:
			r.hangUp(nil)
		}
	}
}

// hangUp closes the stream, if one is open, or resets it after an error.
func (r *run) hangUp(err error) {
	if r.st == nil {
		return
	}
	if err != nil {
		_ = r.st.Reset()
	} else {
		_ = r.st.Close()
	}
	r.st = nil
}
