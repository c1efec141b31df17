package supernode

import (
	"context"
	"errors"

	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// topics are those that a supernode publishes to: the swarm's, for what is for
// all, and behind it, where tasks are cut into several shards, one for each.
type topics []*assignment.Publisher

// join joins them. On an error those that were joined are returned too.
func (s *Supernode) join() (topics, error) {
	names := []string{assignment.Topic(s.cfg.Swarm)}
	if n := s.cfg.Shards; n > 1 {
		for shard := range n {
			names = append(names, assignment.ShardTopic(s.cfg.Swarm, n, shard))
		}
	}
	var joined topics
	for _, name := range names {
		p, err := assignment.NewPublisher(s.cfg.PubSub, name)
		if err != nil {
			return joined, err
		}
		joined = append(joined, p)
	}
	return joined, nil
}

// of returns the place of the topic of an update.
func (t topics) of(u assignment.Update) int {
	if len(u.Assigns) == 0 || len(t) == 1 {
		return 0
	}
	return 1 + u.Assigns[0].Task.Shard(len(t)-1)
}

// publish publishes each update to its topic, in their order. It tries all and
// returns what failed.
func (t topics) publish(ctx context.Context, signed []assignment.Signed, updates []assignment.Update) error {
	parts := make([][]assignment.Signed, len(t))
	for i, u := range updates {
		at := t.of(u)
		parts[at] = append(parts[at], signed[i])
	}
	var errs []error
	for i, part := range parts {
		if len(part) > 0 {
			errs = append(errs, t[i].Publish(ctx, part))
		}
	}
	return errors.Join(errs...)
}

// close leaves them.
func (t topics) close() error {
	var errs []error
	for _, p := range t {
		if err := p.Close(); !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
