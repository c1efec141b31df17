package read

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/singleflight"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// headerOf returns the credentials for a request to an origin.
func headerOf(o rangeread.Origin) http.Header {
	if len(o.Header) == 0 {
		return nil
	}
	h := http.Header{}
	for _, f := range o.Header {
		h.Add(f.Name, f.Value)
	}
	return h
}

// AskOrigin implements seed.Authorizer.
func (r *Filler) AskOrigin(ctx context.Context, task content.Task, o rangeread.Origin) (seed.Verdict, error) {
	req := origin.Request{Task: task.ID, URL: o.URL, Header: headerOf(o), Digest: task.Digest}
	with, err := r.ask(ctx, req)
	if err != nil {
		return seed.Verdict{}, err
	}
	if with.Size < 0 {
		return seed.Verdict{}, fmt.Errorf("%w: it is asked for with credentials, and its origin does not tell its length", seed.ErrNotSupported)
	}
	v := seed.Verdict{Generation: with.Generation}
	req.URL, _ = content.SplitSignature(o.URL)
	req.Header, req.Known, req.Size = nil, with.Generation, with.Size
	v.Private, v.Unsure, err = r.closed.ask(bareKey{task.ID, req.URL, with.Generation}, func() (private, unsure bool, err error) {
		without, err := r.ask(ctx, req)
		switch {
		case ctx.Err() != nil:
			return false, false, context.Cause(ctx)
		case err == nil && without.Generation != with.Generation:
			return false, false, fmt.Errorf("%w: the origin gives something else to who has no credentials", seed.ErrNotSupported)
		case err == nil:
			return false, false, nil
		default:
			return true, !denied(err), nil
		}
	})
	if err != nil {
		return seed.Verdict{}, err
	}
	return v, nil
}

// Of a file that its origin has refused to who has no credentials: for how long
// that is remembered, so that each further client costs one request and not two,
// and of how many files.
const (
	closedFor = time.Minute
	maxClosed = 16384
)

// bareKey names what is asked for without credentials.
type bareKey struct {
	task       content.TaskID
	url        string
	generation content.Generation
}

// closed remembers refusals. That a file is given to anybody is not remembered:
// it may become private. Safe for concurrent use.
type closed struct {
	asking singleflight.Group
	until  *lru.Cache[bareKey, time.Time]
}

func newClosed() *closed {
	until, err := lru.New[bareKey, time.Time](maxClosed)
	if err != nil {
		panic("read: " + err.Error()) // the size is a positive constant
	}
	return &closed{until: until}
}

// ask returns what is remembered, or what do returns, which runs once for all
// who ask the same at a time.
func (c *closed) ask(key bareKey, do func() (private, unsure bool, err error)) (private, unsure bool, err error) {
	if until, ok := c.until.Get(key); ok && time.Now().Before(until) {
		return true, false, nil
	}
	name := string(key.task[:]) + string(key.generation[:]) + key.url
	got, err, _ := c.asking.Do(name, func() (any, error) {
		asked := time.Now()
		private, unsure, err := do()
		if err == nil && private && !unsure {
			c.until.Add(key, asked.Add(closedFor))
		}
		return [2]bool{private, unsure}, err
	})
	if err != nil {
		return false, false, err
	}
	answer := got.([2]bool)
	return answer[0], answer[1], nil
}

// denied reports whether an error is the origin's answer to who has no
// credentials, and not a failure to answer.
func denied(err error) bool {
	var refused *seed.OriginError
	if !errors.As(err, &refused) {
		return errors.Is(err, seed.ErrNotSupported)
	}
	return refused.Status >= 300 && refused.Status < 500 && refused.Status != http.StatusRequestTimeout && refused.Status != http.StatusTooManyRequests
}

// ask gets a file's metadata from its origin.
func (r *Filler) ask(ctx context.Context, req origin.Request) (content.Meta, error) {
	r.metrics.originRequests.Inc()
	resp, err := r.cfg.Origin.Head(ctx, req)
	switch {
	case ctx.Err() != nil:
		return content.Meta{}, context.Cause(ctx)
	case errors.Is(err, origin.ErrUncacheable), errors.Is(err, origin.ErrForbiddenTarget):
		return content.Meta{}, fmt.Errorf("%w: %w", seed.ErrNotSupported, err)
	case err != nil:
		return content.Meta{}, refusal(err)
	}
	_ = resp.Body.Close()
	return resp.Meta, nil
}

// AskSeed implements seed.Authorizer: it asks the head, and other seeds where that
// cannot be reached.
func (r *Filler) AskSeed(ctx context.Context, task content.Task, o rangeread.Origin) (v seed.Verdict, self bool, err error) {
	last := fmt.Errorf("%w: none is known", seed.ErrUnavailable)
	for _, doubtful := range []bool{false, true} { // those that failed a moment ago come last
		var buf [16]Source
		for _, s := range r.cfg.Map.Sources(buf[:0], task.ID, 0, false, nil) {
			p := s.Peer
			switch {
			case p == r.cfg.Self && r.cfg.Seed:
				return seed.Verdict{}, true, nil
			case p == r.cfg.Self, !r.cfg.Map.MayGrant(p), r.cfg.Health.Doubtful(p) != doubtful:
				continue
			}
			v, err := r.askSeed(ctx, p, task, o)
			if ctx.Err() != nil {
				return v, false, context.Cause(ctx)
			}
			if err == nil || final(err) {
				return v, false, err
			}
			r.log.Debug("seed cannot authorize", "peer", p, "task", task.ID, "err", err)
			last = fmt.Errorf("%w: last tried: %w", seed.ErrUnavailable, err)
		}
		if r.cfg.Seed && r.cfg.Map.IsSeed(task.ID) {
			return seed.Verdict{}, true, nil
		}
	}
	return seed.Verdict{}, r.cfg.Fallback, onlyIf(!r.cfg.Fallback, last)
}

func onlyIf(ok bool, err error) error {
	if ok {
		return err
	}
	return nil
}

// final reports whether a seed's error is what the origin, or the file, is to
// blame for.
func final(err error) bool {
	var refused *seed.OriginError
	return errors.As(err, &refused) || errors.Is(err, seed.ErrNotSupported)
}

func (r *Filler) askSeed(ctx context.Context, p peer.ID, task content.Task, o rangeread.Origin) (seed.Verdict, error) {
	req := rangeread.Request{Task: task.ID, Authorize: true, Path: []peer.ID{r.cfg.Self}, Origin: &o}
	req.Epoch, req.Seq = r.cfg.Map.Version()
	start := time.Now()
	body, err := r.cfg.Client.Open(ctx, p, req)
	var answer *rangeread.Error
	switch {
	case err == nil:
	case !errors.As(err, &answer):
		if ctx.Err() == nil {
			r.cfg.Health.Failure(p)
		}
		return seed.Verdict{}, err
	case answer.Status == rangeread.StatusOriginError:
		return seed.Verdict{}, &seed.OriginError{Status: answer.OriginStatus, RetryAfter: answer.RetryAfter, Detail: answer.Detail}
	case answer.Status == rangeread.StatusNotSupported:
		return seed.Verdict{}, fmt.Errorf("%w: %s", seed.ErrNotSupported, answer.Detail)
	default:
		return seed.Verdict{}, err
	}
	defer func() { _ = body.Close() }()
	_, _ = body.Next(nil) // END
	r.cfg.Health.Success(p, time.Since(start))
	h := body.Header
	return seed.Verdict{Generation: h.Generation, Private: h.Private, Grant: h.Grant}, nil
}
