package limits

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// maxWait bounds how far ahead a bucket is drawn on: one that so many wait for
// gives way for more, rather than have peers wait until they take this node for
// dead, or those who have left use up what others could have.
const maxWait = 10 * time.Second

// byteBurst is how many bytes may come at once after a pause: two frames of
// rangeread.
const byteBurst = 256 << 10

// Up returns how long n more bytes for a peer are to wait: rangeread's
// ServerConfig.Pace. Those to a peer of this node's site wait for that peer's
// own bound alone.
func (l *Limiter) Up(to peer.ID, n int) time.Duration {
	if !l.counts.Load() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	wait := reserve(l.account(to).up, now, n)
	if !l.near(to) {
		wait = max(wait, reserve(l.up, now, n))
	}
	return wait
}

// Down takes note of n bytes that came from a peer, "" for an origin, and waits
// until more may come: the connection then fills, and the other side waits. It
// returns the cause of ctx's end. Those from a peer of this node's site are free.
func (l *Limiter) Down(ctx context.Context, from peer.ID, n int) error {
	if !l.counts.Load() || from != "" && l.near(from) {
		return nil
	}
	l.mu.Lock()
	wait := reserve(l.down, time.Now(), n)
	l.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SetUplink sets both bounds on what crosses the uplink, in bytes a second; 0 for
// none.
func (l *Limiter) SetUplink(perSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits.Up, l.limits.Down = float64(perSecond), float64(perSecond)
	l.setBytes()
}

// setBytes has the buckets of the uplink follow the limits. The caller holds mu.
func (l *Limiter) setBytes() {
	setRate(l.up, l.limits.Up)
	setRate(l.down, l.limits.Down)
	l.counts.Store(l.limits.Up != 0 || l.limits.Down != 0 || l.limits.PeerUp != 0)
}

// newBytes returns a bucket of bytes; without a bound where perSecond is 0.
func newBytes(perSecond float64) *rate.Limiter {
	b := rate.NewLimiter(rate.Inf, byteBurst)
	setRate(b, perSecond)
	return b
}

func setRate(b *rate.Limiter, perSecond float64) {
	if perSecond == 0 {
		b.SetLimit(rate.Inf)
		return
	}
	b.SetLimit(rate.Limit(perSecond))
}

// reserve takes n bytes out of a bucket, also where it does not have them, and
// returns when it will have had them, maxWait at most. Who comes later waits for
// these too.
func reserve(b *rate.Limiter, now time.Time, n int) (wait time.Duration) {
	for n > 0 {
		if b.Limit() != rate.Inf && b.TokensAt(now) < -maxWait.Seconds()*float64(b.Limit()) {
			return maxWait
		}
		part := min(n, byteBurst)
		wait = b.ReserveN(now, part).DelayFrom(now)
		n -= part
	}
	return wait
}
