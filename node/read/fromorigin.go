package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// fromOrigin reads what the job wants from the origin, in one request; after a
// failure in as many as the client's limits allow, which go on at the next byte.
func (f *fill) fromOrigin(ctx context.Context) error {
	job := f.job
	meta, known := job.Meta()
	if job.AskOrigin(); known && meta.Sequential {
		if job.Whole(); job.Done() {
			return nil // another job reads the whole file already
		}
	}
	req := origin.Request{
		Task: job.Task.ID, URL: job.Origin.URL, Expect: job.Expect, Known: job.Known, Size: job.KnownSize, Digest: job.Task.Digest,
		Header: headerOf(job.Origin),
	}
	if known {
		req.Expect, req.Size = meta.Generation, meta.Size
	}
	want := job.Want()
	if !known && (want.Empty() || job.Size() < 0 && want.Off >= content.BlockSize) {
		// Only the metadata is wanted, or who owns these bytes depends on it.
		sized, err := f.head(ctx, req, want)
		if sized || err != nil {
			return err
		}
	}
	req.Range = want
	f.metrics.originRequests.Inc()
	resp, err := f.cfg.Origin.Get(ctx, req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Meta.Size < 0 {
		return f.growFromOrigin(ctx, resp)
	}
	if err := f.begin(seed.Found{Meta: resp.Meta, CacheControl: resp.CacheControl, Age: resp.Age}); err != nil || job.Done() {
		return err
	}
	if resp.Range.Off > job.Pos() {
		return fmt.Errorf("%w: asked for %s, got %s", origin.ErrUnreachable, want, resp.Range)
	}
	return f.pour(ctx, resp)
}

// pour reads an origin's body into the job.
func (f *fill) pour(ctx context.Context, resp *origin.Response) error {
	job := f.job
	if _, err := io.CopyN(io.Discard, resp.Body, job.Pos()-resp.Range.Off); err != nil {
		return err
	}
	for !job.Done() && job.Pos() < resp.Range.End() {
		buf, err := job.Buffer(ctx)
		if err != nil {
			return err
		}
		n, err := resp.Body.Read(buf[:min(len(buf), originRead)])
		if n > 0 {
			f.metrics.originBytes.Add(float64(n))
			if err := job.Advance(n); err != nil {
				return err
			}
			if err := f.cfg.Pace(ctx, "", n); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil && job.Pos() < resp.Range.End() {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// head asks the origin for the metadata alone. It reports false where that does
// not tell the size, and bytes are wanted.
func (f *fill) head(ctx context.Context, req origin.Request, want content.Range) (sized bool, err error) {
	f.metrics.originRequests.Inc()
	resp, err := f.cfg.Origin.Head(ctx, req)
	if err != nil {
		return false, err
	}
	_ = resp.Body.Close()
	if resp.Meta.Size < 0 {
		if !want.Empty() {
			return false, nil
		}
		return true, f.job.Unsized(seed.Found{Meta: resp.Meta, CacheControl: resp.CacheControl, Age: resp.Age})
	}
	return true, f.begin(seed.Found{Meta: resp.Meta, CacheControl: resp.CacheControl, Age: resp.Age})
}

// originFailed decides what a failure of the origin means, which its client has
// seen more than once, if it may pass; an error ends the fill.
func (f *fill) originFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.last = err
	f.log.Debug("origin failed", "task", f.job.Task.ID, "off", f.job.Pos(), "err", err)
	switch {
	case errors.Is(err, origin.ErrUncacheable), errors.Is(err, origin.ErrForbiddenTarget):
		return fmt.Errorf("%w: %w", seed.ErrNotSupported, err)
	case errors.Is(err, origin.ErrChanged):
		return fmt.Errorf("%w: %w", seed.ErrChanged, err)
	case isFinal(err):
		return err
	default:
		return f.refuse(refusal(err))
	}
}

// refusal is what readers and peers are told of the origin: its last word, and
// when it may be asked again.
func refusal(err error) *seed.OriginError {
	e := &seed.OriginError{Detail: err.Error()}
	var status *origin.StatusError
	if errors.As(err, &status) {
		e.Status, e.RetryAfter = status.Status, status.RetryAfter
	}
	var spent *origin.BudgetError
	if errors.As(err, &spent) {
		e.RetryAfter = spent.RetryAfter
	}
	if e.RetryAfter == 0 && (e.Status == 0 || e.Status >= http.StatusInternalServerError) {
		e.RetryAfter = retryAfter
	}
	return e
}
