package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retry decides, for one Get or Head, whether and when the origin is asked
// again. It is for one goroutine.
type retry struct {
	c       *Client
	tries   int       // that brought nothing
	came    int       // bytes since the last failure
	since   time.Time // of the last progress
	backoff backoff.ExponentialBackOff
}

func (c *Client) newRetry() *retry {
	return &retry{c: c, since: c.cfg.Now(), backoff: backoff.ExponentialBackOff{
		InitialInterval: c.cfg.Limits.RetryDelay, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: maxRetryDelay,
	}}
}

// do calls attempt until it succeeds or is not to be called again.
func (rt *retry) do(ctx context.Context, r Request, attempt func(context.Context, Request) (*Response, error)) (*Response, error) {
	for {
		resp, err := attempt(ctx, r)
		if err == nil {
			return resp, nil
		}
		if err = rt.after(ctx, r, err, "again"); err != nil {
			return nil, err
		}
	}
}

// after waits until r may be asked for again after err, or returns the error
// to give up with, which says when the origin may be asked again if that is
// known. kind is what the metrics call it.
func (rt *retry) after(ctx context.Context, r Request, err error, kind string) error {
	if b := blameOf(err); b != blameBlock && b != blameConnection || ctx.Err() != nil {
		return err
	}
	if refused := rt.c.refused(r); refused != nil {
		return refused
	}
	now := rt.c.cfg.Now()
	if rt.came >= progress {
		rt.tries, rt.since = 0, now
		rt.backoff.Reset()
	}
	rt.came = 0
	rt.tries++
	var status *StatusError
	busy := errors.As(err, &status) && status.Status == http.StatusTooManyRequests
	if rt.tries >= rt.c.cfg.Limits.Attempts || busy || mute(err) || now.Sub(rt.since) >= rt.c.cfg.FirstByteTimeout {
		return err
	}
	rt.c.metrics.retries.WithLabelValues(kind).Inc()
	t := time.NewTimer(rt.backoff.NextBackOff())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// mute reports whether nobody answered an attempt to connect, of which the kernel
// makes several within Config.ConnectTimeout: the network is cut, or the machine is
// off.
func mute(err error) bool {
	var dial *net.OpError // a TLS handshake that takes too long is none
	return errors.Is(err, errConnect) && errors.As(err, &dial) && dial.Op == "dial" && dial.Timeout()
}

// refused returns a *BudgetError where r would be refused now, else nil.
func (c *Client) refused(r Request) error {
	if err := c.ledger.refused(r); err != nil {
		return err
	}
	if u, err := url.Parse(r.URL); err == nil {
		if err := c.gates.of(u).refused(); err != nil {
			return err
		}
	}
	return nil
}
