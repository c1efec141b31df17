package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// dataFile is what the store needs of an open file.
type dataFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// handle is an open data file. It closes when the last of its users, of which
// the cache is one, lets it go.
type handle struct {
	dataFile
	slot   *atomic.Pointer[handle] // where its file keeps it
	users  atomic.Int32
	recent atomic.Bool // used since the hand last passed
}

// acquire reports false for a handle that is closed or closing.
func (h *handle) acquire() bool {
	for {
		n := h.users.Load()
		if n == 0 {
			return false
		}
		if h.users.CompareAndSwap(n, n+1) {
			if !h.recent.Load() {
				h.recent.Store(true)
			}
			return true
		}
	}
}

func (h *handle) release() {
	if h.users.Add(-1) == 0 {
		// The data are not synced, and a failed write was reported by WriteAt:
		// there is nothing an error here could add.
		_ = h.Close()
	}
}

// handles keeps a bounded number of data files open. Each file has a slot with
// its own handle, so that finding an open one takes no lock; which of them goes
// when there are too many is decided by the clock algorithm, whose only trace
// on a read is one bit.
type handles struct {
	open func(path string, create bool) (dataFile, error)

	// mu guards the following.
	mu     sync.Mutex
	ring   []*handle // nil where free
	hand   int
	closed bool
}

func newHandles(size int, open func(string, bool) (dataFile, error)) *handles {
	return &handles{open: open, ring: make([]*handle, size)}
}

// get returns the handle in slot, opening path where there is none; the caller
// releases it. No lock is held while a file is opened or closed.
func (c *handles) get(slot *atomic.Pointer[handle], path string, create bool) (*handle, error) {
	for {
		if h := slot.Load(); h != nil && h.acquire() {
			return h, nil
		}
		f, err := c.open(path, create)
		if err != nil {
			return nil, err
		}
		h := &handle{dataFile: f, slot: slot}
		h.users.Store(2)
		old, err := c.add(h)
		if old != nil {
			old.release()
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if old != h {
			return h, nil
		}
		h.release() // another opened it meanwhile: use that one
	}
}

// add puts h into its slot and the ring. It returns the handle that must be
// released for that: the one that had the place in the ring, or h itself where
// the slot has been filled by another.
func (c *handles) add(h *handle) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if !h.slot.CompareAndSwap(nil, h) {
		return h, nil
	}
	for {
		at := c.hand
		c.hand = (c.hand + 1) % len(c.ring)
		old := c.ring[at]
		if old == nil || !old.recent.Swap(false) {
			c.ring[at] = h
			if old != nil {
				old.slot.CompareAndSwap(old, nil)
			}
			return old, nil
		}
	}
}

// evict lets go of the handle in slot, if there is one.
func (c *handles) evict(slot *atomic.Pointer[handle]) {
	c.mu.Lock()
	h := slot.Swap(nil)
	if h != nil {
		for i := range c.ring {
			if c.ring[i] == h {
				c.ring[i] = nil
			}
		}
	}
	c.mu.Unlock()
	if h != nil {
		h.release()
	}
}

// close lets go of all handles; those in use close with their last user.
func (c *handles) close() {
	c.mu.Lock()
	c.closed = true
	open := c.ring
	c.ring = nil
	for _, h := range open {
		if h != nil {
			h.slot.CompareAndSwap(h, nil)
		}
	}
	c.mu.Unlock()
	for _, h := range open {
		if h != nil {
			h.release()
		}
	}
}

// openData opens a data file; to create it, it makes its directory too.
func openData(path string, create bool) (dataFile, error) {
	if !create {
		return os.OpenFile(path, os.O_RDWR, 0)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
