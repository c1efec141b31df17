package seed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Serve answers a peer's range read; it implements rangeread.Handler.
func (m *Manager) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	q, err := m.query(from, req)
	if err != nil {
		return err
	}
	q.wait = func(ctx context.Context, done <-chan struct{}) error {
		return a.Wait(ctx, rangeread.WaitOrigin, done)
	}
	if req.Authorize {
		return m.vouch(ctx, q, a)
	}
	q.unsized = !req.FillOnly
	o, err := m.openAny(ctx, &q, req.Range)
	if err != nil {
		return wireError(err)
	}
	f := o.file
	defer o.release()
	if o.unsized != nil {
		_, err := a.Header(rangeread.Header{Meta: o.unsized.Meta, Source: rangeread.SourceOrigin, CacheControl: o.unsized.CacheControl, Age: o.unsized.Age})
		return err
	}
	if o.grows != nil {
		err := o.grows.serve(ctx, req, a)
		m.served(a.Sent())
		return err
	}
	defer f.use()()
	header := rangeread.Header{Meta: f.metadata(), CacheControl: f.terms.Load().cacheControl, Age: f.age(), Private: f.private.Load()}
	if req.Range.Empty() {
		_, err := a.Header(header)
		return err
	}
	if req.Range.Off >= f.meta.Size {
		return wireError(&RangeError{Size: f.meta.Size})
	}
	if req.FillOnly {
		return wireError(newPull(f, q, []content.Range{req.Range}, nil).answer(ctx, req.Range, header, a))
	}
	leave, err := m.refer(f, q, req)
	if err != nil {
		return err
	}
	err = m.send(ctx, f, q, header, a, req)
	leave(err)
	if r := req.Range.Intersect(content.Span(req.Range.Off, a.Pos())); !r.Empty() {
		m.served(r.Len)
		f.demand.Add(r.Len)
	}
	return wireError(err)
}

// served counts bytes sent to a peer.
func (m *Manager) served(n int64) {
	m.metrics.servedBytes.Add(float64(n))
	m.sent.Add(n)
}

// Uploading returns how many bulk answers to peers run, and how many bytes peers
// were sent since the start, by answers that have ended.
func (m *Manager) Uploading() (running int, sent int64) { return m.uploads.count(), m.sent.Load() }

// query checks a request and says what may be done for it.
func (m *Manager) query(from peer.ID, req rangeread.Request) (query, error) {
	q := query{
		task: content.Task{ID: req.Task}, expect: req.Generation, skip: req.Skip, from: from, path: req.Path,
		site:   req.Site,
		noFill: req.NoFill || req.Origin == nil || !m.cfg.Seed,
	}
	if !slices.Contains(q.path, from) { // a reader names itself, and forwarders do
		q.path = append(slices.Clone(q.path), from)
	}
	if slices.Contains(q.path, m.cfg.Self) || len(q.path) >= rangeread.MaxPath {
		q.noFill = true
	}
	if req.Validate {
		q.demand.Since = m.cfg.Now()
	}
	q.permit = m.permitted(from, req)
	if req.Origin == nil {
		return q, nil
	}
	filter, ok := m.cfg.Filter(req.Origin.FilterVersion)
	if !ok {
		return q, rangeread.NewError(rangeread.StatusForbidden, "query filter version %d is not used here", req.Origin.FilterVersion)
	}
	task, err := content.NewTask(req.Origin.URL, filter)
	if err != nil || task.ID != req.Task {
		return q, rangeread.NewError(rangeread.StatusForbidden, "the URL does not name the task")
	}
	q.task, q.origin = task, *req.Origin
	switch {
	case task.Secret != "":
		return q, wireError(secretError(task))
	case q.permit == nil && !req.Authorize:
		q.strip() // whatever a fill would bring with them would be taken for public
	case credentialed(q.origin):
		q.who = m.private.key(&q)
	}
	return q, nil
}

// recheck compares stored blocks with their records; bad ones are dropped.
func (f *file) recheck(r content.Range) {
	first, end := content.BlockSpan(r)
	for i := first; i < end; i++ {
		if err := f.disk.Check(i); errors.Is(err, store.ErrCorrupt) {
			f.m.changed(f.key.Task)
		}
	}
}

// send writes header and bytes, block by block; the next blocks are on their
// way while one is sent.
func (m *Manager) send(ctx context.Context, f *file, q query, h rangeread.Header, a *rangeread.Answer, req rangeread.Request) error {
	first, end := content.BlockSpan(rangeread.Widen(req.Range, f.meta.Size))
	var ahead []*Hold
	defer func() {
		for _, h := range ahead {
			h.Release()
		}
	}()
	for i := first; i < end; i++ {
		if len(ahead) == 0 {
			n := int64(sendAhead)
			if q.noFill {
				n = 1 // what is held goes out before the first gap
			}
			run := content.Span(f.layout.Block(i).Off, f.layout.Block(min(end, i+n)-1).End())
			if req.Recheck {
				f.recheck(run)
			}
			var err error
			if ahead, err = f.hold(ctx, q, run); err != nil {
				return err
			}
		}
		hold := ahead[0]
		hold.begin()
		if i == first { // also for one who is refused the bytes: the header has what he may want to know
			h.Source = hold.origin()
			if _, err := a.Header(h); err != nil {
				return err
			}
		}
		if err := m.sendBlock(ctx, hold, a); err != nil {
			return err
		}
		hold.Release()
		ahead = ahead[1:]
	}
	return nil
}

// sendAhead is how many blocks of an answer are held at once: a stripe's.
const sendAhead = 4

// refusal keeps peers from waiting for one another in a circle, whatever their
// maps say: a block that comes from the origin may be followed by anybody, one
// that comes from a peer only by those whose unweighted rendezvous score for the
// stripe is lower than this node's, and by those of whose site this node is the
// one that reads. Along a chain of peers the score then rises, and the chain ends
// at the origin: those who read through another of their site stand only at a
// chain's beginning, since nobody may follow them.
func (h *Hold) refusal() error {
	if h.fl == nil {
		return nil
	}
	h.fl.mu.Lock()
	waits, way, on, refusal := h.fl.state == arriving, h.fl.way, h.fl.from, h.fl.refusal
	h.fl.mu.Unlock()
	if waits && (way == fromPeer || way == fromSite) && h.q.noFill && on == h.q.from {
		return ErrNotFound // he asks for what we hold, and we wait for him
	}
	if waits && way == fromHeld && on != "" && on != h.q.from && slices.Contains(h.q.path, on) {
		return ErrNotFound // he asks for one of whose site we are, and who is asked for what he gets of it
	}
	stripe := h.f.layout.StripeOf(h.f.layout.Block(h.i).Off)
	if waits && h.f.m.bars(way, &h.q, h.f.key.Task, stripe) {
		if h.f.meta.Sequential {
			stripe = 0 // the head's, as all of the file
		}
		return h.f.m.refused(&h.q, stripe, on, refusal)
	}
	return nil
}

// refused is the refusal of one who may not wait for what peer p is being asked
// for. Where he has found p dead, this node is about to find it too, and will
// then fetch for all: he is told to come again, not to go elsewhere. So he is
// where this node has become the owner while it waits for p, unless p asks
// through him. Where the origin has refused, that is the answer: p is asked for what
// it holds, and so may he ask it.
func (m *Manager) refused(q *query, stripe int64, p peer.ID, refusal *OriginError) error {
	busy := rangeread.Error{Status: rangeread.StatusBusy, RetryAfter: busyFor, Size: -1}
	switch {
	case refusal != nil:
		return refusal
	case slices.Contains(q.skip, p):
		busy.Detail = "a peer is being asked that does not answer"
	case !slices.Contains(q.path, p) && m.cfg.Owns != nil && m.cfg.Owns(q.task.ID, stripe, q.skip):
		busy.Detail = "a peer is being asked for what is to be fetched here"
	default:
		return fmt.Errorf("%w: a peer is being asked", ErrNotFound)
	}
	return &busy
}

// busyFor is when to come again for what a peer is asked for that is dead, or has
// lost the stripe to this node: a lost connection is noticed that soon.
const busyFor = 50 * time.Millisecond

// bars reports whether a peer may not follow this node, which gets a block of a
// stripe in some way.
func (m *Manager) bars(w way, q *query, task content.TaskID, stripe int64) bool {
	return w == fromSite || w == fromPeer && !q.site && m.below(task, stripe, q.from)
}

// below reports whether this node's score for a stripe is lower than a peer's.
func (m *Manager) below(task content.TaskID, stripe int64, p peer.ID) bool {
	return above(task, stripe, p, m.cfg.Self)
}

// origin says where the first byte will come from, for the header.
func (h *Hold) origin() rangeread.Source {
	switch {
	case h.fl == nil && h.source == SourceLocal:
		return rangeread.SourceStore
	case h.fl == nil && h.source == SourceOrigin, h.fl != nil && h.fl.source() == SourceOrigin:
		return rangeread.SourceOrigin
	default:
		return rangeread.SourcePeer
	}
}

// sendBlock sends what the answer needs of one block: from the store, or from
// its flight as it arrives.
func (m *Manager) sendBlock(ctx context.Context, h *Hold, a *rangeread.Answer) error {
	b := h.f.layout.Block(h.i)
	increments := false
	for {
		if a.Done() && a.Pos() < b.End() || a.Pos() >= b.End() && !increments {
			return nil
		}
		if h.fl == nil {
			done, err := h.sendStored(ctx, a, b)
			if done || err != nil {
				return err
			}
			continue
		}
		if err := h.refusal(); err != nil {
			return err
		}
		leaf := content.Leaves(a.Pos() - b.Off) // a short one is the last: nothing follows
		p, err := h.fl.next(leaf, m.cfg.Key, m.cfg.Self)
		if err != nil {
			return err
		}
		switch {
		case p.state == stored:
			h.fl = nil
		case p.state == failed:
			err = h.again(ctx, p.err)
		case a.Pos() >= b.End():
			if p.state == complete {
				return a.Seal(h.i, h.fl.sealed())
			}
			err = h.await(ctx, a, p)
		case p.inc != nil:
			increments = true
			err = a.Increment(h.i, b.Off+int64(p.to)*content.LeafSize, *p.inc, h.read)
		case p.seal != nil:
			increments = false
			err = a.Complete(h.i, b.Off+int64(p.to)*content.LeafSize, *p.seal, p.outboard, h.read)
		default:
			err = h.await(ctx, a, p)
		}
		if err != nil {
			return err
		}
	}
}

func (h *Hold) await(ctx context.Context, a *rangeread.Answer, p proof) error {
	reason := rangeread.WaitPeer
	if p.origin {
		reason = rangeread.WaitOrigin
	}
	return a.Wait(ctx, reason, p.wake)
}

// read fills p from the flight, whose bytes there are, or from the store.
func (h *Hold) read(p []byte, off int64) error {
	b := h.f.layout.Block(h.i)
	for len(p) > 0 {
		n, state, _, err := h.fl.read(p, int(off-b.Off))
		if n == 0 && state == stored {
			return h.f.disk.ReadAt(p, off, false)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// sendStored sends from the store, or closes a block that was sent in
// increments; done is false where the block was gone and has been taken anew.
func (h *Hold) sendStored(ctx context.Context, a *rangeread.Answer, b content.Range) (done bool, err error) {
	rec, err := h.f.disk.Record(h.i)
	switch {
	case err != nil:
	case a.Pos() >= b.End():
		return true, a.Seal(h.i, rec.Seal)
	default:
		err = a.Complete(h.i, b.End(), rec.Seal, rec.Outboard, func(p []byte, off int64) error {
			return h.f.disk.ReadAt(p, off, false)
		})
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return false, h.retake(ctx, err)
	}
	return true, err
}
