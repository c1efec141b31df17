package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// A file whose origin does not tell its length has no stripes, no owners and no
// records: all of them follow from the size. The head reads it once, from its
// start, into a file in Config.Spool, and everybody follows: clients of the head,
// peers who ask it, and their clients. The last byte tells the size. The head
// then stores what has come as any other file, of an origin without ranges, and
// lets the spool go. Others keep nothing: they read it again from the swarm.
//
// Of what is in the spool the hash of each leaf is kept in memory (2 KiB a MiB),
// and a leaf is compared with it whenever it is read. The head signs increments
// of leaves for those who ask it, under a name with content.OpenSize; peers take
// them from the head alone, since nobody else can say where the file ends.

// growing is a file that is being read and whose size is not known.
type growing struct {
	m     *Manager
	job   *Job
	found Found // Size -1
	gen   content.Generation
	began time.Time
	spool *os.File
	// reserved is how much room the store makes for the spool, in whole blocks;
	// the job's alone until done is closed.
	reserved int64
	done     chan struct{} // closed when it is a file, or has failed

	mu sync.Mutex
	// mu guards the following.
	n         int64 // bytes that are there
	signed    int64 // the end of what has been signed
	unsigned  time.Time
	source    Source
	tail      []byte // the leaf that is arriving
	hashes    []content.LeafHash
	incs      []placedIncrement // the latest ones
	ended     bool
	err       error // why it ended early
	users     int
	unused    int
	abandoned bool // nobody follows it, and it is about to end
	lingering *time.Timer
	bell      bell
}

// placedIncrement is an increment of a block.
type placedIncrement struct {
	block int64
	inc   content.Increment
}

// keptIncrements is how many increments followers share. Who is further behind
// has his own signed.
const keptIncrements = 32

// Grow says that a source does not tell the file's size. The bytes are to be
// given to Append, all of them, whatever Want says, and their end to Grown. After
// a failure the next source goes on where Grew has come to; it must have the same
// generation: ErrChanged. ErrNotSupported where the file has shown to be longer
// than half of what the store can hold. AskOrigin or AskPeer is to be called before.
func (j *Job) Grow(found Found) error {
	if j.Private() || credentialed(j.Origin) {
		return fmt.Errorf("%w: a private file whose origin does not tell its length", ErrNotSupported)
	}
	source := j.source()
	if g := j.grows; g != nil {
		if g.gen != found.Generation {
			return fmt.Errorf("generation %s of %s, was %s: %w", found.Generation, j.Task.URL, g.gen, ErrChanged)
		}
		g.mu.Lock()
		g.source = source
		g.mu.Unlock()
		return nil
	}
	if j.file != nil || !j.Expect.IsZero() && j.Expect != found.Generation {
		return fmt.Errorf("generation %s of %s is of a size that is not known: %w", found.Generation, j.Task.URL, ErrChanged)
	}
	if j.m.isEndless(j.Task.ID) {
		return fmt.Errorf("%w: it is longer than half the store, and its origin does not say how long", ErrNotSupported)
	}
	spool, err := os.CreateTemp(j.m.cfg.Spool, spoolPattern)
	if err != nil {
		return fmt.Errorf("keep a file of unknown length: %w", err)
	}
	now := j.m.cfg.Now()
	g := &growing{
		m: j.m, job: j, found: found, gen: found.Generation, began: now.Add(-found.Age), spool: spool,
		done: make(chan struct{}), source: source, tail: make([]byte, 0, content.LeafSize),
	}
	j.grows = g
	j.stay()
	j.m.mu.Lock()
	j.m.growing[j.Task.ID] = g
	j.m.mu.Unlock()
	g.mu.Lock()
	g.lingerLocked()
	g.mu.Unlock()
	j.settle()
	return nil
}

// Unsized says of a file whose metadata alone is wanted that its source does not
// tell its size.
func (j *Job) Unsized(found Found) error {
	if j.Private() || credentialed(j.Origin) {
		return fmt.Errorf("%w: a private file whose origin does not tell its length", ErrNotSupported)
	}
	if !j.Expect.IsZero() && j.Expect != found.Generation {
		return fmt.Errorf("generation %s of %s, asked for %s: %w", found.Generation, j.Task.URL, j.Expect, ErrChanged)
	}
	j.unsized = &found
	j.settle()
	return nil
}

// Grew returns how many bytes have come of a file of unknown size.
func (j *Job) Grew() int64 {
	if j.grows == nil {
		return 0
	}
	return j.grows.pos()
}

func (g *growing) pos() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// Append takes the next bytes of a file of unknown size.
func (j *Job) Append(p []byte) error {
	g := j.grows
	if g.n+int64(len(p)) > j.m.cfg.Store.Capacity()/2 { // the other half takes its blocks
		j.m.endless.Add(j.Task.ID, j.m.cfg.Now())
		return fmt.Errorf("%w: its origin does not tell its length, and after %d bytes it is longer than half the store", ErrNotSupported, g.n)
	}
	for len(p) > 0 {
		// Whole leaves go to the spool as they are, a part of one waits.
		part := p[:min(len(p), content.LeafSize-len(g.tail))]
		if len(g.tail) == 0 && len(p) >= content.LeafSize {
			part = p[:len(p)/content.LeafSize*content.LeafSize]
		}
		if err := g.append(part); errors.Is(err, store.ErrFull) { // what is pinned leaves too little for it
			j.m.endless.Add(j.Task.ID, j.m.cfg.Now())
			return fmt.Errorf("%w: its origin does not tell its length, and after %d bytes there is no room for more: %w", ErrNotSupported, g.n, err)
		} else if err != nil {
			return err
		}
		p = p[len(part):]
	}
	return nil
}

// append takes whole leaves, or what the leaf that is arriving lacks, or less.
func (g *growing) append(p []byte) error {
	whole := p
	if len(g.tail) > 0 || len(p) < content.LeafSize {
		g.mu.Lock()
		g.tail = append(g.tail, p...)
		g.mu.Unlock()
		whole = g.tail
	}
	if len(whole) < content.LeafSize {
		return g.came(len(p), nil)
	}
	hashes, err := g.keep(whole, g.n/content.LeafSize*content.LeafSize)
	if err != nil {
		return err
	}
	return g.came(len(p), hashes)
}

// reserve has the store make room for the spool's bytes up to end.
func (g *growing) reserve(end int64) error {
	for g.reserved < end {
		if err := g.m.cfg.Store.Reserve(content.BlockSize); err != nil {
			return err
		}
		g.reserved += content.BlockSize
	}
	return nil
}

// keep writes leaves to the spool.
func (g *growing) keep(p []byte, off int64) ([]content.LeafHash, error) {
	err := g.reserve(off + int64(len(p)))
	if err == nil {
		err = store.Room(g.m.cfg.Spool, int64(len(p)))
	}
	if err == nil {
		_, err = g.spool.WriteAt(p, off)
	}
	if err != nil {
		return nil, fmt.Errorf("keep a file of unknown length: %w", err)
	}
	var hashes []content.LeafHash
	for ; len(p) > 0; p, off = p[min(len(p), content.LeafSize):], off+content.LeafSize {
		hashes = append(hashes, hashOpen(p[:min(len(p), content.LeafSize)], off))
	}
	return hashes, nil
}

// hashOpen is the hash of a leaf at off of a file that has no end.
func hashOpen(leaf []byte, off int64) content.LeafHash {
	return content.HashLeaf(leaf, int(off/content.LeafSize%content.LeavesPerBlock), content.LeavesPerBlock)
}

// came says that n more bytes are there, and with them whole leaves.
func (g *growing) came(n int, leaves []content.LeafHash) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += int64(n)
	if len(leaves) > 0 {
		g.hashes = append(g.hashes, leaves...)
		g.tail = g.tail[:0]
		if g.unsigned.IsZero() {
			g.unsigned = time.Now()
		}
	}
	g.bell.ring()
	return nil
}

// Grown says that the file of unknown size ends here. What the origin sent is
// then stored as a file of that size; followers at peers hear of the end when it
// is.
func (j *Job) Grown(ctx context.Context) error {
	g := j.grows
	if len(g.tail) > 0 {
		hashes, err := g.keep(g.tail, g.n-int64(len(g.tail)))
		if err != nil {
			return err
		}
		if err := g.came(0, hashes); err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.ended = true
	ours := g.source == SourceOrigin
	g.bell.ring()
	g.mu.Unlock()
	j.grown = true
	if !ours {
		return nil
	}
	meta := g.found.Meta
	meta.Size = g.n
	if j.Task.Digest == "" {
		meta.Generation, _ = content.NewGeneration(meta.ETag, meta.LastModified, meta.Size)
	}
	found := g.found
	found.Meta = meta
	found.Age += j.m.cfg.Now().Sub(g.began.Add(found.Age))
	_, err := j.m.Import(ctx, Import{Task: j.Task, Found: found, Body: g.reader(ctx)})
	if err != nil { // who follows has all of it; who comes later reads it anew
		j.m.log.Warn("cannot store a file of unknown length", "task", j.Task.ID, "size", meta.Size, "err", err)
	}
	return nil
}

// end lets go of the job's growing file; err is why it ended early.
func (g *growing) end(err error) {
	m := g.m
	m.mu.Lock()
	if m.growing[g.job.Task.ID] == g {
		delete(m.growing, g.job.Task.ID)
	}
	m.mu.Unlock()
	g.mu.Lock()
	if !g.ended {
		g.ended, g.err = true, cmp.Or(err, error(ErrUnavailable))
	}
	if g.lingering != nil {
		g.lingering.Stop()
	}
	close(g.done)
	g.bell.ring()
	g.closeLocked()
	g.mu.Unlock()
}

// failure returns why the file ended early, or nil.
func (g *growing) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// closeLocked removes the spool when the last has left after the end.
func (g *growing) closeLocked() {
	select {
	case <-g.done:
	default:
		return
	}
	if g.users == 0 && g.spool != nil {
		if err := errors.Join(g.spool.Close(), os.Remove(g.spool.Name())); err != nil {
			g.m.log.Warn("cannot remove a spooled file", "err", err)
		}
		g.spool = nil
		g.m.cfg.Store.GiveBack(g.reserved)
	}
}

// use counts a follower; false where it has ended, or is about to.
func (g *growing) use() (release func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spool == nil || g.err != nil || g.abandoned {
		return nil, false
	}
	g.users++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.users--
		g.lingerLocked()
		g.closeLocked()
	}), true
}

// lingerLocked stops the reading later where nobody follows it, or is about to
// since he waits for its job: see linger.go. What is left of it nobody knows.
func (g *growing) lingerLocked() {
	if g.users > 0 || g.ended || g.m.cfg.Whole {
		return
	}
	g.unused++
	unused := g.unused
	if g.lingering != nil {
		g.lingering.Stop()
	}
	g.lingering = time.AfterFunc(g.m.cfg.Linger, func() {
		g.mu.Lock()
		idle := g.users == 0 && g.unused == unused && !g.ended
		switch {
		case idle && g.job.waitedFor():
			g.lingerLocked()
			idle = false
		case idle:
			g.abandoned = true
		}
		g.mu.Unlock()
		if idle {
			g.job.stop()
		}
	})
}

// meta returns what is known: a Size from the file's end on.
func (g *growing) meta() content.Meta {
	g.mu.Lock()
	defer g.mu.Unlock()
	meta := g.found.Meta
	if g.ended && g.err == nil {
		meta.Size = g.n
	}
	return meta
}

// read fills p with bytes from off on, at least one, and waits for them. io.EOF
// at the file's end.
func (g *growing) read(ctx context.Context, p []byte, off int64) (int, Source, error) {
	for {
		g.mu.Lock()
		source, ended, err, there := g.source, g.ended, g.err, g.n
		leaves := int64(len(g.hashes)) * content.LeafSize
		switch {
		case off < min(leaves, there):
			g.mu.Unlock()
			n, err := g.readLeaves(p, off, min(leaves, there))
			return n, source, err
		case off < there:
			n := copy(p, g.tail[off-leaves:])
			g.mu.Unlock()
			return n, source, nil
		case ended:
			g.mu.Unlock()
			return 0, source, cmp.Or(err, io.EOF)
		}
		wake := g.bell.wait()
		g.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, source, context.Cause(ctx)
		}
	}
}

// readLeaves reads from the spool, before byte end, and compares what it reads
// with its hashes.
func (g *growing) readLeaves(p []byte, off, end int64) (int, error) {
	first := off / content.LeafSize * content.LeafSize
	n := min(int64(len(p)), end-off)
	if off == first && n >= content.LeafSize && off+n < end {
		n = n / content.LeafSize * content.LeafSize
	}
	buf := p[:n]
	last := min(end, (off+n+content.LeafSize-1)/content.LeafSize*content.LeafSize)
	if off != first || off+n != last { // a part of a leaf: all of it is read
		buf = make([]byte, last-first)
	}
	if _, err := g.spool.ReadAt(buf, first); err != nil {
		return 0, fmt.Errorf("read a spooled file: %w", err)
	}
	for at := first; at < last; at += content.LeafSize {
		leaf := buf[at-first : min(at+content.LeafSize, last)-first]
		g.mu.Lock()
		want := g.hashes[at/content.LeafSize]
		g.mu.Unlock()
		if hashOpen(leaf, at) != want {
			return 0, fmt.Errorf("read a spooled file: %w", store.ErrCorrupt)
		}
	}
	if len(buf) != int(n) {
		copy(p, buf[off-first:][:n])
	}
	return int(n), nil
}

// reader returns a reader of the file from its start.
func (g *growing) reader(ctx context.Context) io.Reader {
	off := int64(0)
	return readerFunc(func(p []byte) (int, error) {
		n, _, err := g.read(ctx, p, off)
		off += int64(n)
		return n, err
	})
}

// readerFunc is an io.Reader that is one function.
type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// next returns an increment that covers the leaf at byte off, signing it where it
// is time, and up to which byte the file is there; else what to wait for.
func (g *growing) next(off int64) (inc *content.Increment, to int64, wake <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	block, leaf := off/content.BlockSize, int(off%content.BlockSize/content.LeafSize)
	there := min(int64(len(g.hashes))*content.LeafSize, g.n)
	if off >= there {
		if g.ended {
			return nil, there, nil, g.err
		}
		return nil, 0, g.bell.wait(), nil
	}
	for i := range g.incs {
		if p := &g.incs[i]; p.block == block && p.inc.First <= leaf && leaf < p.inc.End() {
			return &p.inc, min(there, block*content.BlockSize+int64(p.inc.End())*content.LeafSize), nil, nil
		}
	}
	waited := time.Since(g.unsigned)
	if off >= g.signed && there-off < incrementLeaves*content.LeafSize && !g.ended && waited < incrementDelay {
		g.bell.ringIn(incrementDelay-waited, func() {
			g.mu.Lock()
			g.bell.alarm()
			g.mu.Unlock()
		})
		return nil, 0, g.bell.wait(), nil
	}
	to = min(there, (block+1)*content.BlockSize)
	name := content.BlockName{Task: g.job.Task.ID, Generation: g.gen, FileSize: content.OpenSize, Index: block}
	hashes := g.hashes[off/content.LeafSize : (to+content.LeafSize-1)/content.LeafSize]
	signed, err := content.SignIncrement(g.m.cfg.Key, g.m.cfg.Self, name, leaf, hashes)
	if err != nil {
		return nil, 0, nil, err
	}
	if len(g.incs) >= keptIncrements {
		g.incs = append(g.incs[:0], g.incs[1:]...)
	}
	g.incs = append(g.incs, placedIncrement{block, signed})
	if to > g.signed {
		g.signed, g.unsigned = to, time.Time{}
	}
	return &signed, to, nil, nil
}

// serve sends the file to a peer as it comes. Nobody but who reads it from the
// origin can vouch for its end.
func (g *growing) serve(ctx context.Context, req rangeread.Request, a *rangeread.Answer) error {
	g.mu.Lock()
	source := g.source
	g.mu.Unlock()
	if source != SourceOrigin {
		return rangeread.NewError(rangeread.StatusSequential, "its size is not known yet: ask the head")
	}
	h := rangeread.Header{
		Meta: g.found.Meta, Source: rangeread.SourceOrigin, CacheControl: g.found.CacheControl, Age: max(0, g.m.cfg.Now().Sub(g.began)),
	}
	if _, err := a.Header(h); err != nil || req.Range.Empty() {
		return err
	}
	read := func(p []byte, off int64) error {
		for len(p) > 0 {
			n, _, err := g.read(ctx, p, off)
			if err != nil {
				return err
			}
			p, off = p[n:], off+int64(n)
		}
		return nil
	}
	for {
		inc, to, wake, err := g.next(a.Pos())
		switch {
		case err != nil:
			return wireError(err)
		case inc != nil:
			err = a.Increment(a.Pos()/content.BlockSize, to, *inc, read)
		case wake != nil:
			err = a.Wait(ctx, rangeread.WaitOrigin, wake)
		default: // all of it was sent: the end is told when it is stored
			if err = a.Wait(ctx, rangeread.WaitDisk, g.done); err == nil {
				return a.Ended()
			}
		}
		if err != nil {
			return err
		}
	}
}
