package origin

import "time"

// breaker keeps callers from an origin that cannot be connected to: each would
// wait for the connection to time out. It lets one at a time try again. The
// zero breaker is closed; its gate's mu guards it.
type breaker struct {
	fails  int       // in a row
	since  time.Time // the first of them
	open   bool
	trying bool // somebody tries, while open
	until  time.Time
	rest   time.Duration // the mean of the present one
	last   error
}

// wait returns for how long no connection may be tried; 0 if one may be now.
func (b *breaker) wait(now time.Time) time.Duration {
	switch {
	case !b.open:
		return 0
	case b.trying:
		return max(patience, b.until.Sub(now))
	default:
		return max(0, b.until.Sub(now))
	}
}

// failed takes a connection that did not come about. It reports whether that
// opened the breaker.
func (b *breaker) failed(now time.Time, l Limits, err error) (opened bool) {
	b.last = err
	if b.open {
		if now.Before(b.until) {
			return false // it began before the others failed
		}
		b.rest = min(2*b.rest, maxBreak)
		b.until = now.Add(spread(b.rest))
		return false
	}
	if b.fails == 0 || now.Sub(b.since) > l.Period {
		b.fails, b.since = 0, now
	}
	if b.fails++; b.fails < l.BreakAfter {
		return false
	}
	b.open, b.rest = true, l.BreakFor
	b.until = now.Add(spread(b.rest))
	return true
}
