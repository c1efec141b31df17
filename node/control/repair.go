package control

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

const (
	// gossipTime is what gossip gets to bring what an acknowledgement speaks of
	// before it is fetched.
	gossipTime = 300 * time.Millisecond
	// firstPause and lastPause bound the pause between two fetches of a whole
	// map that did not make it agree.
	firstPause, lastPause = time.Second, 5 * time.Minute
	// supernodeTime is what the supernodes get to answer a node that has no pool
	// before it asks its neighbours.
	supernodeTime = time.Second
	// askFirst and askLast bound the pause between two rounds of questions to
	// the neighbours, of a node that has no pool.
	askFirst, askLast = 250 * time.Millisecond, 5 * time.Second
	// askPeers is how many neighbours one round asks, at most.
	askPeers = 3
	// neighbourTime is what a neighbour gets to tell what gossip lost before the
	// supernode is asked.
	neighbourTime = time.Second
	// silentRound is the pause, in heartbeat periods, between rounds of a node
	// that has a pool and hears no supernode.
	silentRound = 6
)

// repair fetches what the map lacks of one supernode: what gossip lost, and at
// the start all. What a node that has a map lacks it asks of a neighbour first,
// at a moment of its own: where gossip lost a message for all, some ask the
// supernode, and the others have it from them.
func (l *link) repair(ctx context.Context) error {
	var pause time.Duration
	var next time.Time // no whole map before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.differs:
		}
		if l.hasPool() && !sleep(ctx, gossipTime+l.jitter(l.cfg.Interval/5)) {
			return nil
		}
		if l.compare() == outdated {
			l.beats.Nudge()
			continue
		}
		if l.compare() == same || l.hasPool() && l.askOne(ctx) && l.compare() == same {
			continue
		}
		l.fetch(ctx, l.peer.ID, l.cfg.Map.Cursors(), l.cfg.Map.Follows())
		if l.compare() != different {
			pause = 0
			continue
		}
		if ctx.Err() != nil || time.Now().Before(next) {
			continue
		}
		// The cursor is past something that is not there: fetch all. Where the
		// answer did not come, the next acknowledgement is soon enough to ask again;
		// only where it came and did not help, asking again is put off.
		if complete := l.fetch(ctx, l.peer.ID, l.fromStart(), l.cfg.Map.Follows()); !complete || l.compare() != different {
			pause = 0
			continue
		}
		pause = min(max(2*pause, firstPause), lastPause)
		next = time.Now().Add(pause)
		l.log.Debug("map differs from supernode's", "supernode", l.peer.ID, "pause", pause)
	}
}

// askOne asks one neighbour, any, for what is missing. It reports whether one
// has told.
func (l *link) askOne(ctx context.Context) bool {
	from := l.someNeighbour()
	if from == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, neighbourTime)
	defer cancel()
	return l.fetch(ctx, from, l.cfg.Map.Cursors(), l.cfg.Map.Follows())
}

// fromStart returns the map's cursors, but this supernode's at the start of its
// epoch.
func (l *link) fromStart() []assignment.Cursor {
	cursors := l.cfg.Map.Cursors()
	for i := range cursors {
		if cursors[i].Supernode == l.peer.ID {
			cursors[i].Seq = 0
		}
	}
	return cursors
}

// fetch asks a peer for what is behind the cursors of the tasks that want names,
// nil for all, applies what is trusted, and reports whether the peer gave all
// that it has.
func (c *Control) fetch(ctx context.Context, from peer.ID, cursors []assignment.Cursor, want *content.Prefixes) bool {
	if c.links[from] != nil {
		c.metrics.asked.WithLabelValues("supernode").Inc()
	} else {
		c.metrics.asked.WithLabelValues("neighbour").Inc()
	}
	entries, complete, err := c.client.Since(ctx, from, cursors, want)
	for _, s := range entries {
		u, err := s.Open(c.trusted)
		if err != nil {
			c.metrics.refused.Inc()
			c.log.Debug("refused fetched update", "peer", from, "err", err)
			continue
		}
		c.apply(s, u)
	}
	c.metrics.fetched.Add(float64(len(entries)))
	if err != nil && ctx.Err() == nil {
		c.log.Debug("fetch failed", "peer", from, "err", err)
	}
	return err == nil && complete
}

// keepAsking asks for the map while it has no pool, or while no supernode
// answers: first the supernodes, who may have published before this node heard
// their gossip, and then neighbours too.
func (c *Control) keepAsking(ctx context.Context) error {
	start := time.Now()
	wait, pause := askFirst, askFirst
	for sleep(ctx, wait) {
		if c.heard() && c.hasPool() {
			wait, pause = c.cfg.Interval, askFirst
			continue
		}
		c.askSupernodes(ctx)
		if time.Since(start) >= supernodeTime {
			c.askNeighbours(ctx)
		}
		if c.hasPool() {
			wait, pause = silentRound*c.cfg.Interval+c.jitter(c.cfg.Interval), askFirst
			continue
		}
		wait = pause + c.jitter(pause)
		pause = min(2*pause, askLast)
	}
	return nil
}

// askSupernodes asks those who answer heartbeats.
func (c *Control) askSupernodes(ctx context.Context) {
	for id, l := range c.links {
		if l.status(time.Now()).Connected {
			c.fetch(ctx, id, c.cfg.Map.Cursors(), c.cfg.Map.Follows())
		}
	}
}

// askNeighbours asks some neighbours, in random order, until one has answered
// and there is a pool.
func (c *Control) askNeighbours(ctx context.Context) {
	peers := c.cfg.Neighbours()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, id := range peers[:min(len(peers), askPeers)] {
		if c.fetch(ctx, id, c.cfg.Map.Cursors(), c.cfg.Map.Follows()) && c.hasPool() {
			return
		}
	}
}

// heard reports whether any supernode has answered lately.
func (c *Control) heard() bool {
	last := c.acked.Load()
	return last != 0 && time.Since(time.Unix(0, last)) <= silentPeriods*c.cfg.Interval
}

func (c *Control) hasPool() bool { return len(c.cfg.Map.Pool()) > 0 }

// jitter returns a random part of d.
func (c *Control) jitter(d time.Duration) time.Duration {
	return time.Duration(c.cfg.Random() * float64(d))
}
