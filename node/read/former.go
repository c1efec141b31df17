package read

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// formerPatience is how long a previous owner may take to be reached, and wait for
// a peer before it sends something of what it holds. While it waits for the origin
// it is waited for: asking anew would cost the origin the same bytes again.
const formerPatience = 500 * time.Millisecond

// sitePatience is the same of the one that read for this node's site: it may be
// reading the stripe just then, over an uplink that many share.
const sitePatience = 5 * time.Second

// nearPatience is the same of a neighbour that never was the owner, and what it has to
// answer at all: while it does not have the bytes it most likely waits for this node.
const nearPatience = 100 * time.Millisecond

// fromFormer reads what the previous owners of the stripe hold of what the job
// wants, before this node, which owns it now, asks the origin: a change of the
// map by itself costs the origin nothing. The one that read for this node's site
// while the owners were elsewhere comes first: it costs the uplink nothing either.
// Where this node stands for a seed that is dead, or cannot be reached from here,
// some of its site's other members come last: they may have read the stripe through
// that one, and the origin may be beyond reach as well.
// It reports whether something came.
// Failures mean nothing: the origin is next.
func (f *fill) fromFormer(ctx context.Context) bool {
	stripe, sequential := f.stripe()
	if sequential || f.job.Unsealed() || !f.named() {
		return false
	}
	owners := f.formers(stripe)
	for i, p := range slices.Concat(owners, f.instead(stripe)) {
		near := i >= len(owners)
		_, known := f.job.Meta()
		if f.former[p] || f.tried(p) || slices.Contains(f.job.Path, p) {
			continue
		}
		if f.former == nil {
			f.former = map[peer.ID]bool{}
		}
		f.former[p] = true
		before := f.job.Pos()
		err := f.held(ctx, p, near)
		if rangeread.StatusOf(err) == rangeread.StatusRefer {
			err = f.held(ctx, p, near) // nobody is referred twice
		}
		f.log.Debug("asked before the origin", "peer", p, "task", f.job.Task.ID, "off", before, "len", f.job.Pos()-before, "err", err)
		if now, _ := f.job.Meta(); f.job.Done() || f.job.Pos() > before || !known && !now.Generation.IsZero() {
			if near && f.job.Pos() == before {
				delete(f.former, p) // it has only shown what file it is
			}
			return true
		}
	}
	return false
}

// instead returns the neighbours to ask before the origin for a stripe that another
// would own if it were not dead.
func (f *fill) instead(stripe int64) []peer.ID {
	if p, ok := f.cfg.Map.Owner(f.job.Task.ID, stripe, false, nil); !ok || p == f.cfg.Self {
		return nil
	}
	return f.neighbours(maxNearFirst)
}

// formers returns who read for the site, where there was another owner, and the
// previous owners of a stripe; for one that is dead who stood for it.
func (f *fill) formers(stripe int64) []peer.ID {
	skip := slices.Clone(f.dead)
	f.siteReader = ""
	for {
		owners := f.cfg.Map.Previous(nil, f.job.Task.ID, stripe, false, skip)
		if p, ok := f.cfg.Map.SiteReader(f.job.Task.ID, stripe, false, skip); ok && p != f.cfg.Self && len(owners) > 0 {
			f.siteReader = p
			owners = slices.Insert(slices.DeleteFunc(owners, func(o peer.ID) bool { return o == p }), 0, p)
		}
		doubted := slices.DeleteFunc(slices.Clone(owners), func(p peer.ID) bool {
			return slices.Contains(skip, p) || !f.cfg.Health.Doubtful(p)
		})
		if len(doubted) == 0 || len(skip) >= rangeread.MaxPath {
			return slices.DeleteFunc(owners, func(p peer.ID) bool { return slices.Contains(skip, p) || f.cfg.Health.Doubtful(p) })
		}
		skip = append(skip, doubted...)
	}
}

// named reports whether it is settled which version of the file is wanted: what a
// peer holds does not say which one is current.
func (f *fill) named() bool {
	_, known := f.job.Meta()
	return (known || !f.job.Expect.IsZero()) && f.job.Known.IsZero() && !f.job.Validate
}

// held reads what a peer holds of what the job wants: a previous owner, the one that
// read for the site, or, near, a neighbour that was neither.
func (f *fill) held(ctx context.Context, p peer.ID, near bool) error {
	patience, onSite := formerPatience, p == f.siteReader
	switch {
	case onSite:
		patience = sitePatience
	case near:
		patience = nearPatience
	}
	job := f.job
	req := rangeread.Request{
		Task: job.Task.ID, Generation: job.Expect, Range: job.Want(), NoFill: true, Path: append(slices.Clone(job.Path), f.cfg.Self), Skip: f.dead,
		Site: onSite, Brief: patience,
	}
	meta, known := job.Meta()
	if known {
		req.Generation = meta.Generation
	}
	doubt := near && !f.cfg.Map.MayGrant(p)
	unproven := doubt && !known
	if unproven {
		req.Range.Len = 1
	}
	if doubt {
		req.Patience = doubtPatience
	}
	req.Epoch, req.Seq = f.cfg.Map.Version()
	req.Grant = job.Grant()
	if onSite {
		job.AskHeld(p)
	} else {
		job.AskHeld("")
	}
	start := time.Now()
	opening, late := context.WithCancelCause(ctx)
	defer late(nil)
	inTime := func() bool { return true }
	if near {
		inTime = time.AfterFunc(patience, func() { late(rangeread.ErrStalled) }).Stop
	}
	body, err := f.cfg.Client.Open(opening, p, req)
	inTime()
	if err != nil {
		var answer *rangeread.Error
		if !errors.As(err, &answer) && !errors.Is(err, rangeread.ErrStalled) && ctx.Err() == nil { // slow is not dead
			f.cfg.Health.Failure(p)
		}
		return err
	}
	defer func() { _ = body.Close() }()
	f.cfg.Health.Success(p, time.Since(start))
	err = f.takeHeld(ctx, p, body, req.Range.Off, unproven)
	switch {
	case errors.Is(err, rangeread.ErrCorrupt):
		f.metrics.wrongAnswers.Inc()
		f.cfg.Health.Wrong(p)
	case errors.Is(err, rangeread.ErrSilent), doubt && errors.Is(err, rangeread.ErrStalled):
		f.cfg.Health.Failure(p)
	}
	return err
}

// takeHeld takes an answer to held for bytes from off on; unproven says that its peer
// has yet to show what file it is.
func (f *fill) takeHeld(ctx context.Context, p peer.ID, body *rangeread.Body, off int64, unproven bool) error {
	h := body.Header
	if h.Sequential { // nobody has a part of it
		return nil
	}
	if unproven {
		if first, err := f.proof(body); first == nil {
			return err
		}
	}
	if err := f.job.Begin(seed.Found{Meta: h.Meta, CacheControl: h.CacheControl, Age: h.Age, Private: h.Private}); err != nil {
		return err
	}
	if unproven || f.job.Pos() != off {
		return nil
	}
	return f.receive(ctx, body, func(n int) error { return f.cfg.Pace(ctx, p, n) })
}
