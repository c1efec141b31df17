package seed

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// backgroundShare is the part of Config.MaxFlights, one in so many, that
// everything nobody waits for may take together: readers have the rest.
const backgroundShare = 4

// Fetched says where the bytes of a prefetch were when it began: in this node's
// store, at peers, at the origin. It counts whole blocks.
type Fetched struct{ Local, Peer, Origin int64 }

// Sum returns all of them.
func (f Fetched) Sum() int64 { return f.Local + f.Peer + f.Origin }

func (f *Fetched) add(s Source, n int64) {
	switch s {
	case SourceLocal:
		f.Local += n
	case SourcePeer:
		f.Peer += n
	case SourceOrigin:
		f.Origin += n
	}
}

// Prefetch brings the blocks that ranges touch into the store, all of the
// file's where there are no ranges, and returns when they are stored. What is
// held already is left alone, so that a prefetch that failed can be repeated.
// It takes at most a quarter of Config.MaxFlights, together with all other
// prefetches, and at most half of the store. progress, where not nil, hears the
// bytes that are there and their sum, one call at a time. The whole of a file
// that a digest names is checked against it: ErrDigest. With pin the ranges are
// pinned first, also where the prefetch fails later: see Pin.
//
// When ctx ends, or a block cannot be had, blocks in progress are let go as
// readers let go of theirs.
func (f *File) Prefetch(ctx context.Context, ranges []content.Range, pin bool, progress func(done, total int64)) (Fetched, error) {
	size := f.f.meta.Size
	if len(ranges) == 0 {
		ranges = []content.Range{{Len: size}}
	}
	p := newPull(f.f, f.q, ranges, progress)
	if limit := f.f.m.cfg.Store.Capacity() / 2; p.total > limit {
		return Fetched{}, fmt.Errorf("%d bytes are more than half of the store, %d: prefetch a part, or make the store larger", p.total, limit)
	}
	if pin {
		for r := range p.want.All() {
			if err := f.Pin(r); err != nil {
				return Fetched{}, err
			}
		}
	}
	got, err := p.run(ctx)
	if err == nil && f.f.task.Digest != "" && p.total == size {
		err = f.f.verify(ctx)
	}
	return got, err
}

// pull is one bringing of blocks into the store for nobody who reads them.
type pull struct {
	f        *file
	q        query
	want     content.Set // whole blocks
	total    int64
	progress func(done, total int64)

	mu  sync.Mutex
	got Fetched // guarded by mu
}

func newPull(f *file, q query, ranges []content.Range, progress func(done, total int64)) *pull {
	p := &pull{f: f, q: q, progress: progress}
	whole := content.Range{Len: f.meta.Size}
	for _, r := range ranges {
		p.want.Add(r.Intersect(whole).Align(content.BlockSize).Intersect(whole))
	}
	p.total = p.want.Len()
	return p
}

// run asks for one run of missing blocks after another, as far as the share of
// the background reaches, and waits for them.
func (p *pull) run(ctx context.Context) (Fetched, error) {
	g, gctx := errgroup.WithContext(ctx)
	for r := range p.want.All() {
		first, end := content.BlockSpan(r)
		for i := first; i < end && gctx.Err() == nil; {
			if p.f.disk.Has(i) {
				p.add(p.heldFrom(i), i)
				i++
				continue
			}
			to := p.runEnd(i, end)
			p.ask(gctx, g, i, to)
			i = to
		}
	}
	err := g.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got, err
}

// runEnd returns the end of the run of missing blocks from i on: before block
// end, in one stripe, and no more than the background may have at once.
func (p *pull) runEnd(i, end int64) int64 {
	l := p.f.layout
	edge := l.StripeRange(l.StripeOf(l.Block(i).Off)).End()
	_, stripeEnd := content.BlockSpan(content.Span(l.Block(i).Off, edge))
	to := i + 1
	for to < min(end, stripeEnd, i+p.f.m.share) && !p.f.disk.Has(to) {
		to++
	}
	return to
}

// ask has blocks [i, to) brought in, and waits for them in the group.
func (p *pull) ask(ctx context.Context, g *errgroup.Group, i, to int64) {
	m, l := p.f.m, p.f.layout
	if m.background.Acquire(ctx, to-i) != nil {
		return // the group has failed, or ctx ended
	}
	m.renew(ctx, &p.q)
	holds, err := p.f.hold(ctx, p.q, content.Span(l.Block(i).Off, l.Block(to-1).End()))
	g.Go(func() error {
		if err != nil {
			m.background.Release(to - i)
			return err
		}
		for n, h := range holds {
			src, err := h.wait(ctx)
			if err != nil {
				for _, h := range holds[n:] {
					h.Release()
				}
				m.background.Release(int64(len(holds) - n))
				return fmt.Errorf("block %d: %w", h.i, err)
			}
			h.Release()
			m.background.Release(1)
			p.add(src, h.i)
		}
		return nil
	})
}

// heldFrom says where a block that is held came from: the first one may have
// come with the file's metadata a moment ago.
func (p *pull) heldFrom(i int64) Source {
	if j := p.q.found; j != nil && j.first == i {
		return j.source()
	}
	return SourceLocal
}

func (p *pull) add(s Source, block int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got.add(s, p.f.layout.Block(block).Len)
	if p.progress != nil {
		p.progress(p.got.Sum(), p.total)
	}
}

// wait returns when the store has the block, and where its bytes came from.
func (h *Hold) wait(ctx context.Context) (Source, error) {
	for h.fl != nil {
		state, wake, err := h.fl.watch()
		switch {
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
	return h.source, nil
}

// answer brings in what is missing of a range r for a peer who wants no bytes,
// and answers when it is stored.
func (p *pull) answer(ctx context.Context, r content.Range, h rangeread.Header, a *rangeread.Answer) error {
	l := p.f.layout
	if last := r.Intersect(content.Range{Len: l.Size}).End() - 1; l.StripeOf(r.Off) != l.StripeOf(last) {
		return rangeread.NewError(rangeread.StatusBadRequest, "%s is not in one stripe of %d bytes", r, l.Stripe())
	}
	p.q.wait = waitFor // only one may write the answer, and that is a.Wait below
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var got Fetched
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err = p.run(ctx)
	}()
	if err := a.Wait(ctx, rangeread.WaitOrigin, done); err != nil {
		cancel()
		<-done
		return err
	}
	if err != nil {
		return err
	}
	switch h.Source = rangeread.SourceStore; {
	case got.Origin > 0:
		h.Source = rangeread.SourceOrigin
	case got.Peer > 0:
		h.Source = rangeread.SourcePeer
	}
	_, err = a.Header(h)
	return err
}

// watch returns the flight's state, which changes next when wake is closed. One
// that will not be stored has failed here.
func (f *flight) watch() (state flightState, wake <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.unsaved != nil:
		return failed, nil, f.unsaved
	case f.state >= stored:
		return f.state, nil, f.err
	}
	return f.state, f.bell.wait(), nil
}
