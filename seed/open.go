package seed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Request is what a client of this node asks for.
type Request struct {
	Task content.Task
	// Origin says where the file comes from.
	Origin rangeread.Origin
	// Expect is the generation wanted; zero for any.
	Expect content.Generation
	// Want is what will be read first; empty for the metadata alone. Its end
	// may lie behind the file's end.
	Want content.Range
	// Demand is how current the answer must be.
	Demand Demand
	// Unsized says that a file whose size is not known yet will do, as it comes:
	// see File.Sized. Without it Open returns when all of such a file has come.
	Unsized bool
	// Background says that nobody waits for the bytes: see Manager.Quiet.
	Background bool
	// Held asks for what is held here and current, and starts nothing:
	// ErrNotFound otherwise. File.Has tells of the bytes.
	Held bool
}

// File is a client's handle on a task's file. Close it.
type File struct {
	f       *file // nil where the size is not known
	grows   *growing
	unsized *Found
	q       query
	release func()
}

// Open returns the file of a task, asking peers or the origin where it is not
// known here; then the first block of Want is on its way when it returns.
//
// Errors: ErrNotSupported, ErrPrivate, *OriginError, *RangeError, ErrUnavailable,
// ErrChanged, ErrClosed and the context's; with Held also ErrNotFound.
func (m *Manager) Open(ctx context.Context, r Request) (*File, error) {
	q := query{task: r.Task, origin: r.Origin, expect: r.Expect, demand: r.Demand, noFill: r.Held, unsized: r.Unsized, background: r.Background, wait: waitFor}
	if r.Task.Secret != "" {
		return nil, secretError(r.Task)
	}
	if err := m.admit(ctx, &q); err != nil {
		return nil, err
	}
	o, err := m.openAny(ctx, &q, r.Want)
	if errors.Is(err, ErrPrivate) && credentialed(r.Origin) && !r.Held {
		// It is private after all, or of another generation by now.
		q.origin = r.Origin
		if err := m.authorize(ctx, &q, true); err != nil {
			return nil, err
		}
		o, err = m.openAny(ctx, &q, r.Want)
	}
	if err != nil {
		return nil, err
	}
	f, release := o.file, o.release
	if f == nil {
		return &File{grows: o.grows, unsized: o.unsized, q: q, release: release}, nil
	}
	if !r.Want.Empty() && r.Want.Off >= f.meta.Size {
		release()
		return nil, &RangeError{Size: f.meta.Size}
	}
	unused := f.use()
	return &File{f: f, q: q, release: func() { release(); unused() }}, nil
}

// admit finds out what the credentials of a client of this node are worth, where
// there are any and the file is not known to be public.
func (m *Manager) admit(ctx context.Context, q *query) error {
	if !credentialed(q.origin) {
		return nil
	}
	if m.cfg.Authorizer == nil {
		return fmt.Errorf("%w: it is asked for with credentials", ErrNotSupported)
	}
	if held := m.held(q.task, q.expect); held != nil && !held.private.Load() && m.current(held, q) {
		q.strip()
		return nil
	}
	return m.authorize(ctx, q, false)
}

func waitFor(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Meta returns the file's metadata.
func (f *File) Meta() content.Meta {
	switch {
	case f.grows != nil:
		return f.grows.meta()
	case f.unsized != nil:
		return f.unsized.Meta
	default:
		return f.f.metadata()
	}
}

// Sized reports whether the size of the file was known when it was opened. Of one
// where it was not only Meta, CacheControl, Age, Stream and Close may be called;
// Meta has Size -1 until the end has come.
func (f *File) Sized() bool { return f.f != nil }

// Stream reads what is there of a file of unknown size from off on into p: at
// least one byte, for which it waits, and says where it came from. io.EOF at the
// end. Nothing can be read where no Want was given to Open.
func (f *File) Stream(ctx context.Context, p []byte, off int64) (int, Source, error) {
	if f.grows == nil {
		return 0, SourceOrigin, fmt.Errorf("%w: only the metadata was asked for", ErrNotFound)
	}
	return f.grows.read(ctx, p, off)
}

// CacheControl returns the origin's Cache-Control, empty where not known.
func (f *File) CacheControl() string {
	switch {
	case f.grows != nil:
		return f.grows.found.CacheControl
	case f.unsized != nil:
		return f.unsized.CacheControl
	default:
		return f.f.terms.Load().cacheControl
	}
}

// Has reports whether all blocks that r touches are held here, or on their way
// for others.
func (f *File) Has(r content.Range) bool {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	first, end := content.BlockSpan(r)
	for i := first; i < end; i++ {
		if f.f.flights[keyOf(i, nil)] == nil && !f.f.disk.Has(i) {
			return false
		}
	}
	return true
}

// Whole reports whether all of the file is held here.
func (f *File) Whole() bool { return f.f != nil && f.f.disk.Count() == f.f.layout.Blocks() }

// Age returns how long ago the origin was asked about this generation.
func (f *File) Age() time.Duration {
	switch {
	case f.grows != nil:
		return max(0, f.grows.m.cfg.Now().Sub(f.grows.began))
	case f.unsized != nil:
		return f.unsized.Age
	default:
		return f.f.age()
	}
}

func (f *file) age() time.Duration {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return max(0, f.m.cfg.Now().Sub(f.validated))
}

// Hold returns a grip on each block that r touches, in order; missing ones are
// on their way when it returns. It waits only where a fill of such a block is
// being cancelled just now. The caller releases each.
func (f *File) Hold(ctx context.Context, r content.Range) ([]*Hold, error) {
	f.f.m.renew(ctx, &f.q)
	return f.f.hold(ctx, f.q, r)
}

// Served counts bytes that a client got, as demand to report.
func (f *File) Served(n int64) { f.f.demand.Add(n) }

// Close lets go of the file; holds stay good.
func (f *File) Close() error {
	f.release()
	f.release = func() {}
	return nil
}

// Held is what this node has of a file.
type Held struct {
	Key store.Key
	store.Info
	// Present has one bit a block, least significant bit first.
	Present []byte
	// Blocks counts the bits that are set.
	Blocks int64
	// Pinned is the bytes of its pinned stripes, held or not.
	Pinned int64
	// Demand is the bytes served since the last call that took them.
	Demand int64
}

// Bytes returns how many bytes of the file are held.
func (h Held) Bytes() int64 {
	n := h.Blocks * content.BlockSize
	if last := h.Layout().Blocks() - 1; last >= 0 && h.Present[last/8]>>(last%8)&1 == 1 {
		n += h.Layout().Block(last).Len - content.BlockSize
	}
	return n
}

func (f *file) report(take bool) Held {
	h := Held{Key: f.key, Info: f.disk.Info(), Present: f.disk.Bitmap(), Blocks: f.disk.Count(), Pinned: f.disk.Pinned()}
	if take {
		h.Demand = f.demand.Swap(0)
	} else {
		h.Demand = f.demand.Load()
	}
	return h
}

// changed tells Config.Changed what is held of a task now.
func (m *Manager) changed(task content.TaskID) {
	if m.cfg.Changed == nil {
		return
	}
	m.telling.Lock() // the last word is what was seen last
	defer m.telling.Unlock()
	m.cfg.Changed(m.heldNow(task, true))
}

// Evicted is to be called when the store has evicted blocks of a task.
func (m *Manager) Evicted(task content.TaskID) { m.changed(task) }

// heldNow returns what is held of a task's current generation.
func (m *Manager) heldNow(task content.TaskID, takeDemand bool) Held {
	m.mu.Lock()
	f := m.latest[task]
	if f == nil || !f.disk.Alive() {
		f = nil
		if disk, err := m.cfg.Store.Latest(task); err == nil {
			f = m.addLocked(content.Task{ID: task}, disk)
		}
	}
	m.mu.Unlock()
	if f == nil || f.disk.Outdated() || f.disk.Count() == 0 {
		return Held{Key: store.Key{Task: task}}
	}
	return f.report(takeDemand)
}

// Current returns, of every task of whose current generation blocks are held,
// what is held.
func (m *Manager) Current() []Held {
	tasks := map[content.TaskID]struct{}{}
	for disk := range m.cfg.Store.Files() {
		tasks[disk.Key().Task] = struct{}{}
	}
	var out []Held
	for task := range tasks {
		if h := m.heldNow(task, false); h.Blocks > 0 {
			out = append(out, h)
		}
	}
	return out
}

// Files returns what this node has of every file, old generations among them.
func (m *Manager) Files() []Held {
	var out []Held
	for disk := range m.cfg.Store.Files() {
		m.mu.Lock()
		f := m.addLocked(content.Task{ID: disk.Key().Task}, disk)
		m.mu.Unlock()
		out = append(out, f.report(false))
	}
	return out
}

// Stats is a snapshot for people.
type Stats struct {
	Files  int   `json:"files"`
	Fills  int   `json:"fills"`
	Used   int64 `json:"used_bytes"`
	Pinned int64 `json:"pinned_bytes"`
	// Free is what can be stored before something is evicted.
	Free     int64 `json:"free_bytes"`
	Capacity int64 `json:"capacity_bytes"`
}

// Stats returns a snapshot.
func (m *Manager) Stats() Stats {
	disk := m.cfg.Store
	s := Stats{Used: disk.Used(), Pinned: disk.Pinned(), Free: disk.Free(), Capacity: disk.Capacity()}
	for range disk.Files() {
		s.Files++
	}
	m.mu.Lock()
	s.Fills = len(m.jobs)
	m.mu.Unlock()
	return s
}
