// Package supernode hears heartbeats and reports, elects the seeds of every
// task, and publishes who they are. It is never on the data path: no read waits
// for it, and all goes on with what it last published when it is gone.
//
// What it knows is soft. Members beat and report what they hold; a supernode
// that starts again takes a new epoch, asks the first members for what it had
// published before, and has everything again within one heartbeat period. What
// it keeps on disk, a snapshot, only speeds that up, but for the orders of
// operators.
//
// The parts, each pure or without clock and network: members (leases), tasks
// (reports), Wish (what demand asks for), pool, Elect, log (what was published
// and still counts), past (what a former life published), and core, which puts
// them together. Supernode adds clock, network and one lock, under which nothing
// waits.
//
// Who owns a stripe has to be the same for all who compute it, also after seeds
// were added. So a seed that is added carries in its assignment what the seeds
// before it had begun, and owns the rest; a map of 255 runs of stripes says that
// in 32 bytes, and an election needs no memory beyond its last outcome.
//
// Rejected: consensus among supernodes (an assignment is a hint, and a wrong
// one costs one copy); live load in the pool's weights (it would reshuffle
// ownership); an empty pool when the last seed leaves (the last pool is the
// better hint, and a supernode cut off from all would take everybody's away); a
// goodbye of a supernode that stops (all its peers would report everything to
// the next one, and back again a second later).
package supernode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// ErrFull is returned to a peer that reports while there is no place for it.
var ErrFull = errors.New("supernode has no place for another peer")

// Supernode is one supernode. Its methods are safe for concurrent use.
type Supernode struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{}

	heartbeats *heartbeat.Server
	reports    *report.Server
	fetches    *fetch.Server
	fetch      *fetch.Client

	// returned are peers that had beaten to an earlier life of this supernode.
	returned chan peer.ID

	// mu guards the following.
	mu   sync.Mutex
	core *core

	saving sync.Mutex // held while the snapshot is written
}

// New returns a supernode that does nothing before Run. Its epoch starts now.
func New(cfg Config) (*Supernode, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Supernode{
		cfg: cfg, log: cfg.Logger,
		wake:     make(chan struct{}, 1),
		returned: make(chan peer.ID, pastPeers),
		core:     newCore(cfg, cfg.Host.ID(), cfg.Now()),
	}
	if cfg.SnapshotFile != "" {
		saved, err := readSnapshot(cfg.SnapshotFile)
		if err != nil {
			// Peers remember what it had, but for the orders.
			s.log.Warn("cold start: what the last run kept cannot be read, orders have to be given again", "err", err)
		}
		s.core.restore(saved, cfg.Now())
	}
	k := sink{s}
	// One for each peer, and some for those who connect anew meanwhile.
	streams := cfg.MaxPeers + cfg.MaxPeers/4 + 16
	s.heartbeats = heartbeat.NewServer(cfg.Host, k, heartbeat.ServerConfig{
		Idle: (leasePeriods + 1) * cfg.Beat, Limits: heartbeat.Limits{Streams: streams}, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	s.reports = report.NewServer(cfg.Host, k, report.ServerConfig{
		Limits: report.Limits{Streams: streams}, Peers: streams, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	s.fetches = fetch.NewServer(cfg.Host, k, fetch.ServerConfig{Logger: cfg.Logger, Registerer: cfg.Registerer})
	s.fetch = fetch.NewClient(cfg.Host, fetch.ClientConfig{Timeout: pastTimeout, Registerer: cfg.Registerer})
	s.metrics = newMetrics(cfg.Registerer, s)
	return s, nil
}

// Run serves until ctx ends. It joins the swarm's topic, and returns when all
// that it started has ended and the snapshot is written.
func (s *Supernode) Run(ctx context.Context) error {
	topics, err := s.join()
	if err != nil {
		return fmt.Errorf("supernode: %w", errors.Join(err, topics.close()))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.heartbeats.Run(ctx) })
	g.Go(func() error { return s.reports.Run(ctx) })
	g.Go(func() error { return s.fetches.Run(ctx) })
	g.Go(func() error { return s.askPast(ctx) })
	g.Go(func() error { return s.publish(ctx, topics) })
	g.Go(func() error { return s.keepSnapshot(ctx) })
	err = g.Wait()
	if saveErr := s.save(); saveErr != nil {
		s.log.Warn("what is known cannot be kept for the next start", "err", saveErr)
	}
	return errors.Join(err, topics.close())
}

// publish decides and publishes, in steps.
func (s *Supernode) publish(ctx context.Context, to topics) error {
	ticker := time.NewTicker(s.cfg.Batch)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-s.wake:
		}
		signed, updates := s.step()
		if len(signed) == 0 {
			continue
		}
		if err := to.publish(ctx, signed, updates); err != nil && ctx.Err() == nil {
			// The log has them: members find the difference and fetch.
			s.log.Warn("publish failed", "updates", len(signed), "err", err)
		}
	}
}

// step makes one round of decisions and returns what to publish, signed and as it
// is. It is called
// by one goroutine; elections and signatures are made without the lock.
func (s *Supernode) step() ([]assignment.Signed, []assignment.Update) {
	s.mu.Lock()
	plan := s.core.plan(s.cfg.Now())
	s.mu.Unlock()
	elected := Elect(plan.input)
	s.mu.Lock()
	updates := plan.updates
	updates = append(updates, s.core.commit(elected, s.cfg.Now())...)
	s.mu.Unlock()
	if len(updates) == 0 {
		return nil, nil
	}
	signed := make([]assignment.Signed, 0, len(updates))
	kept := updates[:0]
	for _, u := range updates {
		one, err := assignment.Sign(s.cfg.Key, u)
		if err != nil {
			s.log.Error("cannot sign update", "seq", u.Seq, "err", err)
			continue
		}
		signed, kept = append(signed, one), append(kept, u)
		s.metrics.published(u)
	}
	s.mu.Lock()
	for i, u := range kept {
		s.core.log.append(u, signed[i])
	}
	s.mu.Unlock()
	return signed, kept
}

// keepSnapshot writes the snapshot again and again while anything changes.
func (s *Supernode) keepSnapshot(ctx context.Context) error {
	if s.cfg.SnapshotFile == "" {
		return nil
	}
	ticker := time.NewTicker(snapshotEvery)
	defer ticker.Stop()
	var saved uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		s.mu.Lock()
		seq := s.core.log.seq
		s.mu.Unlock()
		if seq == saved {
			continue
		}
		if err := s.save(); err != nil {
			s.log.Warn("what is known cannot be kept for the next start", "err", err)
			continue
		}
		saved = seq
	}
}

// save writes the snapshot, where there is a file for it.
func (s *Supernode) save() error {
	if s.cfg.SnapshotFile == "" {
		return nil
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	now := s.core.snapshot(s.cfg.Now())
	s.mu.Unlock()
	return now.write(s.cfg.SnapshotFile)
}

// askPast asks members what this supernode published before it was started
// again: the first that come back, until one that follows all shards remembers
// anything, and any that speaks of a later epoch.
func (s *Supernode) askPast(ctx context.Context) error {
	self := s.cfg.Host.ID()
	for {
		var from peer.ID
		select {
		case <-ctx.Done():
			return nil
		case from = <-s.returned:
		}
		signed, _, err := s.fetch.Since(ctx, from, []assignment.Cursor{{Supernode: self}}, nil)
		if err != nil {
			s.log.Debug("cannot ask for the past", "peer", from, "err", err)
		}
		entries := open(self, signed)
		s.mu.Lock()
		last := s.core.remember(entries)
		first := s.core.past.asked < pastPeers
		s.core.past.asked++
		// One that follows some shards alone remembers no more than these.
		if m := s.core.members.byID[from]; len(entries) > 0 && (m == nil || m.beat.Prefixes == nil) {
			s.core.past.asked = pastPeers
		}
		s.mu.Unlock()
		s.poke()
		if last > 0 {
			s.log.Warn("the clock has gone back: beginning behind the last epoch", "last", last)
		}
		if len(entries) > 0 {
			s.log.Info("restored the past", "peer", from, "updates", len(entries))
		}
		if first {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pastPause):
		}
	}
}

// askable reports whether a peer that has beaten is to be asked for the past.
func (c *core) askable(m *member, b heartbeat.Beat, joined bool) bool {
	if m == nil || m.asked {
		return false
	}
	return b.Epoch > max(c.epoch, c.behind) || joined && b.Seq > 1 && c.past.asked < pastPeers
}

const (
	// pastPeers is how many members are asked for the past.
	pastPeers = 8
	// pastTimeout bounds each page of an answer.
	pastTimeout = 5 * time.Second
	// pastPause is the time between two questions once the first were answered.
	pastPause = time.Second
)

// poke asks for a step before the next tick.
func (s *Supernode) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sink is the side of a Supernode that its protocol servers see.
type sink struct{ s *Supernode }

// Beat implements heartbeat.Sink.
func (k sink) Beat(from peer.ID, b heartbeat.Beat) heartbeat.Ack {
	s := k.s
	if s.cfg.MaySeed != nil && !s.cfg.MaySeed(from) {
		b.Seed = false
	}
	s.mu.Lock()
	joined, ok := s.core.beat(from, b, s.cfg.Now())
	empty := len(s.core.pool.members) == 0
	if m := s.core.members.byID[from]; ok && s.core.askable(m, b, joined) {
		select {
		case s.returned <- from:
			m.asked = true
		default: // enough to ask
		}
	}
	ack := heartbeat.Ack{
		Cursor:  heartbeat.Cursor{Epoch: s.core.epoch, Seq: s.core.log.seq},
		MapHash: s.core.log.hash(b.Prefixes),
	}
	s.mu.Unlock()
	s.revocations(b, &ack)
	s.metrics.beat(ok)
	if joined {
		s.log.Info("member joined", "peer", from, "site", b.Site, "seed", b.Seed)
	}
	if empty && b.Seed {
		s.poke()
	}
	return ack
}

// revocations takes in what a member tells of, and puts into the acknowledgement
// what it lacks: all, or of many the next ones with each beat.
func (s *Supernode) revocations(b heartbeat.Beat, ack *heartbeat.Ack) {
	set := s.cfg.Revocations
	if set == nil {
		return
	}
	if len(b.Revoked) > 0 && b.RevokedSum != set.Sum() {
		set.Hear(b.Revoked)
	}
	if ack.RevokedSum = set.Sum(); ack.RevokedSum == b.RevokedSum {
		return
	}
	all := set.All()
	if len(all) > revokedPerAck {
		pages := (len(all) + revokedPerAck - 1) / revokedPerAck
		at := int(b.Seq%uint64(pages)) * revokedPerAck
		all = all[at:min(at+revokedPerAck, len(all))]
	}
	ack.Revoked = all
}

// revokedPerAck is how many revocations one acknowledgement tells of: each has
// at most 512 bytes, and 14 KiB are allowed.
const revokedPerAck = 24

// Gone implements heartbeat.Sink.
func (k sink) Gone(from peer.ID, goodbye bool) {
	s := k.s
	s.mu.Lock()
	if goodbye {
		s.core.leave(from)
	} else {
		s.core.members.suspect(from)
	}
	s.mu.Unlock()
	s.log.Info("member gone", "peer", from, "goodbye", goodbye)
}

// Report implements report.Sink.
func (k sink) Report(from peer.ID, r report.Report) error {
	s := k.s
	s.mu.Lock()
	ok := s.core.report(from, r, s.cfg.Now())
	s.mu.Unlock()
	s.metrics.report(ok)
	if !ok {
		return fmt.Errorf("report of %s: %w", from, ErrFull)
	}
	return nil
}

// Since implements fetch.Log.
func (k sink) Since(cursors []assignment.Cursor, want *content.Prefixes, maxBytes int) ([]assignment.Signed, bool) {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	return k.s.core.log.since(cursors, want, maxBytes)
}
