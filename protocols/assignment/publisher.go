package assignment

import (
	"context"
	"errors"
	"fmt"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
)

// Publisher sends signed updates to a topic. It is safe for concurrent use; the
// order of concurrent calls is not defined.
type Publisher struct{ topic *pubsub.Topic }

// NewPublisher joins the topic, which ps must not have joined already: one
// PubSub has one Publisher or one Subscriber of a topic. The caller closes it.
func NewPublisher(ps *pubsub.PubSub, topic string) (*Publisher, error) {
	t, err := ps.Join(topic)
	if err != nil {
		return nil, fmt.Errorf("join topic %s: %w", topic, err)
	}
	return &Publisher{t}, nil
}

// Publish sends the entries, in order, in messages of at most MaxBatch bytes. It
// does not wait for anybody to get them, and gossip may lose or reorder
// messages. It tries all messages and returns what failed.
func (p *Publisher) Publish(ctx context.Context, entries []Signed) error {
	var errs []error
	for _, batch := range batches(entries) {
		b, err := proto.Marshal(&pb.Batch{Signed: Encode(batch)})
		if err == nil {
			err = p.topic.Publish(ctx, b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("publish %d updates to %s: %w", len(batch), p.topic, err))
		}
	}
	return errors.Join(errs...)
}

// Close leaves the topic.
func (p *Publisher) Close() error { return p.topic.Close() }

// batches cuts entries into runs that each fit a message.
func batches(entries []Signed) [][]Signed {
	var out [][]Signed
	start, sum := 0, 0
	for i, s := range entries {
		n := s.Size()
		if i > start && sum+n > MaxBatch {
			out = append(out, entries[start:i:i])
			start, sum = i, 0
		}
		sum += n
	}
	if start < len(entries) {
		out = append(out, entries[start:])
	}
	return out
}
