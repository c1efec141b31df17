package rangeread

import "time"

// deadline keeps a deadline of a stream ahead. Setting one makes a timer, which
// costs more than the rest of a small read's bookkeeping, so it is set further
// ahead than need be, and not again before that is used up.
type deadline struct {
	set   func(time.Time) error
	least time.Duration
	at    time.Time // the one that is set
}

// extend makes sure that the deadline is at least least ahead, and at most half
// as much again.
func (d *deadline) extend() error {
	now := time.Now()
	if d.at.Sub(now) >= d.least {
		return nil
	}
	return d.put(now.Add(d.least + d.least/2))
}

// put sets the deadline; a later extend may move it.
func (d *deadline) put(at time.Time) error {
	d.at = at
	return d.set(at)
}
