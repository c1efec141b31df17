package locate

import (
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

const (
	defaultReplicas = 2
	defaultMaxTasks = 100_000
	maxSupernodes   = 64
	// freshFor is how long a pool counts as current after its supernode was
	// heard of.
	freshFor = 30 * time.Second
)

// Config says whose map it is and who may write it.
type Config struct {
	// Self is this node. It is a source only where SelfSeed is set: a node that
	// is no seed has no duty, whatever an old assignment says.
	Self     peer.ID
	SelfSeed bool
	// Site is this node's site until Settle names another; empty is near nobody. A
	// name that begins with Inferred was not given but found out.
	Site string
	// Supernodes are the configured ones, the same set on every node of the
	// swarm, at most 64; updates of others are ignored.
	Supernodes []peer.ID
	// Replicas is the number of seeds of a task that has no assignment where the
	// pool does not say it: then it must be the same on every node; 0 is 2.
	Replicas int
	// MaxTasks bounds the tasks; 0 is 100,000 for each supernode, about 100 MB. Beyond it the task
	// that was updated or read longest ago, roughly, is forgotten: the node
	// then ranks its seeds over the pool, and its hash differs from the
	// supernode's. So it should not be less than what supernodes hold.
	MaxTasks int
	// Now and Random, in [0,1), are nil for the real ones.
	Now        func() time.Time
	Random     func() float64
	Registerer prometheus.Registerer // nil: none
}

// Map is the seed map: who the seeds of a task are, and so who owns a stripe.
// All methods are safe for concurrent use; those that read it take no lock.
type Map struct {
	cfg     Config
	metrics *mapMetrics
	health  *health
	signers *signers

	interest interest

	snap atomic.Pointer[snapshot]
	// heard is when each supernode was last heard of, Unix ns.
	heard []atomic.Int64
	// ranked caches the views of tasks without an assignment, by their IDs.
	// What finds no place costs a ranking of the whole pool.
	ranked [rankedSets]rankedSet
	sited  atomic.Bool // this node has a site

	mu     sync.Mutex // guards the following, cfg.Site, and the writing of snap
	states []state
	queue  queue
}

// snapshot is one version of the map, immutable but for the marks of use and
// the cached views in its entries.
type snapshot struct {
	serial     uint64
	tasks      table
	pools      []*pool // by supernode; nil: none yet
	epoch, seq uint64
}

// entry is what all supernodes say of one task, immutable but for the mark of
// use and the cached view. What a look-up needs comes first, in as few lines of
// the cache as can be: each costs as much as a hash.
type entry struct {
	task  content.TaskID
	first *held // of held the first that names seeds; nil for none
	view  atomic.Pointer[view]
	used  atomic.Uint64
	mine  view    // the first
	born  uint64  // serial of the snapshot it first was in
	held  []*held // at most one a supernode, in order
	order []uint8 // of the supernodes for this task, its own first
}

// held is the last word of one supernode on one task.
type held struct {
	assignment.Assign
	supernode int
	expires   int64 // Unix ns; the end of the seeds' duty
	record    *record
	// since is when these seeds were first named, Unix ns; before is what was
	// said until then, nil where nothing was.
	since  int64
	before *held
}

// assigned reports whether it names seeds, rather than withdraws them.
func (h *held) assigned() bool { return h.Lease > 0 && len(h.Seeds) > 0 }

// New makes an empty map. It starts nothing.
func New(cfg Config) *Map {
	if cfg.Replicas <= 0 {
		cfg.Replicas = defaultReplicas
	}
	if cfg.MaxTasks <= 0 {
		cfg.MaxTasks = defaultMaxTasks * max(1, len(cfg.Supernodes))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	cfg.Supernodes = slices.Clone(cfg.Supernodes)
	slices.Sort(cfg.Supernodes)
	cfg.Supernodes = slices.Compact(cfg.Supernodes)
	cfg.Supernodes = cfg.Supernodes[:min(len(cfg.Supernodes), maxSupernodes)]
	m := &Map{
		cfg:     cfg,
		metrics: newMapMetrics(cfg.Registerer),
		signers: newSigners(),
		heard:   make([]atomic.Int64, len(cfg.Supernodes)),
		states:  make([]state, len(cfg.Supernodes)),
	}
	m.sited.Store(cfg.Site != "")
	m.interest.wake = make(chan struct{}, 1)
	m.health = newHealth(cfg.Now, cfg.Random, m.metrics)
	for i := range m.states {
		m.states[i].poolDigest = assignment.PoolDigest(nil)
	}
	m.snap.Store(&snapshot{tasks: newTable(), pools: make([]*pool, len(cfg.Supernodes))})
	return m
}

// Version returns the place of the map: the highest (epoch, seq) that was
// applied; zero before there was one.
func (m *Map) Version() (epoch, seq uint64) {
	s := m.snap.Load()
	return s.epoch, s.seq
}

// Pool returns the pool that this node uses for its own ID: that of its
// supernode where that is heard of, else the next one's. The members are
// shared and not to be changed.
func (m *Map) Pool() []assignment.Member {
	p := m.ownPool(m.cfg.Now().UnixNano())
	if p == nil {
		return nil
	}
	return slices.Clone(p.members)
}

// ownPool is the pool that is this node's where no task says which; nil for none.
func (m *Map) ownPool(now int64) *pool {
	return m.poolOf(m.snap.Load(), m.order([]byte(m.cfg.Self)), now)
}

// FilterQuery returns the query parameters that the pools say are left out of
// names: of several supernodes that name any, those of the one that started
// last, of two at the same time of the one with the lower ID. None where no pool
// names any. The names are shared and not to be changed.
func (m *Map) FilterQuery() []string {
	var last *pool
	for _, p := range m.snap.Load().pools {
		if p != nil && len(p.filterQuery) > 0 && (last == nil || p.epoch > last.epoch) {
			last = p
		}
	}
	if last == nil {
		return nil
	}
	return last.filterQuery
}

// Len returns the number of tasks in the map, withdrawn ones that are
// remembered included.
func (m *Map) Len() int { return m.snap.Load().tasks.n }

// Entry is one supernode's assignment of a task.
type Entry struct {
	assignment.Assign
	Supernode peer.ID
	// Expires is the end of the seeds' duty; readers go on using it.
	Expires time.Time
}

// Entries yields the assignments of one version of the map in the order of
// their task IDs; of a task with several, the one of its own supernode first.
func (m *Map) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, e := range m.snap.Load().tasks.all() {
			for _, h := range e.held {
				if h.assigned() && !yield(Entry{h.Assign, m.cfg.Supernodes[h.supernode], time.Unix(0, h.expires)}) {
					return
				}
			}
		}
	}
}

// TrustedSigner reports whether a block's signature by id is good: id was in a
// pool that a configured supernode signed, however long ago, or is this node.
func (m *Map) TrustedSigner(id peer.ID) bool {
	return id == m.cfg.Self || m.signers.has(id)
}

// grantsFor is how long who was in a pool counts as a seed in MayGrant.
const grantsFor = 10 * time.Minute

// MayGrant reports whether id is in a pool that a configured supernode signed, or
// was in one until 10 minutes ago, or is this node: it may say who reads private
// files, and may be shown credentials. That is stricter than TrustedSigner: a
// block stays what it was when its signer leaves, a grant does not.
func (m *Map) MayGrant(id peer.ID) bool {
	if id == m.cfg.Self {
		return true
	}
	since := m.cfg.Now().Add(-grantsFor).UnixNano()
	for _, p := range m.snap.Load().pools {
		if p == nil {
			continue
		}
		if _, ok := p.index[id]; ok {
			return true
		}
		for until, i := p.since, 0; i < len(p.former) && until >= since; i++ {
			if _, ok := p.former[i].index[id]; ok {
				return true
			}
			until = p.former[i].since
		}
	}
	return false
}

// Signers returns the trusted signers, to be kept over a restart; at most
// 65,536, the one that was named in a pool longest ago first.
func (m *Map) Signers() []peer.ID { return m.signers.list() }

// AddSigners restores what Signers returned.
func (m *Map) AddSigners(ids []peer.ID) { m.signers.add(ids) }

// Success says that a peer answered, and after what time its first byte came,
// or will come of one that says it is busy; 0 is not counted. It closes the peer's breaker.
func (m *Map) Success(p peer.ID, firstByte time.Duration) { m.health.success(p, firstByte) }

// Failure says that a peer did not answer, or broke off. It opens the peer's
// breaker for 1 s, doubled with each further failure up to 60 s, ±20 %:
// meanwhile Sources puts the peer behind the healthy ones. Failures while it is
// open do not count.
func (m *Map) Failure(p peer.ID) { m.health.failure(p) }

// Wrong says that a peer sent bytes that are not what their signer signed. It
// bans the peer for 10 s, doubled with each further time up to an hour, ±20 %;
// no success ends a ban. It reports false where the peer is banned already.
func (m *Map) Wrong(p peer.ID) bool { return m.health.wrong(p) }

// Doubtful reports whether a peer has failed and not succeeded since.
func (m *Map) Doubtful(p peer.ID) bool { return m.health.doubtful(p) }

// Probe reports whether it is time to see if a doubtful peer is back, and the
// caller is the one to do it and to tell what came of it.
func (m *Map) Probe(p peer.ID) bool { return m.health.probe(p) }

// Peers returns what is known of the health of the last 4,096 peers that were
// used, by peer ID.
func (m *Map) Peers() []PeerHealth { return m.health.snapshot() }
