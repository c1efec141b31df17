package store

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// batchBytes is how much is evicted in one step, whose records are removed in
// one sync: writers that wait for room go on after each step.
const batchBytes = 32 << 20

// maxLate is how often stripes are chosen of which, when they should go, each
// has just come into use.
const maxLate = 4

// tracked is a File of this package.
type tracked interface {
	File
	extentOf() *extent
}

func (e *extent) extentOf() *extent { return e }

// quota bounds the bytes of a store. Whoever writes a block reserves its bytes
// first; the bytes of one that goes come back when they have left the disk. So
// the bound holds at all times, also for what is being written. Where there is
// no room, one writer evicts stripes until there is some to spare (the low
// watermark), and the others wait for as much as they need.
type quota[F tracked] struct {
	capacity int64
	owned    func(Key, int64) bool     // nil: nothing
	evicted  func(Key, int64, bool)    // nil: nobody wants to know
	files    func() []F                // as they are now
	drop     func([]victim[F]) dropped // drops what it can of the victims, and gives back their bytes

	held    atomic.Int64 // bytes of blocks that can be read
	charged atomic.Int64 // held, being written, or on their way out
	pinned  atomic.Int64 // bytes of pinned stripes, held or not

	evictedBytes, evictedStripes atomic.Int64

	// work is held while stripes are chosen and dropped.
	work sync.Mutex

	// mu guards the following.
	mu    sync.Mutex
	round chan struct{} // closed when the one who evicts for room has ended; nil while nobody does
	freed chan struct{} // closed when bytes have come back
}

// dropped says what became of victims.
type dropped struct {
	stripes []eviction
	bytes   int64
	err     error
}

// eviction is what Config.Evicted is told.
type eviction struct {
	key    Key
	stripe int64
	whole  bool
}

func newQuota[F tracked](capacity int64, owned func(Key, int64) bool, evicted func(Key, int64, bool)) *quota[F] {
	if capacity <= 0 {
		capacity = DefaultCapacity
	}
	return &quota[F]{capacity: capacity, owned: owned, evicted: evicted, freed: make(chan struct{})}
}

// add counts n bytes of a block that was reserved or found at the start as held;
// a negative n takes them away, and giveBack follows when they have gone.
func (q *quota[F]) add(n int64) { q.held.Add(n) }

// adopt counts n bytes that were there before, whether they fit or not.
func (q *quota[F]) adopt(n int64) {
	q.held.Add(n)
	q.charged.Add(n)
}

// giveBack ends what reserve or adopt began.
func (q *quota[F]) giveBack(n int64) { q.charged.Add(-n) }

// charge reserves n bytes if they fit as it is.
func (q *quota[F]) charge(n int64) bool {
	for {
		c := q.charged.Load()
		if c > q.capacity-n {
			return false
		}
		if q.charged.CompareAndSwap(c, c+n) {
			return true
		}
	}
}

// room returns the bytes that can be reserved without an eviction.
func (q *quota[F]) room() int64 { return max(0, q.capacity-q.charged.Load()) }

// maxSpare bounds the spare room, and so the time that an eviction takes.
const maxSpare = 1 << 30

// spare is how much more an eviction frees than it must, so that the next is
// some time away: a twentieth of what is not pinned.
func (q *quota[F]) spare() int64 { return min(maxSpare, max(0, q.capacity-q.pinned.Load())/20) }

// reserve makes room for n bytes, which giveBack returns. No lock may be held.
// It returns an error that wraps ErrFull where nothing can be evicted.
func (q *quota[F]) reserve(n int64) error {
	for !q.charge(n) {
		q.mu.Lock()
		round, freed := q.round, q.freed
		if round == nil {
			round = make(chan struct{})
			q.round = round
			q.mu.Unlock()
			return q.evictFor(n, round)
		}
		q.mu.Unlock()
		if q.charge(n) { // of bytes that came back before freed was read
			return nil
		}
		select {
		case <-freed:
		case <-round:
		}
	}
	return nil
}

func (q *quota[F]) full(n int64) error {
	return fmt.Errorf("%d bytes beside %d of %d, of which %d are pinned and the rest in use: %w",
		n, q.charged.Load(), q.capacity, q.pinned.Load(), ErrFull)
}

// evictFor evicts until n bytes are reserved, and down to the low watermark.
func (q *quota[F]) evictFor(n int64, round chan struct{}) error {
	var gone []eviction
	err := q.evictFull(n, &gone)
	q.mu.Lock()
	q.round = nil
	q.mu.Unlock()
	close(round)
	q.tell(gone)
	return err
}

func (q *quota[F]) evictFull(n int64, gone *[]eviction) error {
	if n > q.capacity {
		return q.full(n)
	}
	q.work.Lock()
	defer q.work.Unlock()
	for late := 0; ; {
		least := q.charged.Load() + n - q.capacity
		chosen, bytes, err := q.evict(least+q.spare(), least, gone)
		if bytes == 0 {
			late++ // all that was chosen is in use by now: choose again
		}
		switch {
		case q.charge(n):
			return nil
		case err != nil:
			return err
		case chosen == 0 || late == maxLate:
			return q.full(n)
		}
	}
}

// free evicts as many bytes as need says, and where that is positive some spare
// ones of those that are held; it returns how many went. No lock may be held.
func (q *quota[F]) free(need func() int64) (bytes int64, err error) {
	var gone []eviction
	q.work.Lock()
	if n := need(); n > 0 {
		_, bytes, err = q.evict(n+min(maxSpare, q.held.Load()/20), 0, &gone)
	}
	q.work.Unlock()
	q.tell(gone)
	return bytes, err
}

// trim evicts what is above the capacity, which was larger when it was stored.
func (q *quota[F]) trim() error {
	_, err := q.free(func() int64 { return q.charged.Load() - q.capacity })
	return err
}

// evict drops stripes of at least n bytes, if there are so many, and adds them
// to gone; it returns how many it chose for that, and the bytes that went. It
// chooses none where there are less than least. work is held.
func (q *quota[F]) evict(n, least int64, gone *[]eviction) (chosen int, bytes int64, err error) {
	victims, there := q.pick(n)
	if there < least {
		return 0, 0, nil
	}
	chosen = len(victims)
	for len(victims) > 0 && err == nil {
		size, batch := int64(0), 0
		for batch < len(victims) && size < batchBytes {
			size += victims[batch].bytes
			batch++
		}
		d := q.drop(victims[:batch])
		victims = victims[batch:]
		bytes, err = bytes+d.bytes, d.err
		q.evictedBytes.Add(d.bytes)
		q.evictedStripes.Add(int64(len(d.stripes)))
		*gone = append(*gone, d.stripes...)
		q.mu.Lock()
		close(q.freed)
		q.freed = make(chan struct{})
		q.mu.Unlock()
	}
	return chosen, bytes, err
}

// tell reports evictions; no lock is held.
func (q *quota[F]) tell(gone []eviction) {
	if q.evicted == nil {
		return
	}
	for _, e := range gone {
		q.evicted(e.key, e.stripe, e.whole)
	}
}

// reservePins counts n more bytes as pinned, or returns an error that wraps
// ErrFull: what is pinned can always be stored.
func (q *quota[F]) reservePins(n int64) error {
	for {
		p := q.pinned.Load()
		if p > q.capacity-n {
			return fmt.Errorf("pin %d bytes beside %d of %d: %w", n, p, q.capacity, ErrFull)
		}
		if q.pinned.CompareAndSwap(p, p+n) {
			return nil
		}
	}
}
