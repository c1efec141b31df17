package seed

import (
	"context"
	"errors"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Hold is one reader's grip on one block: it keeps the block's fill going, and
// reads the block from the store or from its flight. Not safe for concurrent
// use. The holder releases it.
type Hold struct {
	f       *file
	q       query
	i       int64
	lease   store.Lease
	fl      *flight // where to read; nil: the store has the block
	flight  *flight // held until release
	job     *Job    // joined until release
	reading bool    // ReadAt was called, or Serve began to send
	tries   int
	source  Source
}

// Source says where a byte came from, as seen from this node.
type Source int

// Sources of a byte.
const (
	SourceLocal Source = iota
	SourcePeer
	SourceOrigin
)

// String returns the source's name in headers and metrics.
func (s Source) String() string { return [...]string{"local", "peer", "origin"}[s] }

// hold returns grips on all blocks that r touches, in order. Missing blocks are
// brought in by one job a run within a stripe. With q.noFill it returns
// ErrNotFound at the first block that is neither held nor on its way. It may
// wait for a fill that is being cancelled.
func (f *file) hold(ctx context.Context, q query, r content.Range) ([]*Hold, error) {
	first, end := content.BlockSpan(r.Intersect(content.Range{Len: f.meta.Size}))
	holds := make([]*Hold, 0, end-first)
	for i := first; i < end; i++ {
		h := &Hold{f: f, q: q, i: i}
		if err := h.take(ctx, end); err != nil {
			h.Release()
			for _, h := range holds {
				h.Release()
			}
			return nil, err
		}
		holds = append(holds, h)
	}
	return holds, nil
}

// take joins the block's flight, or starts a job for the run of missing blocks
// that begins here and ends before block end or at the stripe's edge. The block's
// stripe is leased before it is looked for: what is held, and what is stored
// while it is followed, is not evicted before it was read.
func (h *Hold) take(ctx context.Context, end int64) error {
	h.lease = h.f.disk.Lease(h.f.layout.Block(h.i))
	for {
		ending, err := h.tryTake(end)
		if ending == nil {
			return err
		}
		// It was abandoned a moment ago: start anew when it has ended.
		if err := h.q.wait(ctx, ending.ended); err != nil {
			return err
		}
	}
}

// tryTake is take, but returns a job that is about to end and has the block.
func (h *Hold) tryTake(end int64) (ending *Job, err error) {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.flights[keyOf(h.i, nil)]
	switch {
	case fl == nil && f.disk.Has(h.i):
		h.fl = nil
		if j := h.q.found; j != nil && j.first == h.i {
			h.source = j.source() // stored a moment ago
		}
		return nil, nil
	case fl == nil && f.aheadLocked(h.i) && f.whole.join(h.q.from):
		fl = newFlight(f.name(h.i), f.whole, f.m.buffers)
		fl.way = fromOrigin
		f.flights[keyOf(h.i, f.whole)] = fl
		f.beginLocked()
		h.hold(fl, f.whole)
		return nil, nil
	case fl == nil && h.q.noFill:
		return nil, ErrNotFound
	case fl == nil:
		j, err := f.fillLocked(h.q, f.runLocked(h.i, end))
		if err != nil {
			return nil, err
		}
		h.hold(f.flights[keyOf(h.i, j)], j)
		return nil, nil
	case !fl.unfinished(): // it needs its job no more
		h.hold(fl, nil)
		return nil, nil
	case !fl.job.join(h.q.from):
		return fl.job, nil
	}
	h.hold(fl, fl.job)
	return nil, nil
}

// hold grips a flight and keeps the job that was joined; file.mu is held, and
// the flight can be found, so that it has not ended.
func (h *Hold) hold(fl *flight, j *Job) {
	h.fl, h.flight, h.job = fl, fl, j
	fl.grip(h.reading)
}

// Release lets go. It may be called more than once.
func (h *Hold) Release() {
	if h.flight != nil {
		h.flight.ungrip(h.reading)
	}
	if h.job != nil {
		h.job.leave()
	}
	h.lease.Release()
	h.fl, h.flight, h.job = nil, nil, nil
}

// Source says where the bytes came from that the last ReadAt returned.
func (h *Hold) Source() Source { return h.source }

// begin says that the block is being read: its memory is not for others now.
func (h *Hold) begin() {
	if h.reading {
		return
	}
	h.reading = true
	if h.flight != nil {
		h.flight.begin()
	}
}

// maxTries bounds how often a hold takes its block anew.
const maxTries = 2

// retake takes the block anew after its copy was dropped or its flight failed,
// where that helps; else it returns err.
func (h *Hold) retake(ctx context.Context, err error) error {
	if !errors.Is(err, errDropped) { // that happens once: the next is being read
		h.tries++
	}
	if h.tries > maxTries {
		return err
	}
	if errors.Is(err, store.ErrCorrupt) {
		h.f.m.changed(h.f.key.Task)
	}
	h.Release()
	return h.take(ctx, h.i+1)
}

// again decides whether a block whose flight failed is to be taken anew: one
// that was not fetched at all, and one that a job with lesser rights than ours
// could not get.
func (h *Hold) again(ctx context.Context, err error) error {
	lesser := h.job != nil && h.job.rights > h.q.rights() && errors.Is(err, ErrUnavailable)
	if h.job != nil && h.job.refusedFor(&h.q, err) {
		lesser = true
	}
	if lesser || errors.Is(err, errDropped) || errors.Is(err, errMissed) {
		return h.retake(ctx, err)
	}
	return err
}

// ReadAt reads what is there of the block from offset off of the file on into
// p: at least one byte, unless it fails or p is empty. It waits for bytes that
// are still to come. Bytes from the store are checked against the block's root.
func (h *Hold) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	b := h.f.layout.Block(h.i)
	p = p[:min(int64(len(p)), b.End()-off)]
	if len(p) == 0 {
		return 0, nil
	}
	h.begin()
	for {
		if h.fl == nil {
			err := h.f.disk.ReadAt(p, off, true)
			if err == nil {
				return len(p), nil
			}
			if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrCorrupt) {
				return 0, err
			}
			if err := h.retake(ctx, err); err != nil {
				return 0, err
			}
			continue
		}
		n, state, wake, err := h.fl.read(p, int(off-b.Off))
		switch {
		case n > 0:
			h.source = h.fl.source()
			return n, nil
		case state == stored:
			h.source = h.fl.source()
			h.fl = nil
		case state == failed:
			if err := h.again(ctx, err); err != nil {
				return 0, err
			}
		default:
			select {
			case <-wake:
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
	}
}
