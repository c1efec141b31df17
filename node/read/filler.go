package read

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// Source is a seed to ask for a stripe.
type Source struct {
	Peer peer.ID
	// Held says that it stands at this node's site and does not own the stripe: it
	// is asked for what it holds. What it has not it would bring over the uplink,
	// while one of the site does so already; see Map.Gateway.
	Held bool
}

// Map knows the seeds of tasks.
type Map interface {
	// Sources appends those to ask for a stripe to dst, best first: this
	// node itself, first, where it owns the stripe; skip are not among them.
	Sources(dst []Source, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []Source
	// Gateway returns the peer, but for skip, through which all of this node's
	// site reads a stripe; false where that is this node, or there is no need.
	Gateway(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool)
	// SiteReader returns who that is, this node or another, also where an owner at
	// the site leaves no need for it.
	SiteReader(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool)
	// Owner returns the seed, but for skip, that reads a stripe from the origin.
	Owner(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool)
	// StandIn returns who is to read a stripe from the origin where all seeds of
	// the task are in skip; false where a seed is left, or nobody.
	StandIn(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool)
	// IsSeed reports whether this node is a seed of the task.
	IsSeed(task content.TaskID) bool
	// Previous appends the peers to dst that owned a stripe a moment ago, under
	// earlier maps and but for skip, the last first.
	Previous(dst []peer.ID, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []peer.ID
	// MayGrant reports whether a peer is a seed by the word of a supernode, now or
	// a few minutes ago: it may see credentials.
	MayGrant(p peer.ID) bool
	// Version of the map, for requests.
	Version() (epoch, seq uint64)
}

// Health hears how peers answered, and knows whom not to wait for.
//
// Success is told after what time the first byte came, or after what time the
// peer may be asked again where it was busy.
type Health interface {
	Success(p peer.ID, firstByte time.Duration)
	Failure(p peer.ID)
	// Wrong hears of a peer that sent wrong bytes, or nothing but WAIT for too long;
	// false where it was banned for such already.
	Wrong(p peer.ID) bool
	// Doubtful reports whether a peer has failed and not succeeded since; Probe
	// whether it is time to see if it is back, and the caller is to do it.
	Doubtful(p peer.ID) bool
	Probe(p peer.ID) bool
}

// Providers finds peers that announced a task, and makes them reachable.
type Providers interface {
	Find(ctx context.Context, task content.TaskID) []peer.ID
	// Neighbours returns the members at this node's site that are connected, in any
	// order. What they hold nobody may have announced.
	Neighbours() []peer.ID
	// Met makes a peer reachable to which a source referred.
	Met(info peer.AddrInfo)
}

// FillerConfig configures a Filler. All interfaces are required.
type FillerConfig struct {
	Self      peer.ID
	Client    *rangeread.Client
	Origin    *origin.Client
	Map       Map
	Health    Health
	Providers Providers
	// Seed says that this node reads origins as a seed.
	Seed bool
	// Fallback lets this node read the origin when every source failed.
	Fallback bool
	// Start is how long after NewFiller the map may still be incomplete: until
	// then a fill for a client of this node that finds no source looks again,
	// instead of failing. 0: it fails.
	Start time.Duration
	// Again is for how long a fill for a client of this node looks again whose
	// sources were silent or could not be reached: one of the two may just have
	// moved. 0: not at all.
	Again time.Duration
	// Redial hears of a source that could not be reached before it may be asked
	// again: pauses between dials to it are to end. Nil for nobody.
	Redial func(peer.ID)
	// Pace is told of n bytes that came from a peer, "" for an origin, and waits
	// until more may come, or returns an error when ctx ends; nil for none.
	Pace func(ctx context.Context, from peer.ID, n int) error
	// Logger; nil discards. Registerer; nil for none.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Filler implements seed.Filler.
type Filler struct {
	cfg     FillerConfig
	log     *slog.Logger
	metrics *metrics
	probes  chan probe
	started time.Time
	closed  *closed
}

// NewFiller returns a filler. Its Run sees whether peers that failed are back.
func NewFiller(cfg FillerConfig) *Filler {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Pace == nil {
		cfg.Pace = func(context.Context, peer.ID, int) error { return nil }
	}
	if cfg.Redial == nil {
		cfg.Redial = func(peer.ID) {}
	}
	return &Filler{cfg: cfg, log: log, metrics: newMetrics(cfg.Registerer), probes: make(chan probe, maxProbes), started: time.Now(), closed: newClosed()}
}

// Bounds of one fill.
const (
	busyTries = 20
	busyDelay = 50 * time.Millisecond
	// busyTime bounds the waits for busy peers: one that stays so for longer is as
	// good as gone, and would hold its readers up with each block anew.
	busyTime = 5 * time.Second
	// overruleTime bounds, in all, the waits for owners that are left out one after
	// the other.
	overruleTime = 3 * busyTime
	// ownerTries bounds how often an owner is asked again that had nothing: a
	// map reaches everybody within that time.
	ownerTries = 20
	originRead = 64 << 10
	// retryAfter is when an origin may be asked again that failed and did not
	// say: it has been tried more than once.
	retryAfter = time.Second
	// lookAgain is the time between tries while the map may be incomplete, or
	// sources on their way back.
	lookAgain = 200 * time.Millisecond
	// maxNear is how many neighbours at the site a fill that finds no source asks
	// for what they hold, maxNearFirst how many before it asks the origin in place
	// of a seed that is dead.
	maxNear      = 8
	maxNearFirst = 4
)

// fill is the state of one Fill.
type fill struct {
	*Filler
	job     *seed.Job
	dead    []peer.ID // told to later sources
	doubted []peer.ID // those among them that were not asked: the last resort
	lost    []peer.ID // those that were silent, or could not be reached
	failed  map[peer.ID]bool
	lacked  map[peer.ID]bool // had nothing, and were not to fetch it
	recheck map[peer.ID]bool // asked once more, after wrong bytes
	busy    int
	waited  time.Duration    // for those that were
	noFill  bool             // the origin refused: only what peers hold
	looked  bool             // in the DHT
	former  map[peer.ID]bool // asked for what they hold, as previous owners
	found   []peer.ID
	near    []peer.ID        // neighbours that are still to be asked for what they hold
	nearby  peer.ID          // the one among them that is asked now
	holders []peer.ID        // to whom a source referred, still to be asked
	holder  peer.ID          // the one among them that is asked now
	unheld  map[peer.ID]bool // holders that had nothing; as seeds they may have yet
	refers  int              // how often a source referred
	last    error
	gateway peer.ID // who is asked to read for this node's site, if anybody is
	// holds is the seed at this node's site that is asked for what it holds alone.
	holds peer.ID
	// siteReader is the one among the former that reads for this node's site.
	siteReader peer.ID
	private    bool // a source wants a grant, or a better one
	theirs     bool // who asks is to fetch it
	ownerAsks  int  // how often an owner was asked again that had nothing
	overruled  int  // how often overrule went on
	// overruledAt is when it first did.
	overruledAt time.Time
	refused     *seed.OriginError
	changed     error // what one peer says, and another is asked about
}

// Fill implements seed.Filler.
func (r *Filler) Fill(ctx context.Context, job *seed.Job) error {
	var lostAt time.Time // when the first source was lost since anything came
	for {
		before := job.Pos()
		lost, err := r.fill(ctx, job)
		if len(lost) > 0 && (lostAt.IsZero() || job.Pos() > before) {
			lostAt = time.Now()
		}
		if err == nil || ctx.Err() != nil || !job.ForClient() || !r.again(err, len(lost) > 0, lostAt) {
			return err
		}
		if err := sleep(ctx, lookAgain); err != nil {
			return err
		}
		job.Refused(nil)
		for _, p := range lost {
			r.cfg.Redial(p)
		}
	}
}

// errTheirs: one of those for whom the fill runs is to fetch the bytes. He waits for
// this fill, so that it must not wait for him, nor for better times.
var errTheirs = errors.New("who asks is to fetch it")

// again reports whether a fill that failed is to go through the sources once more:
// while the map may be incomplete, or for those that were lost. It is only for
// clients of this node: peers that waited for one another would add up. Who has
// asked an origin, or could have, does not wait for peers.
func (r *Filler) again(err error, lost bool, since time.Time) bool {
	if errors.Is(err, errTheirs) {
		return false
	}
	var refused *seed.OriginError
	alone := errors.Is(err, seed.ErrUnavailable)
	if time.Since(r.started) <= r.cfg.Start && (alone || errors.As(err, &refused) && refused.Status == 0) {
		return true
	}
	return alone && lost && time.Since(since) < r.cfg.Again
}

// fill tries all sources that are known. It returns those that were lost.
func (r *Filler) fill(ctx context.Context, job *seed.Job) (lost []peer.ID, err error) {
	f := &fill{
		Filler: r, job: job, dead: slices.Clone(job.Skip),
		failed: map[peer.ID]bool{}, lacked: map[peer.ID]bool{}, recheck: map[peer.ID]bool{}, unheld: map[peer.ID]bool{},
	}
	err = f.run(ctx)
	return f.lost, err
}

// run goes from source to source.
func (f *fill) run(ctx context.Context) error {
	r, job := f.Filler, f.job
	for !job.Done() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		epoch, seq := r.cfg.Map.Version()
		p, noFill, ok := f.next(ctx)
		if job.Unsealed() && (!ok || p == r.cfg.Self) {
			job.Forgo() // nobody has the seal, and all bytes are there
			continue
		}
		if !ok {
			return f.failure()
		}
		var err error
		if p == r.cfg.Self {
			if f.fromFormer(ctx) {
				continue
			}
			if e, s := r.cfg.Map.Version(); e != epoch || s != seq {
				continue // another may own it by now
			}
			if err = f.fromOrigin(ctx); err != nil {
				err = f.originFailed(ctx, err)
			}
		} else if err = f.fromPeer(ctx, p, noFill); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.log.Debug("source failed", "peer", p, "task", job.Task.ID, "off", job.Pos(), "err", err)
			err = f.peerFailed(ctx, p, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// failure is the error of a fill that has no source left.
func (f *fill) failure() error {
	switch {
	case f.changed != nil:
		return f.changed
	case f.refused != nil:
		return f.refused
	case f.private && !f.job.Private(): // by the word of who may lie, and nobody else could be asked
		return fmt.Errorf("%w: %w, says a peer that is no seed", seed.ErrUnavailable, seed.ErrPrivate)
	case f.private:
		return seed.ErrPrivate
	case f.theirs:
		return fmt.Errorf("%w: %w", seed.ErrUnavailable, errTheirs)
	case f.last != nil:
		return fmt.Errorf("%w: last tried: %w", seed.ErrUnavailable, f.last)
	default:
		return fmt.Errorf("%w: none is known", seed.ErrUnavailable)
	}
}

// stripe returns the stripe of the next byte; 0, the head's, where the size is
// not known.
func (f *fill) stripe() (stripe int64, sequential bool) {
	size := f.job.Size()
	if size < 0 {
		return 0, false
	}
	if meta, ok := f.job.Meta(); ok {
		sequential = meta.Sequential
	}
	pos := f.job.Pos()
	if f.job.Unsealed() {
		pos--
	}
	return content.Layout{Size: size}.StripeOf(pos), sequential
}

// owner returns who owns the stripe of the next byte.
func (f *fill) owner() peer.ID {
	stripe, sequential := f.stripe()
	p, _ := f.cfg.Map.Owner(f.job.Task.ID, stripe, sequential, f.dead)
	return p
}

// next chooses a source: this node itself stands for the origin. noFill says
// that the peer may only answer from what it has.
func (f *fill) next(ctx context.Context) (p peer.ID, noFill, ok bool) {
	job := f.job
	if f.theirs = len(job.Path) > 0 && slices.Contains(job.Path, f.owner()); f.theirs {
		return "", false, false
	}
	f.gateway, f.holds, f.nearby = "", "", ""
	if p, ok := f.nextHolder(); ok {
		return p, true, true
	}
	if f.gateway, ok = f.nextGateway(); ok {
		return f.gateway, f.noFill, true
	}
	if s, ok := f.nextSeed(); ok {
		// A request travels to one more peer at the most.
		if s.Held {
			f.holds = s.Peer
		}
		return s.Peer, f.noFill || s.Held || len(job.Path) > 1, true
	}
	if f.ownerAgain(ctx) {
		return f.next(ctx)
	}
	if f.mayAskOrigin() && f.cfg.Seed && f.cfg.Map.IsSeed(job.Task.ID) {
		return f.cfg.Self, false, true
	}
	standIn, stands := f.standIn()
	if stands && len(job.Path) > 0 && standIn == f.cfg.Self {
		return standIn, false, true
	}
	if len(job.Path) > 0 {
		return "", false, false
	}
	if !f.looked {
		f.looked = true
		f.found = slices.SortedStableFunc(slices.Values(f.cfg.Providers.Find(ctx, job.Task.ID)), func(a, b peer.ID) int { return f.inDoubt(a) - f.inDoubt(b) })
		f.near = f.neighbours(maxNear)
	}
	for _, p := range f.found {
		if p != f.cfg.Self && !f.tried(p) && !slices.Contains(f.dead, p) {
			f.metrics.fromProviders.Inc()
			return p, f.noFill, true
		}
	}
	if p, ok := f.nextNear(); ok {
		return p, true, true
	}
	if n := len(f.doubted); n > 0 {
		p, f.doubted = f.doubted[0], f.doubted[1:]
		return p, f.noFill, true
	}
	if stands {
		return standIn, false, true
	}
	if f.overrule() {
		return f.next(ctx)
	}
	if f.mayAskOrigin() && f.cfg.Fallback {
		f.metrics.fallbacks.Inc()
		return f.cfg.Self, false, true
	}
	return "", false, false
}

// nextNear chooses a neighbour at this node's site to ask for what it holds, where the
// origin cannot be asked. What is current no neighbour knows.
func (f *fill) nextNear() (peer.ID, bool) {
	if f.mayAskOrigin() || f.job.Validate || !f.job.Known.IsZero() {
		return "", false
	}
	for len(f.near) > 0 {
		p := f.near[0]
		if f.near = f.near[1:]; !f.tried(p) {
			f.nearby = p
			return p, true
		}
	}
	return "", false
}

// nextAgain has a peer asked next once more, that has shown what file is read.
func (f *fill) nextAgain(p peer.ID) {
	switch {
	case p == f.nearby:
		f.near = slices.Insert(f.near, 0, p)
	case slices.Contains(f.dead, p):
		f.doubted = slices.Insert(f.doubted, 0, p)
	}
}

// inDoubt is 1 for a peer in doubt, else 0.
func (f *fill) inDoubt(p peer.ID) int {
	if f.cfg.Health.Doubtful(p) {
		return 1
	}
	return 0
}

// neighbours returns at most n neighbours at this node's site whom nothing speaks
// against.
func (f *fill) neighbours(n int) []peer.ID {
	near := slices.DeleteFunc(f.cfg.Providers.Neighbours(), func(p peer.ID) bool {
		return p == f.cfg.Self || f.failed[p] || slices.Contains(f.dead, p) || slices.Contains(f.job.Path, p) || f.cfg.Health.Doubtful(p)
	})
	return near[:min(len(near), n)]
}

// ownerAgain reports, a moment later, that the owner may be asked again, which had
// nothing: it is to fetch what it has not, so that its map is not this node's. One of
// the two is out of date, and not for long; if this node asked the origin now, that
// would be asked twice.
func (f *fill) ownerAgain(ctx context.Context) bool {
	p := f.owner()
	if !f.lacked[p] || f.ownerAsks == ownerTries || f.forbidden(p) || f.job.Unsealed() || sleep(ctx, busyDelay) != nil {
		return false
	}
	f.ownerAsks++
	delete(f.lacked, p)
	return true
}

// overrule leaves out, as if it were dead, an owner that answers and does not do
// what is its to do, where nobody else could help: the others wait for it, or send
// this node to it, until they are told. It reports whether there was one, or the map
// has another by now.
func (f *fill) overrule() bool {
	p := f.owner()
	if p == "" || p == f.cfg.Self || f.forbidden(p) || f.job.Unsealed() || f.overruled == rangeread.MaxPath || len(f.dead) >= rangeread.MaxPath {
		return false
	}
	if f.overruled++; f.overruled == 1 {
		f.overruledAt = time.Now()
	} else if time.Since(f.overruledAt) > overruleTime {
		return false
	}
	if f.tried(p) {
		f.bury(p)
		f.busy, f.waited = 0, 0 // the patience was for the one
	}
	return true
}

// forbidden reports whether a peer may not be asked to fetch what it has not.
func (f *fill) forbidden(p peer.ID) bool {
	return !f.mayAskOrigin() || len(f.job.Path) > 1 || f.job.Private() && !f.cfg.Map.MayGrant(p)
}

// standIn returns who asks the origin while all seeds are dead: this node where
// it may, or a peer that was not tried yet.
func (f *fill) standIn() (peer.ID, bool) {
	if !f.mayAskOrigin() {
		return "", false
	}
	stripe, sequential := f.stripe()
	p, ok := f.cfg.Map.StandIn(f.job.Task.ID, stripe, sequential, f.dead)
	if p == f.cfg.Self {
		return p, ok && f.cfg.Seed
	}
	return p, ok && !f.tried(p)
}

// nextGateway returns who reads the stripe for all of this node's site, where that
// is another. It was not tried yet, and is not in doubt: the next in order stands
// for one that is.
func (f *fill) nextGateway() (peer.ID, bool) {
	if len(f.job.Path) > 0 {
		return "", false // a request travels to one more peer, and that is the owner
	}
	stripe, sequential := f.stripe()
	for {
		p, ok := f.cfg.Map.Gateway(f.job.Task.ID, stripe, sequential, f.dead)
		if !ok || f.tried(p) {
			return "", false
		}
		if !f.doubt([]Source{{Peer: p}}) {
			return p, true
		}
	}
}

// nextSeed returns the best seed that was not tried yet; this node itself where
// it owns the stripe. Seeds in doubt are passed over, for other seeds too: the
// next in order owns what was theirs.
func (f *fill) nextSeed() (Source, bool) {
	var buf [16]Source
	stripe, sequential := f.stripe()
	sources := f.cfg.Map.Sources(buf[:0], f.job.Task.ID, stripe, sequential, f.dead)
	if f.doubt(sources) {
		sources = f.cfg.Map.Sources(buf[:0], f.job.Task.ID, stripe, sequential, f.dead)
	}
	var last Source
	for _, s := range sources {
		switch {
		case s.Held && (f.job.Validate || !f.job.Known.IsZero()) && s.Peer != f.cfg.Self && !f.tried(s.Peer) && !slices.Contains(f.job.Path, s.Peer):
			// The question is what the origin has: it comes after those who ask.
			if last.Peer == "" {
				last = s
			}
		case s.Peer == f.cfg.Self:
			if f.mayAskOrigin() && f.cfg.Seed {
				return s, true
			}
		case !f.tried(s.Peer) && !slices.Contains(f.job.Path, s.Peer):
			return s, true
		}
	}
	return last, last.Peer != ""
}

// doubt sets those apart that failed a moment ago, and has the filler see
// whether they are back; no reader waits for that. It reports whether there
// were any.
func (f *fill) doubt(sources []Source) bool {
	n := len(f.dead)
	for _, s := range sources {
		p := s.Peer
		if p == f.cfg.Self || !f.cfg.Health.Doubtful(p) || len(f.dead) == rangeread.MaxPath {
			continue
		}
		f.bury(p)
		f.doubted = append(f.doubted, p)
		if f.cfg.Health.Probe(p) {
			select {
			case f.probes <- probe{p, f.job.Task.ID}:
			default: // many are in doubt: another time
			}
		}
	}
	return len(f.dead) > n
}

func (f *fill) mayAskOrigin() bool {
	return !f.noFill && f.job.Origin.URL != ""
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
