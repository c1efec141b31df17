package frame

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Pauses between tries: the first is 100 to 300 ms, none is over MaxPause. With
// the time that a stream takes it is under the 5 s in which a supernode that
// returns is to know all again.
const (
	firstPause = 200 * time.Millisecond
	MaxPause   = 3 * time.Second
	jitter     = 0.5
)

// Retry spaces the tries to reach one peer: pauses that double, each spread by
// half of itself to both sides. The time that a try took counts as pause, but
// for the length of a first one: a peer that does not answer is not waited for
// twice. Not safe for concurrent use.
type Retry struct {
	b *backoff.ExponentialBackOff
	// tried is when the present try began; zero for the first.
	tried time.Time
}

// NewRetry returns a Retry that has not tried yet.
func NewRetry() *Retry {
	b := &backoff.ExponentialBackOff{
		InitialInterval:     firstPause,
		RandomizationFactor: jitter,
		Multiplier:          2,
		MaxInterval:         MaxPause * 2 / 3, // which the jitter makes MaxPause
	}
	b.Reset()
	return &Retry{b: b}
}

// Reset makes the next pause a first one: the peer was reached.
func (r *Retry) Reset() { r.b.Reset() }

// Wait pauses until the next try, or returns ctx's error when that ends first.
func (r *Retry) Wait(ctx context.Context) error {
	pause := min(r.b.NextBackOff(), MaxPause)
	if !r.tried.IsZero() {
		least := min(pause, time.Duration((1-jitter+2*jitter*rand.Float64())*float64(firstPause)))
		pause = max(least, pause-time.Since(r.tried))
	}
	err := Sleep(ctx, pause)
	r.tried = time.Now()
	return err
}

// Sleep waits for d, or returns ctx's error when that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
