package assignment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

const (
	// validators bounds the messages that are validated at once, and so their
	// memory: 4 MiB. Beyond it GossipSub drops messages; fetch repairs that.
	validators = 256
	// queued bounds the messages that wait for the sink: 4 MiB. Beyond it
	// GossipSub drops messages; fetch repairs that.
	queued = 256
)

// Sink takes the updates that a Subscriber accepts: verified, of trusted
// supernodes, each once, in no order. Apply is called by one goroutine for each
// topic; while it runs no more of that topic are delivered, so it must not wait
// for anything.
type Sink interface {
	Apply(Signed, Update)
}

// SubscriberConfig holds what is optional; its zero value is good.
type SubscriberConfig struct {
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Subscriber receives the updates of a topic. Its validator rejects what is
// malformed, badly signed or untrusted, and ignores messages with nothing new,
// so that neither is passed on.
type Subscriber struct {
	ps      *pubsub.PubSub
	topic   string
	trusted func(peer.ID) bool
	sink    Sink
	log     *slog.Logger
	metrics *metrics
	windows windows
}

// NewSubscriber returns a subscriber; it joins nothing before Run. trusted is
// called from several goroutines.
func NewSubscriber(ps *pubsub.PubSub, topic string, trusted func(peer.ID) bool, sink Sink, cfg SubscriberConfig) *Subscriber {
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Subscriber{ps: ps, topic: topic, trusted: trusted, sink: sink, log: log, metrics: newMetrics(cfg.Registerer)}
}

// opened is an update that passed the validator.
type opened struct {
	Signed
	Update
}

// Run joins the topic and delivers updates until ctx ends, then leaves it. The
// PubSub must not have joined the topic already.
func (s *Subscriber) Run(ctx context.Context) error { return s.Follow(ctx, s.topic) }

// Follow does what Run does with another topic, that of a shard.
func (s *Subscriber) Follow(ctx context.Context, name string) (err error) {
	if err := s.ps.RegisterTopicValidator(name, s.validate, pubsub.WithValidatorConcurrency(validators)); err != nil {
		return fmt.Errorf("register validator of %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, leave(s.ps.UnregisterTopicValidator(name))) }()
	topic, err := s.ps.Join(name)
	if err != nil {
		return fmt.Errorf("join topic %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, leave(topic.Close())) }()
	sub, err := topic.Subscribe(pubsub.WithBufferSize(queued))
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", name, err)
	}
	defer sub.Cancel()
	for {
		msg, err := sub.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive from %s: %w", name, err)
		}
		updates, _ := msg.ValidatorData.([]opened)
		for _, o := range updates {
			s.sink.Apply(o.Signed, o.Update)
		}
	}
}

// leave drops the error of leaving a PubSub that has ended by itself.
func leave(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// validate is the topic's validator. What it opened goes with the message.
func (s *Subscriber) validate(_ context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	updates, err := s.open(msg.GetData())
	switch {
	case err != nil:
		s.metrics.rejected.WithLabelValues(reason(err)).Inc()
		s.log.Debug("rejected assignments", "peer", from, "len", len(msg.GetData()), "err", err)
		return pubsub.ValidationReject
	case len(updates) == 0:
		s.metrics.ignored.Inc()
		return pubsub.ValidationIgnore
	}
	s.metrics.accepted.Add(float64(len(updates)))
	msg.ValidatorData = updates
	return pubsub.ValidationAccept
}

// open returns the updates of a batch that are fresh. One bad entry spoils the
// batch, for nobody honest passes on a batch that holds one. A signature is not
// looked at where the cursor says that there is nothing new.
func (s *Subscriber) open(data []byte) ([]opened, error) {
	if len(data) > MaxBatch {
		return nil, fmt.Errorf("%w: batch of %d bytes, at most %d", frame.ErrTooLarge, len(data), MaxBatch)
	}
	var m pb.Batch
	if err := frame.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	entries, err := Decode(m.GetSigned())
	if err != nil {
		return nil, err
	}
	var out []opened
	for _, e := range entries {
		c, err := e.Cursor()
		if err != nil {
			return nil, err
		}
		if !s.windows.fresh(c) {
			continue
		}
		u, err := e.Open(s.trusted)
		if err != nil {
			return nil, err
		}
		out = append(out, opened{e, u})
	}
	// Marked only now: a batch that is rejected must not spoil its good entries.
	fresh := out[:0]
	for _, o := range out {
		if s.windows.mark(o.Update.Cursor) {
			fresh = append(fresh, o)
		}
	}
	return fresh, nil
}

// reason is the metric label of a rejection.
func reason(err error) string {
	switch {
	case errors.Is(err, ErrUntrusted):
		return "untrusted"
	case errors.Is(err, ErrSignature):
		return "signature"
	case errors.Is(err, frame.ErrTooLarge):
		return "oversized"
	default:
		return "malformed"
	}
}
