package prefetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// Bounds of what a busy seed is waited for.
const (
	busyTries = 60
	busyDelay = 200 * time.Millisecond
)

// spread is what is to be held by the seeds of a task.
type spread struct {
	task content.Task
	meta content.Meta
	want content.Range
}

// spread has the owner of each stripe bring it in.
func (p *Prefetcher) spread(ctx context.Context, f *seed.File, s spread, progress func(done, total int64)) (Result, error) {
	layout := s.meta.Layout()
	want := s.want.Align(content.BlockSize).Intersect(content.Range{Len: s.meta.Size})
	var (
		mu  sync.Mutex
		sum Result
	)
	g, gctx := errgroup.WithContext(ctx)
	for stripe, part := range layout.Stripes(want) {
		if p.asks.Acquire(gctx, 1) != nil {
			break // the group has failed, or ctx ended
		}
		g.Go(func() error {
			defer p.asks.Release(1)
			got, err := p.stripe(gctx, f, s, stripe, part)
			if err != nil {
				return fmt.Errorf("stripe %d: %w", stripe, err)
			}
			mu.Lock()
			defer mu.Unlock()
			sum.Local, sum.Peer, sum.Origin = sum.Local+got.Local, sum.Peer+got.Peer, sum.Origin+got.Origin
			if progress != nil {
				progress(sum.Local+sum.Peer+sum.Origin, want.Len)
			}
			return nil
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return sum, err
}

// stripe has the owner of a stripe bring in a part of it; the next in order
// where the owner does not answer.
func (p *Prefetcher) stripe(ctx context.Context, f *seed.File, s spread, stripe int64, part content.Range) (Result, error) {
	var (
		skip []peer.ID
		last error
		busy int
	)
	for {
		owner, ok := p.cfg.Map.Owner(s.task.ID, stripe, s.meta.Sequential, skip)
		switch {
		case !ok && last == nil:
			return Result{}, fmt.Errorf("%w: no seeds are known: look for a supernode in `p2pnode status`", seed.ErrUnavailable)
		case !ok || len(skip) == rangeread.MaxPath:
			return Result{}, fmt.Errorf("%w: last tried: %w", seed.ErrUnavailable, last)
		case owner == p.cfg.Self:
			got, err := f.Prefetch(ctx, []content.Range{part}, false, nil)
			return local(got), err
		case f.Private() && !p.cfg.Map.MayGrant(owner): // an old assignment names it
			skip, last = append(skip, owner), errNoSeed
			continue
		}
		start := time.Now()
		header, err := p.cfg.Peers.Fill(ctx, owner, p.request(ctx, f, s, part, skip))
		if err == nil {
			p.cfg.Health.Success(owner, time.Since(start))
			return bySource(header.Source, part.Len), nil
		}
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		wait, err := p.failed(owner, err)
		if wait > 0 && busy < busyTries {
			busy++
			if err := sleep(ctx, wait); err != nil {
				return Result{}, err
			}
			continue
		}
		if wait < 0 {
			return Result{}, err
		}
		p.log.Debug("a seed did not prefetch", "peer", owner, "task", s.task.ID, "off", part.Off, "err", err)
		skip, last = append(skip, owner), err
	}
}

// errNoSeed: a peer is not in the pool any more.
var errNoSeed = errors.New("a peer that the assignment names is no seed now")

// request returns what to ask of a seed.
func (p *Prefetcher) request(ctx context.Context, f *seed.File, s spread, part content.Range, skip []peer.ID) rangeread.Request {
	origin, grant := f.Leave(ctx)
	origin.Size = s.meta.Size
	req := rangeread.Request{
		Task: s.task.ID, Generation: s.meta.Generation, Range: part,
		Path: []peer.ID{p.cfg.Self}, Skip: skip, Origin: &origin, Grant: grant,
	}
	req.Epoch, req.Seq = p.cfg.Map.Version()
	return req
}

// failed decides what a seed's failure means: a wait after which it is asked
// again, less than 0 where the error is final, and 0 where the next in order
// takes over.
func (p *Prefetcher) failed(owner peer.ID, err error) (time.Duration, error) {
	var answer *rangeread.Error
	if !errors.As(err, &answer) {
		p.cfg.Health.Failure(owner)
		return 0, err
	}
	switch answer.Status {
	case rangeread.StatusBusy:
		return max(busyDelay, min(answer.RetryAfter, time.Second)), err
	case rangeread.StatusChanged:
		return -1, fmt.Errorf("%w: %w", seed.ErrChanged, err)
	case rangeread.StatusNotSupported:
		return -1, fmt.Errorf("%w: %w", seed.ErrNotSupported, err)
	case rangeread.StatusOriginError:
		return -1, &seed.OriginError{Status: answer.OriginStatus, RetryAfter: answer.RetryAfter, Detail: answer.Detail}
	case rangeread.StatusForbidden, rangeread.StatusBadRequest, rangeread.StatusRange:
		return -1, err
	default:
		return 0, err
	}
}

// bySource counts n bytes by where the seed says that the first came from.
func bySource(s rangeread.Source, n int64) Result {
	switch s {
	case rangeread.SourceStore:
		return Result{Local: n}
	case rangeread.SourceOrigin:
		return Result{Origin: n}
	default:
		return Result{Peer: n}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
