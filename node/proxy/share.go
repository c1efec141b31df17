package proxy

import (
	"cmp"
	"context"
	"errors"
	"sync"
)

// errBusy says that too many requests wait already.
var errBusy = errors.New("too many requests are waiting")

// share gives out a bounded number of places, and those that become free to the
// waiting client that has the fewest, of such to the one whose last turn is longest
// ago: one client with many requests does not keep the others waiting. Who comes
// counts as having had the last turn but one, so that those who come back again and
// again do not keep one waiting either. Of one client the first come are first served.
type share struct {
	// maxQueue bounds those that wait, and maxEach those of one client.
	maxQueue, maxEach int

	mu sync.Mutex
	// mu guards the following.
	free, queued int
	// clients are those that have a place or wait for one.
	clients map[string]*sharer
	// arrivals numbers those that wait, turns the places that were given.
	arrivals, turns uint64
}

type sharer struct {
	running int
	turn    uint64 // its last, or the last but one of all when it came
	waiting []*waiter
}

// waiter is one request that waits; its channel is closed when it has a place.
type waiter struct {
	place   chan struct{}
	arrival uint64
}

func newShare(places, maxQueue, maxEach int) *share {
	return &share{maxQueue: maxQueue, maxEach: maxEach, free: places, clients: make(map[string]*sharer)}
}

// take waits for a place, which leave gives back. Errors: errBusy, errTooFew where
// it is the client's own that are too many, and that of ctx.
func (s *share) take(ctx context.Context, client string) error {
	s.mu.Lock()
	c := s.clients[client]
	if c == nil {
		c = &sharer{turn: max(s.turns, 1) - 1}
	}
	if s.free > 0 {
		s.free--
		s.give(c)
		s.clients[client] = c
		s.mu.Unlock()
		return nil
	}
	if s.queued >= s.maxQueue {
		s.mu.Unlock()
		return errBusy
	}
	if len(c.waiting) >= s.maxEach {
		s.mu.Unlock()
		return errTooFew
	}
	s.arrivals++
	w := &waiter{make(chan struct{}), s.arrivals}
	s.queued++
	c.waiting = append(c.waiting, w)
	s.clients[client] = c
	s.mu.Unlock()
	select {
	case <-w.place:
		return nil
	case <-ctx.Done():
	}
	if !s.giveUp(client, w) {
		s.leave(client) // the place came at the same time
	}
	return context.Cause(ctx)
}

// giveUp takes a waiter out; it reports false where that has its place by now.
func (s *share) giveUp(client string, w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[client]
	for i, other := range c.waiting {
		if other == w {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			s.queued--
			s.forget(client, c)
			return true
		}
	}
	return false
}

// leave gives a place to who is next.
func (s *share) leave(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[client]
	c.running--
	next := s.next()
	s.forget(client, c)
	if next == nil {
		s.free++
		return
	}
	w := next.waiting[0]
	next.waiting = next.waiting[1:]
	s.give(next)
	s.queued--
	close(w.place)
}

// give notes that a client has one more place.
func (s *share) give(c *sharer) {
	s.turns++
	c.turn = s.turns
	c.running++
}

// next returns the client whose turn it is, or nil. It looks at all that wait:
// it is called only while there are no free places.
func (s *share) next() *sharer {
	if s.queued == 0 {
		return nil
	}
	var best *sharer
	for _, c := range s.clients {
		if len(c.waiting) == 0 {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(c.running, best.running), cmp.Compare(c.turn, best.turn), cmp.Compare(c.waiting[0].arrival, best.waiting[0].arrival)) < 0 {
			best = c
		}
	}
	return best
}

// forget drops a client that has no place and does not wait.
func (s *share) forget(client string, c *sharer) {
	if c.running == 0 && len(c.waiting) == 0 {
		delete(s.clients, client)
	}
}
