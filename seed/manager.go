package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// DefaultFlights is the default of Config.MaxFlights.
const DefaultFlights = 64

// Config configures a Manager.
type Config struct {
	// Self and Key are this node's identity: it signs the blocks that it reads
	// from origins. Required.
	Self peer.ID
	Key  crypto.PrivKey
	// Store keeps the blocks. Required; the caller closes it after Run.
	Store store.Store
	// Filler brings missing blocks. Required.
	Filler Filler
	// Owns says that this node, by its own map, is to read a stripe from the origin,
	// the peers in skip left out: readers whom it cannot serve just now because it
	// waits for a peer come again, instead of going to the origin themselves. nil:
	// it never is.
	Owns func(task content.TaskID, stripe int64, skip []peer.ID) bool
	// VerifySeal checks the signature of a seal before its block is stored or
	// passed on. Required.
	VerifySeal func(content.BlockName, content.Seal) error
	// Authorizer finds out to whom origins give private files; nil: none is
	// carried. MayGrant says whether a peer's grants count; nil: nobody's do.
	Authorizer Authorizer
	MayGrant   func(peer.ID) bool
	// GrantLife is how long after the origin was asked a requester of a private
	// file is served; 0 is DefaultGrantLife, the most an hour.
	GrantLife time.Duration
	// Grace says whom this node, as a seed, lets read a private file while its
	// origin cannot be reached: those whom the origin let in no longer ago than
	// after, and where open everybody with credentials. Nil: nobody.
	Grace func(task content.Task) (after time.Duration, open bool)
	// Filter returns the query filter of a version, and false where this node does
	// not go by it. Nil: there is none, of version 0.
	Filter func(version uint32) (content.Filter, bool)
	// Seed says that this node fills for peers; else it serves what it has.
	Seed bool
	// Whole says that a file of which something was asked is wanted whole, if it
	// fits into half of the store: the reading of an origin without ranges then
	// goes on when nobody follows it any more.
	Whole bool
	// Linger is how long such a reading goes on in any case; see there. Default
	// DefaultLinger.
	Linger time.Duration
	// Reach says where a peer is reached, and false where it is not just now: readers
	// are referred to it by Uploads and StripeUploads, which see for their defaults.
	// nil: nobody is referred.
	Reach func(peer.ID) (peer.AddrInfo, bool)
	// Far, where set, says that a reader is not to be referred to a holder, since
	// that would cost an uplink.
	Far                    func(reader, holder peer.ID) bool
	Uploads, StripeUploads int
	// MaxFlights bounds the blocks in flight, and so their memory in MiB.
	MaxFlights int
	// Spool is the directory in which an import waits for the check of its
	// digest, and a file of unknown length for its end; "" is the system's for
	// temporary files. The Store makes room for what is in it. The caller empties
	// it.
	Spool string
	// Changed, where set, hears what is held of a task's current generation
	// whenever a block of it was stored, evicted or discarded: Blocks is 0 where
	// nothing is. One call at a time; it must not block, nor call the Manager.
	Changed func(Held)
	// Now is the clock of freshness; nil means time.Now.
	Now func() time.Time
	// Logger; nil discards. Registerer; nil for none.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Manager is the set of files at this node. All methods are safe for concurrent
// use.
type Manager struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	buffers *buffers
	running sync.WaitGroup
	// background bounds the blocks of what nobody waits for, to share of them.
	background *semaphore.Weighted
	share      int64
	private    *private
	uploads    *uploads
	sent       atomic.Int64 // bytes, to peers
	// refusing is set while the store refuses blocks.
	refusing atomic.Bool
	// endless are tasks that were longer than half the store, before their
	// origin had told their size, and when that was.
	endless *lru.Cache[content.TaskID, time.Time]
	// telling is held while Config.Changed is told, and before mu.
	telling sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	closed   bool
	files    map[store.Key]*file
	latest   map[content.TaskID]*file    // those that a source named last
	resolves map[content.TaskID]*Job     // jobs that find out what a file is
	growing  map[content.TaskID]*growing // files whose size is not known yet
	making   map[store.Key]struct{}      // files that the store has, but nobody may use yet
	jobs     map[*Job]struct{}
	asked    int                                   // jobs among them that are not of the background
	calm     bell                                  // rings when there are none
	calls    map[*context.CancelCauseFunc]struct{} // imports
	sweepAt  int                                   // the number of files at which they are swept
}

// New returns a manager. Close ends its jobs.
func New(cfg Config) *Manager {
	if cfg.MaxFlights == 0 {
		cfg.MaxFlights = DefaultFlights
	}
	if cfg.GrantLife == 0 {
		cfg.GrantLife = DefaultGrantLife
	}
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	m := &Manager{
		private: newPrivate(),
		cfg:     cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer),
		buffers: newBuffers(int64(cfg.MaxFlights)), uploads: newUploads(cfg.Uploads, cfg.StripeUploads),
		files: map[store.Key]*file{}, latest: map[content.TaskID]*file{}, resolves: map[content.TaskID]*Job{},
		growing: map[content.TaskID]*growing{}, making: map[store.Key]struct{}{}, jobs: map[*Job]struct{}{}, calls: map[*context.CancelCauseFunc]struct{}{},
		share: int64(max(1, cfg.MaxFlights/backgroundShare)),
	}
	m.endless, _ = lru.New[content.TaskID, time.Time](maxEndless) // it fails for a size < 1
	m.background = semaphore.NewWeighted(m.share)
	if m.cfg.Now == nil {
		m.cfg.Now = time.Now
	}
	if m.cfg.Filter == nil {
		m.cfg.Filter = func(version uint32) (content.Filter, bool) { return content.Filter{}, version == 0 }
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Tasks that were longer than half the store: how many are remembered, and for how
// long they are left to who asks the origin himself.
const (
	maxEndless = 1024
	endlessFor = time.Hour
)

func (m *Manager) isEndless(task content.TaskID) bool {
	at, ok := m.endless.Get(task)
	return ok && m.cfg.Now().Sub(at) < endlessFor
}

// ErrClosed: the node is shutting down.
var ErrClosed = errors.New("node is shutting down")

// Close ends all jobs and imports, and returns when their last blocks are
// stored.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	for j := range m.jobs {
		j.cancel(ErrClosed)
	}
	for cancel := range m.calls {
		(*cancel)(ErrClosed)
	}
	m.mu.Unlock()
	m.running.Wait()
	return nil
}

// query says who wants bytes and what may be done for him.
type query struct {
	task       content.Task
	origin     rangeread.Origin
	expect     content.Generation
	known      content.Generation // held; see Job.Known
	knownSize  int64
	unsized    bool // a file whose size is not known yet will do
	background bool // nobody waits for it
	demand     Demand
	began      time.Time // when it was opened
	validate   bool      // see Job.Validate
	path, skip []peer.ID
	noFill     bool
	site       bool // of this node's site, for which this node reads: see Hold.refusal
	// permit is his leave to read a private file, and who his credentials; zero
	// for none.
	permit *permit
	who    permitKey
	// from is the peer that asks; empty for a client of this node.
	from peer.ID
	// wait returns nil when done is closed, and an error where there is no use
	// in waiting longer.
	wait func(ctx context.Context, done <-chan struct{}) error
	// found is the job that found out what the file is, and brought its first
	// block.
	found *Job
}

// rights says how far a request may travel: 0 for a client of this node's own,
// who gets everything, 1 for a peer's, 2 for one that has been forwarded.
func (q query) rights() int { return min(len(q.path), 2) }

// held returns the newest file of a task, or the one of a generation, that is
// known here; nil where none is. A generation that a source found changed is
// only found by its name, until a source names it again.
func (m *Manager) held(task content.Task, gen content.Generation) *file {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heldLocked(task, gen)
}

func (m *Manager) heldLocked(task content.Task, gen content.Generation) *file {
	if gen.IsZero() {
		if f := m.latest[task.ID]; f != nil && f.disk.Alive() {
			if f.stale {
				return nil
			}
			return f
		}
		disk, err := m.cfg.Store.Latest(task.ID)
		if err != nil || m.beingMadeLocked(disk.Key()) {
			return nil
		}
		return m.addLocked(task, disk)
	}
	key := store.Key{Task: task.ID, Generation: gen}
	if m.beingMadeLocked(key) {
		return nil
	}
	if f := m.files[key]; f != nil && f.disk.Alive() {
		return f
	}
	disk, err := m.cfg.Store.Open(key)
	if err != nil {
		return nil
	}
	return m.addLocked(task, disk)
}

// beingMadeLocked reports whether a file is just being made: who took it then
// would not see what is on its way, and ask for it again.
func (m *Manager) beingMadeLocked(key store.Key) bool {
	_, ok := m.making[key]
	return ok
}

// addLocked makes the file of what the store has; m.mu is held.
func (m *Manager) addLocked(task content.Task, disk store.File) *file {
	if f := m.files[disk.Key()]; f != nil && f.disk == disk {
		return f
	}
	f := newFile(m, task, disk)
	m.putLocked(f)
	return f
}

// putLocked adds a file. Whenever the files have doubled it lets go of those that
// the store has forgotten; m.mu is held.
func (m *Manager) putLocked(f *file) {
	if len(m.files) >= m.sweepAt {
		maps.DeleteFunc(m.files, func(_ store.Key, f *file) bool { return !f.disk.Alive() })
		maps.DeleteFunc(m.latest, func(_ content.TaskID, f *file) bool { return !f.disk.Alive() })
		m.sweepAt = 2*len(m.files) + 1024
	}
	m.files[f.key] = f
}

func newFile(m *Manager, task content.Task, disk store.File) *file {
	info := disk.Info()
	task.URL, task.Digest = info.URL, info.Digest
	f := &file{
		m: m, task: task, key: disk.Key(), meta: info.Meta, layout: info.Layout(), disk: disk,
		flights: map[flightKey]*flight{}, validated: info.Created, check: make(chan struct{}, 1),
	}
	f.sequential.Store(info.Sequential)
	f.private.Store(info.Private)
	f.terms.Store(newTerms(info.CacheControl, info.Digest, info.Fields))
	return f
}

// createLocked returns the file that was found, making it; it is current. Its mu
// is held, so that who finds it meets the flights of its maker. fromHead says
// that the origin was asked for it just now.
func (m *Manager) createLocked(task content.Task, found Found, fromHead bool) (*file, error) {
	now := m.cfg.Now()
	key := store.Key{Task: task.ID, Generation: found.Generation}
	if task.Digest != "" && !typed(task.URL) { // else one upstream would speak for another
		found.ContentType, found.Fields = "application/octet-stream", ""
	}
	if found.Private && task.Digest == "" {
		m.closeUp(task, key)
	}
	older, olderErr := m.cfg.Store.Latest(task.ID)
	m.mu.Lock()
	if f := m.files[key]; f == nil || !f.disk.Alive() {
		m.making[key] = struct{}{}
	}
	m.mu.Unlock()
	made := func() {
		m.mu.Lock()
		delete(m.making, key)
		m.mu.Unlock()
	}
	disk, err := m.cfg.Store.Create(key, store.Info{
		Meta: found.Meta, URL: task.URL, Digest: task.Digest, CacheControl: found.CacheControl, Created: now, Private: found.Private,
	})
	if err != nil {
		made()
		if errors.Is(err, store.ErrFull) {
			err = fmt.Errorf("%w: %w", ErrNotSupported, err)
		}
		return nil, err
	}
	if olderErr == nil && older.Key() != key {
		m.retire(older)
	}
	disk.Outdate(false)
	m.mu.Lock()
	f, known := m.files[key], true
	if f == nil || f.disk != disk {
		f, known = newFile(m, task, disk), false
		if disk.Info().Created.Equal(now) {
			f.validated = time.Time{} // as long ago as the source says
		}
		f.mu.Lock() // nobody else has it yet
		m.putLocked(f)
	}
	if fromHead {
		f.asked = now
	}
	f.stale = false
	if task.Digest == "" || upstream(task.URL) == upstream(disk.Info().URL) { // no upstream speaks for another
		f.freshenLocked(found, now)
		if found.public {
			f.private.Store(false)
		}
	}
	if found.Sequential {
		f.sequential.Store(true)
	}
	m.latest[task.ID] = f
	m.mu.Unlock()
	if known {
		f.mu.Lock()
	}
	made()
	return f, nil
}

// newJob makes a job with one follower; it is not started.
func (m *Manager) newJob(q query, want content.Range) *Job {
	first := want.Off / content.BlockSize
	if want.Empty() {
		first = -1 // the metadata alone
	}
	return &Job{
		permit: q.permit, who: q.who,
		Task: q.task, Origin: q.origin, Expect: q.expect, Known: q.known, KnownSize: q.knownSize, Validate: q.validate, Path: q.path, Skip: q.skip,
		m: m, decided: make(chan struct{}), settled: make(chan struct{}), ended: make(chan struct{}),
		background: q.background, pos: want.Off, end: want.End(), followers: 1, rights: q.rights(), first: first,
	}
}

// start runs a job in the background.
func (m *Manager) start(j *Job) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.startLocked(j)
}

// startLocked runs a job in the background; m.mu is held.
func (m *Manager) startLocked(j *Job) error {
	if m.closed {
		return ErrClosed
	}
	// A job outlives the call that starts it: it runs for all who join it.
	ctx, cancel := context.WithCancelCause(context.Background())
	j.cancel = cancel
	m.jobs[j] = struct{}{}
	if !j.background {
		m.asked++
	}
	m.running.Add(1)
	m.metrics.jobs.Inc()
	go func() {
		defer m.running.Done()
		defer m.metrics.jobs.Dec()
		defer cancel(nil)
		j.run(ctx)
		m.mu.Lock()
		delete(m.jobs, j)
		if !j.background {
			if m.asked--; m.asked == 0 {
				m.calm.ring()
			}
		}
		m.mu.Unlock()
	}()
	return nil
}

// Quiet returns when no bytes are on their way that anybody asked for, but for
// Requests of the Background: who has time lets them go first.
func (m *Manager) Quiet(ctx context.Context) error {
	for {
		m.mu.Lock()
		asked, wake := m.asked, m.calm.wait()
		m.mu.Unlock()
		if asked == 0 {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run fills, and ends what the filler left open.
func (j *Job) run(ctx context.Context) {
	err := j.m.cfg.Filler.Fill(ctx, j)
	if err == nil && !j.Done() {
		err = fmt.Errorf("%w: fill ended at byte %d", ErrUnavailable, j.pos)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	j.err = err
	j.mu.Lock()
	j.gone = true
	j.mu.Unlock()
	if j.file != nil {
		if errors.Is(err, ErrChanged) {
			j.m.outdate(j.file)
		}
		j.file.abandon(j, cmp.Or(err, errMissed))
	}
	if err != nil {
		j.m.log.Debug("fill failed", "task", j.Task.ID, "off", j.pos, "err", err)
	}
	if j.grows != nil {
		j.grows.end(err)
	}
	j.settle()
	close(j.ended)
	_ = j.stores.Wait() // its functions return nil
}
