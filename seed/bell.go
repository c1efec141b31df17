package seed

import "time"

// bell wakes all who wait for a change of what its owner guards; the owner's
// lock guards the bell too.
type bell struct {
	ch  chan struct{}
	due time.Time // of the timer that runs; zero for none
}

// ring wakes all who wait.
func (b *bell) ring() {
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// wait returns a channel that is closed at the next ring.
func (b *bell) wait() <-chan struct{} {
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// ringIn has poke called in d, unless it will be called before anyhow. poke
// takes the owner's lock and calls alarm.
func (b *bell) ringIn(d time.Duration, poke func()) {
	d = max(d, 0)
	at := time.Now().Add(d)
	if !b.due.IsZero() && !at.Before(b.due) {
		return
	}
	b.due = at
	time.AfterFunc(d, poke)
}

// alarm rings because it is time to look at the clock.
func (b *bell) alarm() {
	b.due = time.Time{}
	b.ring()
}
