package seed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// Filler brings missing blocks into this node.
type Filler interface {
	// Fill reads what job wants, from its Pos on, from the origin where this
	// node owns it and else from peers, until job.Done or an error. Errors that
	// mean something to others: ErrNotSupported, ErrChanged, ErrConflict,
	// ErrUnavailable, *OriginError, *RangeError and *rangeread.Error. It must
	// return soon after ctx ends.
	Fill(ctx context.Context, job *Job) error
}

// Job is one run of missing blocks that a Filler brings in, in order, from one
// source after another. Its methods are for the Filler's goroutine alone. A
// source is read so: AskPeer or AskOrigin, then Begin, then Buffer and Advance or
// Verified, time and again.
type Job struct {
	// Task, Origin say what to read. Origin.Size is -1 where not known.
	Task   content.Task
	Origin rangeread.Origin
	// Expect is the generation asked for; zero for any.
	Expect content.Generation
	// Known is the generation that is held, where the question is whether it is
	// current; zero otherwise.
	Known content.Generation
	// KnownSize is the size of Known.
	KnownSize int64
	// Validate says that what a source knows does not do unless it asks for it
	// anew: the head its origin, others the head.
	Validate bool
	// Path holds the peers for which this job runs, the first reader first;
	// empty for a client of this node. Skip holds peers that they found dead.
	Path, Skip []peer.ID

	m       *Manager
	permit  *permit   // to read a private file
	who     permitKey // the credentials that Origin has
	cancel  context.CancelCauseFunc
	once    sync.Once
	decide  sync.Once
	decided chan struct{} // closed when it is known whom the job asks first
	settled chan struct{} // closed when file, grows or unsized is set, or the fill has failed
	ended   chan struct{} // closed when no flight of it arrives any more
	err     error         // valid after ended, or after settled where file is nil
	rights  int           // those of the query that started it
	first   int64         // the first block wanted at the start
	// background: nobody waited for it when it was started.
	background bool

	pos, end int64
	file     *file
	stores   errgroup.Group
	into     *flight // what the last Buffer belongs to
	whole    bool    // reads all of the file; written under file.mu
	// Of a file whose size its source does not tell: what comes of it, whether its
	// end has come, or what is known where no byte was wanted. They are set before
	// settled is closed, but for grown.
	grows   *growing
	grown   bool
	unsized *Found
	skip    []byte // scratch for bytes that nobody wants

	mu sync.Mutex
	// mu guards the following.
	followers int
	client    bool         // a client of this node follows it, or did
	way       way          // written by the job's goroutine alone
	from      peer.ID      // who is asked, where way is fromPeer or fromSite
	refusal   *OriginError // what Refused was told; written by the job's goroutine alone
	gone      bool         // ended, or about to: join no more
	partial   bool         // some bytes of the block in progress are there
	read      int64        // pos, of a job that reads all of the file
}

// join adds a follower, a peer or, "", a client of this node; it reports false
// where the job is being cancelled.
func (j *Job) join(from peer.ID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return false
	}
	j.client = j.client || from == ""
	j.followers++
	return true
}

// ForClient reports whether a client of this node waits for the job, or did: it
// may have joined one that runs for a peer.
func (j *Job) ForClient() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.client || len(j.Path) == 0
}

// stay adds a follower that never leaves: only stop ends the job early then.
func (j *Job) stay() {
	j.mu.Lock()
	j.followers++
	j.mu.Unlock()
}

// waitedFor reports whether anybody follows a job that has one who stays.
func (j *Job) waitedFor() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.followers > 1
}

// leave takes a follower away. The last one ends the job: at once where nothing
// of the block in progress has come, else when that block is whole, since its
// bytes would have to be read from the origin again.
func (j *Job) leave() {
	j.mu.Lock()
	j.followers--
	last := j.followers == 0 && !j.gone && !j.partial
	if last {
		j.gone = true
	}
	j.mu.Unlock()
	if last {
		j.cancel(errAbandoned)
	}
}

// progress says whether the job is inside a block. Between blocks a job that
// nobody follows wants nothing more.
func (j *Job) progress(partial bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.partial = partial
	if !partial && j.followers == 0 {
		j.gone = true
		j.end = min(j.end, j.pos)
	}
}

// source says where the job's bytes come from.
func (j *Job) source() Source {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.way == fromOrigin {
		return SourceOrigin
	}
	return SourcePeer
}

// Meta returns the file's metadata; false before Begin.
func (j *Job) Meta() (content.Meta, bool) {
	if j.file == nil {
		return content.Meta{}, false
	}
	return j.file.metadata(), true
}

// Size returns the file's size, or the reader's word for it, or -1.
func (j *Job) Size() int64 {
	if j.file != nil {
		return j.file.meta.Size
	}
	return j.Origin.Size
}

// Pos returns the offset of the next byte that is missing.
func (j *Job) Pos() int64 { return j.pos }

// Want returns the range that is missing, which is whole blocks once the size
// is known. What is behind it nobody waits for any more.
func (j *Job) Want() content.Range { return content.Span(j.pos, j.end) }

// Done reports whether nothing is missing.
func (j *Job) Done() bool {
	return j.grown || j.unsized != nil || j.file != nil && j.pos >= j.end && !j.Unsealed()
}

// AskPeer says that peer p is about to be asked for the next bytes, AskOrigin
// that the origin is. It must be said before: who follows this job must know on
// whom it waits.
func (j *Job) AskPeer(p peer.ID) { j.ask(fromPeer, p) }

// AskSite is AskPeer for a peer that reads for all of this node's site, by a
// request that says so: no peer may follow this node meanwhile.
func (j *Job) AskSite(p peer.ID) { j.ask(fromSite, p) }

// AskHeld says that the origin is next, and that at most a peer is asked before,
// for what it holds: not for long, but while it reads the origin; see AskPeer. One
// that reads for this node's site is named: for whom it waits may not wait for this
// node meanwhile.
func (j *Job) AskHeld(p peer.ID) { j.ask(fromHeld, p) }

// AskOrigin says that the origin is about to be asked; see AskPeer.
func (j *Job) AskOrigin() { j.ask(fromOrigin, "") }

// Refused says that the origin has refused what the job wants, or, nil, that it may
// be asked again. Peers may still be asked for what they hold, from the next AskPeer
// on: who may not wait for that is told so, and does not take this node for busy.
func (j *Job) Refused(e *OriginError) {
	j.mu.Lock()
	j.refusal = e
	j.mu.Unlock()
}

func (j *Job) ask(w way, from peer.ID) {
	j.mu.Lock()
	j.way, j.from = w, from
	j.mu.Unlock()
	j.decide.Do(func() { close(j.decided) })
	if j.file == nil {
		return
	}
	for _, fl := range j.file.flightsOf(j) {
		fl.take(w, from, j.refusal)
	}
}

// asksPeer returns the peer that the job waits for, how it asks him, and what the
// origin said before, if it was asked.
func (j *Job) asksPeer() (peer.ID, way, *OriginError) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.from, j.way, j.refusal
}

// Found is what a source says of a task's file.
type Found struct {
	content.Meta
	// CacheControl is the origin's header field.
	CacheControl string
	// Age since the origin was asked.
	Age time.Duration
	// Private is a peer's word that the file is; of the origin's own answer the
	// job knows.
	Private bool

	public bool // there is no doubt that it is not
}

// Begin tells what file it is. The first call makes the file; later ones, of
// other sources, must agree: ErrChanged. ErrNotSupported where the store
// takes no more files. Where the origin serves no ranges the job may change
// its range, see Whole. Errors of other kinds are the store's, and final.
func (j *Job) Begin(found Found) error {
	meta := found.Meta
	if j.file != nil {
		if meta.Generation != j.file.meta.Generation || meta.Size != j.file.meta.Size {
			return fmt.Errorf("generation %s of %s, was %s: %w", meta.Generation, j.Task.URL, j.file.meta.Generation, ErrChanged)
		}
		if meta.Sequential && j.way == fromOrigin {
			j.file.sequential.Store(true) // a request for a part has shown it
			j.Whole()
		}
		return nil
	}
	if !j.Expect.IsZero() && j.Expect != meta.Generation {
		return fmt.Errorf("generation %s of %s, asked for %s: %w", meta.Generation, j.Task.URL, j.Expect, ErrChanged)
	}
	j.classify(&found)
	f, err := j.m.createLocked(j.Task, found, j.way == fromOrigin || j.Validate)
	if err != nil {
		return err
	}
	j.file = f
	j.end = min(j.end, meta.Size)
	if meta.Sequential && j.way == fromOrigin && j.pos < j.end {
		f.takeWholeLocked(j)
	} else { // what others have is not asked for again
		own := f.adoptLocked(j)
		j.pos, j.end = own.Off, own.End()
	}
	f.mu.Unlock()
	j.settle()
	return nil
}

// classify says whether a file is private. A peer that is no seed may say of none
// that it is public.
func (j *Job) classify(found *Found) {
	switch {
	case j.way == fromOrigin:
		found.Private = credentialed(j.Origin)
		found.public = !found.Private
	case (j.way == fromPeer || j.way == fromSite) && j.m.cfg.MayGrant != nil && j.m.cfg.MayGrant(j.from):
		found.public = !found.Private
	default:
		found.Private = found.Private || j.permit != nil
	}
}

// Whole is to be called before the origin of a file is asked that is known to
// serve no ranges: one job reads all of it from its start, for everybody. Where
// this is the one, it now wants the whole file; another's blocks go to that one,
// and it is Done.
func (j *Job) Whole() {
	j.file.mu.Lock()
	j.file.takeWholeLocked(j)
	j.file.mu.Unlock()
}

// target returns the flight that the next byte goes to; nil where nobody needs
// it from this job: another has the block, or the store, or the flight has that
// byte. rest is for how many bytes that holds.
func (j *Job) target() (fl *flight, rest int64) {
	b := j.file.layout.Block(j.pos / content.BlockSize)
	fl, rest = j.file.claim(j, j.pos/content.BlockSize), b.End()-j.pos
	if fl == nil {
		return nil, rest
	}
	switch at := int(j.pos - b.Off); {
	case fl.n == at:
		return fl, rest
	case fl.n > at:
		return nil, int64(fl.n - at)
	default: // it was handed to this job too late
		return nil, rest
	}
}

// Buffer waits for memory and returns where the next bytes go: at least one
// byte, at most to the end of the block at Pos. Begin must have been called.
func (j *Job) Buffer(ctx context.Context) ([]byte, error) {
	fl, rest := j.target()
	if j.into = fl; fl == nil {
		if j.skip == nil {
			j.skip = make([]byte, 64<<10)
		}
		return j.skip[:min(int64(len(j.skip)), rest)], nil
	}
	if fl.buf == nil {
		buf, err := j.m.buffers.get(ctx, j.way == fromOrigin)
		if err != nil {
			return nil, fmt.Errorf("wait for a block buffer: %w", context.Cause(ctx))
		}
		fl.lend(buf)
	}
	return fl.bytes()[fl.n:], nil
}

// Advance says that n bytes from the origin were read into the last Buffer.
func (j *Job) Advance(n int) error {
	fl := j.into
	j.pos += int64(n)
	if j.whole {
		j.mu.Lock()
		j.read = j.pos
		j.mu.Unlock()
	}
	if fl == nil {
		return nil
	}
	fl.raw = true
	fl.hash(fl.n + n)
	j.progress(true) // before a reader gets these bytes and leaves
	fl.advance(n)
	if fl.n < fl.size {
		return nil
	}
	if fl.seal != nil {
		return j.closeBlock(fl)
	}
	outboard, root := fl.tree()
	seal, err := content.SealBlock(j.m.cfg.Key, j.m.cfg.Self, fl.name, root)
	if err != nil {
		return err
	}
	j.store(fl, seal, outboard)
	return nil
}

// store writes a whole block in the background; the flight ends when it is held.
func (j *Job) store(fl *flight, seal content.Seal, outboard []byte) {
	fl.finish(seal, outboard)
	j.progress(false)
	j.stores.Go(func() error {
		j.file.save(fl, seal, outboard)
		return nil
	})
}
