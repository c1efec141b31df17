package seed

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/p2pnode/p2pnode/internal/content"
)

// buffers lends block buffers, a bounded number at a time. Waiting for one
// always ends:
//   - a block that a peer sends has its buffer only from its first byte on, when
//     that peer has one for it, and so on up to the origin;
//   - a part is kept for blocks that come from the origin, where chains of nodes
//     that follow one another end;
//   - blocks that the store refused, and that nobody is reading yet, are dropped
//     for those who wait.
type buffers struct {
	all, peers *semaphore.Weighted
	pool       sync.Pool

	mu sync.Mutex
	// mu guards the following. It is taken after flight.mu.
	waiting int
	spare   map[*flight]struct{} // those that can be dropped
}

func newBuffers(n int64) *buffers {
	return &buffers{
		all:   semaphore.NewWeighted(n),
		peers: semaphore.NewWeighted(max(1, n*3/4)),
		pool:  sync.Pool{New: func() any { return new([content.BlockSize]byte) }},
		spare: map[*flight]struct{}{},
	}
}

// buffer is one lent block buffer.
type buffer struct {
	mem    *[content.BlockSize]byte
	origin bool
}

// get waits for a buffer.
func (b *buffers) get(ctx context.Context, origin bool) (*buffer, error) {
	if b.try(origin) {
		return b.lend(origin), nil
	}
	victim := b.wait()
	defer b.waited()
	for victim != nil { // one that had its buffer from the other share is not enough
		victim.reclaim()
		if b.try(origin) {
			return b.lend(origin), nil
		}
		victim = b.spareFlight()
	}
	if !origin {
		if err := b.peers.Acquire(ctx, 1); err != nil {
			return nil, err
		}
	}
	if err := b.all.Acquire(ctx, 1); err != nil {
		if !origin {
			b.peers.Release(1)
		}
		return nil, err
	}
	return b.lend(origin), nil
}

func (b *buffers) try(origin bool) bool {
	if !origin && !b.peers.TryAcquire(1) {
		return false
	}
	if b.all.TryAcquire(1) {
		return true
	}
	if !origin {
		b.peers.Release(1)
	}
	return false
}

func (b *buffers) lend(origin bool) *buffer {
	return &buffer{mem: b.pool.Get().(*[content.BlockSize]byte), origin: origin}
}

// wait counts one who waits, and returns a flight to drop for him, if any.
func (b *buffers) wait() *flight {
	b.mu.Lock()
	b.waiting++
	b.mu.Unlock()
	return b.spareFlight()
}

// spareFlight returns a flight that can be dropped, and takes it off the list;
// nil where there is none.
func (b *buffers) spareFlight() *flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.spare {
		delete(b.spare, f)
		return f
	}
	return nil
}

func (b *buffers) waited() {
	b.mu.Lock()
	b.waiting--
	b.mu.Unlock()
}

// offer says that a flight could be dropped. It reports whether it should be,
// now, because somebody waits.
func (b *buffers) offer(f *flight) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting > 0 {
		return true
	}
	b.spare[f] = struct{}{}
	return false
}

// withdraw ends an offer.
func (b *buffers) withdraw(f *flight) {
	b.mu.Lock()
	delete(b.spare, f)
	b.mu.Unlock()
}

// put takes a buffer back.
func (b *buffers) put(x *buffer) {
	b.pool.Put(x.mem)
	b.all.Release(1)
	if !x.origin {
		b.peers.Release(1)
	}
}
