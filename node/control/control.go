// Package control is the node's side of the control plane: it tells the
// supernodes that this node lives and what it holds, and keeps the seed map as
// the supernodes publish it.
//
// Everything here is asynchronous. Nothing that serves a read waits for it: a
// read uses the map as it is, and a report waits in a queue.
//
// The map is fed in three ways, and each entry is signed, so all are equally
// good. Gossip brings what is new. The hash in the acknowledgement of each
// heartbeat shows what gossip lost, which is then fetched from the supernode.
// A node that no supernode answers fetches from its neighbours; every node
// serves what its map holds. Where supernodes publish in shards the map says which
// are followed: gossip, hash and fetch are then about these alone.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// Control runs the clients of the control protocols. Its methods are safe for
// concurrent use and never block.
type Control struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	subscriber *assignment.Subscriber
	beats      *heartbeat.Sender
	client     *fetch.Client
	server     *fetch.Server

	links   map[peer.ID]*link
	members []content.Member // the supernodes, for ranking
	acked   atomic.Int64     // when any supernode answered last, Unix ns; 0 never
	demand  demand

	left     chan struct{} // closed by Leave
	leftOnce sync.Once

	ready     chan struct{}
	readyOnce sync.Once
}

// New returns a Control that does nothing before Run.
func New(cfg Config) (*Control, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Control{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer),
		links: make(map[peer.ID]*link, len(cfg.Supernodes)),
		left:  make(chan struct{}),
		ready: make(chan struct{}),
	}
	c.subscriber = assignment.NewSubscriber(cfg.PubSub, assignment.Topic(cfg.Swarm), c.trusted, applier{c},
		assignment.SubscriberConfig{Logger: cfg.Logger, Registerer: cfg.Registerer})
	c.beats = heartbeat.NewSender(cfg.Host, heartbeat.SenderConfig{
		Interval: cfg.Interval, Random: cfg.Random, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	c.client = fetch.NewClient(cfg.Host, fetch.ClientConfig{Registerer: cfg.Registerer})
	c.server = fetch.NewServer(cfg.Host, cfg.Map, fetch.ServerConfig{Logger: cfg.Logger, Registerer: cfg.Registerer})
	for _, s := range cfg.Supernodes {
		c.links[s.ID] = newLink(c, s)
		c.members = append(c.members, content.Member{ID: s.ID, Weight: 1})
	}
	return c, nil
}

// Run keeps the map up to date until ctx ends, and beats and reports until then
// or until Leave. It ends that with a goodbye, which takes at most 500 ms, and
// returns when all that it started has ended. An unreachable supernode is no
// error.
func (c *Control) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.subscriber.Run(ctx) })
	g.Go(func() error { return c.server.Run(ctx) })
	g.Go(func() error { return c.keepAsking(ctx) })
	g.Go(func() error { return c.followShards(ctx) })
	for _, l := range c.links {
		c.cfg.Host.Peerstore().AddAddrs(l.peer.ID, l.peer.Addrs, peerstore.PermanentAddrTTL)
		g.Go(func() error { return l.repair(ctx) })
	}
	g.Go(func() error { return c.tell(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// tell beats and reports until ctx ends or this node leaves. The goodbye is the
// last word: a report behind it would make the node a member again.
func (c *Control) tell(ctx context.Context) error {
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	beating, hush := context.WithCancel(context.WithoutCancel(ctx))
	defer hush()
	var reports, beats errgroup.Group
	reports.Go(func() error { return c.reportDemand(reporting) })
	reports.Go(func() error { return c.followDeaths(reporting) })
	for _, l := range c.links {
		beats.Go(func() error { return c.beats.Run(beating, l.peer.ID, l.beat, l.acknowledged) })
		reports.Go(func() error { return l.reports.Run(reporting, l.peer.ID) })
		reports.Go(func() error { return l.reportAll(reporting) })
		reports.Go(func() error { return l.settle(reporting) })
	}
	select {
	case <-ctx.Done():
	case <-c.left:
	}
	stop()
	err := reports.Wait()
	hush()
	return errors.Join(err, beats.Wait())
}

// Leave says goodbye to the supernodes, some time soon, so that this node gets
// no new duty and the seeds of its tasks are elected anew while it still serves
// who reads from it. The map goes on being kept. It may be called at any time,
// also again.
func (c *Control) Leave() { c.leftOnce.Do(func() { close(c.left) }) }

// Ready returns a channel that is closed once the map has a seed pool.
func (c *Control) Ready() <-chan struct{} { return c.ready }

// Nudge makes the next heartbeat go out soon: what it says has changed.
func (c *Control) Nudge() { c.beats.Nudge() }

// Report tells the task's supernode what this node holds of it, some time soon,
// in the place of what it has not yet told. h.Present must not be changed
// afterwards.
func (c *Control) Report(h report.Held) {
	c.cfg.Map.Use(h.Task)
	if l := c.linkOf(h.Task); l != nil {
		l.reports.Enqueue(h)
	}
}

// Dropped tells the task's supernode that this node holds nothing of it any
// more, as Report does.
func (c *Control) Dropped(task content.TaskID) {
	if l := c.linkOf(task); l != nil {
		l.reports.Drop(task)
	}
}

// linkOf returns the link to the supernode that a task is reported to: of the
// configured ones the first in the task's ranking that was heard of lately, so
// that another stands in for one that is gone, or else just the first. It is nil
// where none is configured.
func (c *Control) linkOf(task content.TaskID) *link {
	now := time.Now().UnixNano()
	var best *link
	var bestScore float64
	fresh := false
	for _, m := range c.members {
		l, score := c.links[m.ID], content.Score(task[:], m)
		lives := l.fresh(now)
		if best == nil || lives && !fresh || lives == fresh && (score > bestScore || score == bestScore && m.ID < best.peer.ID) {
			best, bestScore, fresh = l, score, lives
		}
	}
	return best
}

// followDeaths reports anew whenever a supernode is given up, to those that
// stand in for it, or is back.
func (c *Control) followDeaths(ctx context.Context) error {
	if len(c.links) < 2 {
		return nil
	}
	before := make(map[*link]bool)
	for sleep(ctx, c.cfg.Interval) {
		now := time.Now().UnixNano()
		changed := false
		for _, l := range c.links {
			if lives := l.fresh(now); lives != before[l] {
				before[l], changed = lives, true
			}
		}
		for _, l := range c.links {
			if changed && before[l] {
				signal(l.forgot)
			}
		}
	}
	return nil
}

// trusted reports whether a signer of updates is believed.
func (c *Control) trusted(id peer.ID) bool {
	return c.links[id] != nil && (c.cfg.Believed == nil || c.cfg.Believed(id))
}

// applier is Control as the sink of its subscriber.
type applier struct{ c *Control }

// Apply implements assignment.Sink.
func (a applier) Apply(s assignment.Signed, u assignment.Update) { a.c.apply(s, u) }

func (c *Control) apply(s assignment.Signed, u assignment.Update) {
	c.cfg.Map.Apply(s, u)
	if u.Pool != nil && len(c.cfg.Map.Pool()) > 0 {
		c.readyOnce.Do(func() { close(c.ready) })
	}
}

// Status is how a supernode looks from here.
type Status struct {
	Supernode peer.ID `json:"supernode"`
	// Connected says that the last heartbeat was answered in time.
	Connected bool `json:"connected"`
	// Epoch and Seq are the last update that it told of.
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// AckMs is the time since its last answer in milliseconds; -1 for never.
	AckMs int64 `json:"ack_ms"`
	// RTTMs is how long the quickest of its last answers took, in milliseconds; 0
	// where there was none.
	RTTMs float64 `json:"rtt_ms"`
	// ClockMs is by how many milliseconds its clock is ahead of this node's, give
	// or take half of RTTMs; nil where it did not tell.
	ClockMs *float64 `json:"clock_ms,omitempty"`
}

// Status returns the links to the supernodes, in the order of the Config.
func (c *Control) Status() []Status {
	out := make([]Status, 0, len(c.cfg.Supernodes))
	for _, s := range c.cfg.Supernodes {
		out = append(out, c.links[s.ID].status(time.Now()))
	}
	return out
}
