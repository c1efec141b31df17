package control

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// followFor is how long a shard is followed at least after a task in it was used
// last, and twice that at most.
const followFor = 15 * time.Minute

// following is a topic of a shard while it is joined.
type following struct {
	stop context.CancelFunc
	done chan struct{}
}

// followShards joins the topics of the shards that the map wants, where a
// supernode publishes in several, and leaves the others. What it joins late it
// fetches.
func (c *Control) followShards(ctx context.Context) error {
	joined := make(map[string]following)
	defer func() {
		for _, f := range joined {
			f.stop()
			<-f.done
		}
	}()
	period := time.NewTicker(followFor)
	defer period.Stop()
	for {
		over := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.cfg.Map.Reconsider():
		case <-period.C:
			over = true
		}
		added := c.cfg.Map.Follow(over)
		if over { // what is held is used
			for _, h := range c.cfg.AllHeld() {
				c.cfg.Map.Use(h.Task)
			}
		}
		c.joinTopics(ctx, joined, c.topics())
		if added != nil {
			c.catchUp(ctx, added)
		}
	}
}

// topics returns those of the shards that are followed.
func (c *Control) topics() []string {
	follows := c.cfg.Map.Follows()
	if follows == nil {
		follows = &content.AllPrefixes
	}
	var out []string
	for _, n := range c.cfg.Map.Shards() {
		for _, shard := range follows.Shards(n) {
			out = append(out, assignment.ShardTopic(c.cfg.Swarm, n, shard))
		}
	}
	return out
}

// joinTopics makes joined those that are wanted. It waits until those it leaves
// are left, so that each can be joined again.
func (c *Control) joinTopics(ctx context.Context, joined map[string]following, wanted []string) {
	for name, f := range joined {
		if !slices.Contains(wanted, name) {
			f.stop()
			<-f.done
			delete(joined, name)
		}
	}
	for _, name := range wanted {
		if _, ok := joined[name]; ok {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		f := following{cancel, make(chan struct{})}
		joined[name] = f
		go func() {
			defer close(f.done)
			if err := c.subscriber.Follow(ctx, name); err != nil {
				// The hash finds what its gossip would have brought.
				c.log.Warn("shard not followed", "topic", name, "err", err)
			}
		}()
	}
	c.metrics.topics.Set(float64(len(joined)))
}

// catchUp fetches all that is assigned of tasks that are followed newly: from a
// neighbour that follows all, else from the supernodes. What is still missing the
// next hash shows.
func (c *Control) catchUp(ctx context.Context, added *content.Prefixes) {
	cursors := c.cfg.Map.Cursors()
	for i := range cursors {
		cursors[i].Seq = 0
	}
	asked, cancel := context.WithTimeout(ctx, neighbourTime)
	defer cancel()
	if from := c.someNeighbour(); from == "" || !c.fetch(asked, from, cursors, added) {
		for id, l := range c.links {
			if l.status(time.Now()).Connected {
				c.fetch(ctx, id, cursors, added)
			}
		}
	}
	c.beats.Nudge() // the next answer is about what is followed now
}

// someNeighbour returns a neighbour to ask for what is missing: any one, but of
// the pool where not all is published to all; "" for none.
func (c *Control) someNeighbour() peer.ID {
	peers := c.cfg.Neighbours()
	if len(c.cfg.Map.Shards()) > 0 {
		pool := make(map[peer.ID]bool)
		for _, p := range c.cfg.Map.Pool() {
			pool[p.ID] = true
		}
		peers = slices.DeleteFunc(slices.Clone(peers), func(id peer.ID) bool { return !pool[id] })
	}
	if len(peers) == 0 {
		return ""
	}
	return peers[rand.IntN(len(peers))]
}
