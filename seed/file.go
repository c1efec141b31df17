package seed

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// file is one generation of a task's file at this node: what the store holds of
// it, and the blocks that are on their way.
type file struct {
	m      *Manager
	task   content.Task
	key    store.Key
	meta   content.Meta
	layout content.Layout
	disk   store.File
	// sequential: the origin serves no ranges, as meta says or a request showed.
	sequential atomic.Bool
	// terms are those of the last answer of the origin.
	terms    atomic.Pointer[terms]
	private  atomic.Bool // served to those alone who have a permit
	verified atomic.Bool // the digest was checked over the whole file
	checking atomic.Bool
	check    chan struct{} // has an element while the digest is checked
	wrong    error         // what the check found; guarded by check
	// Manager.mu guards the following: when the origin confirmed the content,
	// when it was last asked, until when it is not to be asked again since it
	// could not be reached, and whether it has another generation now.
	validated, asked, quiet time.Time
	stale                   bool

	// demand counts bytes sent to peers and clients since the last report.
	demand atomic.Int64

	mu sync.Mutex
	// mu guards the following. It is taken before Manager.mu, flight.mu and
	// Job.mu.
	flights map[flightKey]*flight
	// whole is the job that reads the file of an origin without ranges; it has
	// come to block passed, and goes on to block last.
	whole        *Job
	passed, last int64
	// users counts those who have the file open; unused numbers the times at which
	// the last of them left.
	users, unused int
	lingering     *time.Timer
	// fills counts what was begun: a digest that was checked before says nothing
	// of the bytes that come.
	fills int
}

// flightKey is where a block's flight is found. There is one flight a block,
// whatever the job; only a build that shows what this rule is good for, with the
// tag p2pnode_unshared, has one a job.
type flightKey struct {
	block int64
	job   *Job
}

func keyOf(block int64, j *Job) flightKey {
	if shared {
		j = nil
	}
	return flightKey{block, j}
}

// metadata returns what is known of the file by now.
func (f *file) metadata() content.Meta {
	meta := f.meta
	meta.Sequential = f.sequential.Load()
	meta.Fields = f.terms.Load().fields
	return meta
}

func (f *file) name(i int64) content.BlockName {
	return content.BlockName{Task: f.key.Task, Generation: f.key.Generation, FileSize: f.meta.Size, Index: i}
}

// adoptLocked gives a job flights for those blocks it wants that nobody has, and
// returns the range from the first to the last of them; f.mu is held.
func (f *file) adoptLocked(j *Job) (own content.Range) {
	first, end := content.BlockSpan(j.Want())
	for i := first; i < end; i++ {
		if k := keyOf(i, j); f.flights[k] == nil && !f.disk.Has(i) {
			fl := newFlight(f.name(i), j, f.m.buffers)
			fl.way, fl.from, fl.refusal = j.way, j.from, j.refusal
			f.flights[k] = fl
			if own.Empty() {
				f.beginLocked()
				own.Off = f.layout.Block(i).Off
			}
			own = content.Span(own.Off, f.layout.Block(i).End())
		}
	}
	return own
}

// takeWholeLocked makes j the one job that reads a file whose origin serves no
// ranges, up to the last block that nobody has. Where another job does so, that
// one gets the blocks of j, which is done then; so it is where nothing is missing
// any more. Blocks that nobody waits for get their flights as they are read: a
// size that an origin claims costs nothing. f.mu is held.
func (f *file) takeWholeLocked(j *Job) {
	switch w := f.whole; {
	case w == j:
		return
	case w != nil && shared:
		for _, fl := range f.flights {
			if fl.job == j && fl.unfinished() {
				fl.job = w
				fl.take(fromOrigin, "", nil)
			}
		}
		j.pos = j.end
		return
	}
	last := f.lastMissingLocked(j)
	if last < 0 {
		j.pos = j.end
		return
	}
	j.pos, j.end = 0, f.layout.Block(last).End()
	j.whole = true
	f.whole, f.passed, f.last = j, -1, last
	j.stay() // a second reading would cost all of it again: see linger
	f.lingerLocked()
}

// lastMissingLocked returns the last block that a job which reads all of the file
// has to come to; -1 where it is not needed at all. f.mu is held.
func (f *file) lastMissingLocked(j *Job) int64 {
	last := int64(-1)
	for i := f.layout.Blocks() - 1; i >= 0; i-- {
		fl := f.flights[keyOf(i, j)]
		missing := fl == nil && !f.disk.Has(i) || fl != nil && fl.job == j && fl.unfinished()
		if missing || fl != nil && !fl.claimed && fl.unfinished() { // this it takes as it passes it
			last = max(last, i)
		}
		if missing {
			return last
		}
	}
	return -1
}

// aheadLocked reports whether the reading of the whole file will still come to
// block i; f.mu is held.
func (f *file) aheadLocked(i int64) bool {
	return f.whole != nil && shared && i > f.passed && i <= f.last
}

// flightOf returns the job's own flight of block i, or nil.
func (f *file) flightOf(j *Job, i int64) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flights[keyOf(i, j)]; fl != nil && fl.job == j && fl.unfinished() {
		return fl
	}
	return nil
}

// claim returns the flight of block i for a job that is about to put bytes into
// it; nil where it is not the job's. The job that reads the whole file takes what
// it passes and no other job has begun.
func (f *file) claim(j *Job, i int64) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.whole == j {
		f.passed = i
	}
	k := keyOf(i, j)
	fl := f.flights[k]
	switch {
	case fl == nil && j.whole && !f.disk.Has(i):
		fl = newFlight(f.name(i), j, f.m.buffers)
		fl.way = fromOrigin
		f.flights[k] = fl
		f.beginLocked()
	case fl == nil || !fl.unfinished():
		return nil
	case fl.job != j && j.whole && !fl.claimed:
		fl.job = j
		fl.take(fromOrigin, "", nil)
	case fl.job != j:
		return nil
	}
	fl.claimed = true
	return fl
}

// flightsOf returns all flights of a job that still arrive.
func (f *file) flightsOf(j *Job) []*flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*flight
	for _, fl := range f.flights {
		if fl.job == j && fl.unfinished() {
			out = append(out, fl)
		}
	}
	return out
}

// forget takes a flight out: who comes now starts anew.
func (f *file) forget(fl *flight) {
	f.mu.Lock()
	f.forgetLocked(fl)
	f.mu.Unlock()
}

func (f *file) forgetLocked(fl *flight) {
	if k := keyOf(fl.name.Index, fl.job); f.flights[k] == fl {
		delete(f.flights, k)
	}
}

// abandon ends what is left of a job: its flights fail with err. Those behind the
// block at which it failed were not tried: their readers take them anew, where
// that can help.
func (f *file) abandon(j *Job, err error) {
	missed := err
	if passes(err) {
		missed = fmt.Errorf("%w: %w", errMissed, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.whole == j {
		f.endWholeLocked()
	}
	for _, fl := range f.flights {
		if fl.job == j && fl.unfinished() {
			f.forgetLocked(fl)
			if fl.name.Index > j.pos/content.BlockSize {
				fl.end(failed, missed)
			} else {
				fl.end(failed, err)
			}
		}
	}
}

// save stores a finished block and ends its flight. Where the store refuses,
// the flight fails for those who come later; who reads it now reads the buffer
// to its end.
func (f *file) save(fl *flight, seal content.Seal, outboard []byte) {
	err := f.disk.Write(fl.name.Index, fl.bytes(), store.Record{Seal: seal, Outboard: outboard})
	f.forget(fl)
	if err != nil {
		f.m.metrics.storeFailures.Inc()
		level := slog.LevelDebug
		if !f.m.refusing.Swap(true) { // one line, however many blocks
			level = slog.LevelWarn
		}
		f.m.log.Log(context.Background(), level, "cannot store blocks, passing them on uncached", "task", f.key.Task, "block", fl.name.Index, "err", err)
		fl.unsave(err)
		return
	}
	if f.m.refusing.Load() && f.m.refusing.Swap(false) {
		f.m.log.Info("blocks are stored again")
	}
	f.m.metrics.blocksStored.Inc()
	fl.end(stored, nil)
	f.checkDigest()
	f.m.changed(f.key.Task)
}

// runLocked returns the run of missing blocks from block i on that ends before
// block end or at the stripe's edge; f.mu is held.
func (f *file) runLocked(i, end int64) content.Range {
	start := f.layout.Block(i).Off
	edge := f.layout.StripeRange(f.layout.StripeOf(start)).End()
	to := start
	for ; i < end && to < edge && f.flights[keyOf(i, nil)] == nil && !f.disk.Has(i); i++ {
		to = f.layout.Block(i).End()
	}
	return content.Span(start, to)
}

// beginLocked notes that bytes will come; f.mu is held.
func (f *file) beginLocked() {
	f.fills++
	f.verified.Store(false)
}

// begun returns how many fills were begun so far.
func (f *file) begun() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fills
}

// fillLocked starts a job for a run, with one follower; f.mu is held. A file
// named by a digest is filled from one upstream: a reader that was let in by a
// checked digest, of which a block has been evicted since, gets no other's bytes.
func (f *file) fillLocked(q query, run content.Range) (*Job, error) {
	if f.task.Digest != "" && upstream(q.task.URL) != upstream(f.task.URL) {
		return nil, fmt.Errorf("%w: evicted in part, and it came from another upstream", ErrNotSupported)
	}
	f.beginLocked()
	j := f.m.newJob(q, run)
	j.file = f
	j.settle()
	first, end := content.BlockSpan(run)
	for i := first; i < end; i++ {
		f.flights[keyOf(i, j)] = newFlight(f.name(i), j, f.m.buffers)
	}
	if err := f.m.start(j); err != nil {
		for i := first; i < end; i++ {
			delete(f.flights, keyOf(i, j))
		}
		return nil, err
	}
	return j, nil
}
