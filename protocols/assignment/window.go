package assignment

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// windowSize is how far behind the newest update of a supernode one may
	// come and still be new: 16 s of gossip at 512 updates a second.
	windowSize = 8192
	// maxWindows bounds the supernodes that are kept track of; beyond it, any
	// one is forgotten, whose updates may then pass a second time.
	maxWindows = 64
)

// windows remembers which updates of each supernode have been seen, as the
// anti-replay window of RFC 4303 section 3.4.3 does.
type windows struct {
	mu sync.Mutex
	// mu guards the following.
	by map[peer.ID]*window
}

type window struct {
	epoch, top uint64
	seen       [windowSize / 64]uint64
}

// fresh reports whether an update is neither seen nor stale. It changes
// nothing, so that what is not yet verified can be asked about.
func (w *windows) fresh(c Cursor) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[c.Supernode].fresh(c)
}

// mark notes that a verified update was seen. It reports whether the update was
// fresh until now: of two callers with the same one, one is told so.
func (w *windows) mark(c Cursor) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	win := w.by[c.Supernode]
	if !win.fresh(c) {
		return false
	}
	if win == nil {
		if w.by == nil {
			w.by = make(map[peer.ID]*window)
		}
		if len(w.by) >= maxWindows {
			for id := range w.by {
				delete(w.by, id)
				break
			}
		}
		win = &window{}
		w.by[c.Supernode] = win
	}
	win.mark(c)
	return true
}

func (w *window) fresh(c Cursor) bool {
	switch {
	case w == nil || c.Epoch > w.epoch:
		return true
	case c.Epoch < w.epoch:
		return false
	case c.Seq > w.top:
		return true
	case w.top-c.Seq >= windowSize:
		return false
	}
	return w.seen[c.Seq%windowSize/64]&(1<<(c.Seq%64)) == 0
}

func (w *window) mark(c Cursor) {
	if c.Epoch > w.epoch {
		*w = window{epoch: c.Epoch}
	}
	if c.Seq > w.top {
		if c.Seq-w.top >= windowSize {
			w.seen = [windowSize / 64]uint64{}
		} else {
			for s := w.top + 1; s < c.Seq; s++ {
				w.seen[s%windowSize/64] &^= 1 << (s % 64)
			}
		}
		w.top = c.Seq
	}
	w.seen[c.Seq%windowSize/64] |= 1 << (c.Seq % 64)
}
