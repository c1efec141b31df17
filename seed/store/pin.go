package store

import (
	"context"
	"fmt"

	ds "github.com/ipfs/go-datastore"
	"github.com/p2pnode/p2pnode/internal/content"
)

// Outdate implements File.
func (e *extent) Outdate(is bool) { e.outdated.Store(is) }

// Outdated implements File.
func (e *extent) Outdated() bool { return e.outdated.Load() }

// Pinned implements File.
func (e *extent) Pinned() int64 { return e.bytesIn(e.pins()) }

// setPins pins or unpins the stripes of r, and has keep put down what is pinned
// then. After an error all is as it was. One caller at a time a file.
func (q *quota[F]) setPins(e *extent, r content.Range, on bool, keep func(pins []run) error) error {
	first, end := e.stripesOf(r)
	var reserved int64
	if on {
		reserved = e.unpinned(first, end, q.capacity)
		if err := q.reservePins(reserved); err != nil {
			return err
		}
	}
	changed := e.pin(first, end, on)
	if len(changed) == 0 {
		return nil
	}
	if err := keep(e.pins()); err != nil {
		for _, c := range changed {
			e.pin(c.first, c.end, !on)
		}
		q.pinned.Add(-reserved)
		return err
	}
	if !on {
		q.pinned.Add(-e.bytesIn(changed))
	}
	return nil
}

// Pin implements File.
func (f *diskFile) Pin(r content.Range) error {
	if err := f.setPins(r, true); err != nil {
		return fmt.Errorf("pin %v of %s: %w", r, f.key.Task, err)
	}
	return nil
}

// Unpin implements File.
func (f *diskFile) Unpin(r content.Range) error {
	if err := f.setPins(r, false); err != nil {
		return fmt.Errorf("unpin %v of %s: %w", r, f.key.Task, err)
	}
	return nil
}

func (f *diskFile) setPins(r content.Range, on bool) error {
	f.disk.life.RLock()
	defer f.disk.life.RUnlock()
	if f.disk.closed {
		return ErrClosed
	}
	f.life.RLock()
	defer f.life.RUnlock()
	if f.dead.Load() {
		return ErrNotFound
	}
	f.pinning.Lock()
	defer f.pinning.Unlock()
	return f.disk.quota.setPins(f.extent, r, on, func(pins []run) error {
		return f.disk.records.putPins(f.name, pins)
	})
}

func (r *records) putPins(name string, pins []run) error {
	key := pinsPrefix + name
	return r.commit(func(ctx context.Context, b ds.Batch) error {
		if len(pins) == 0 {
			return b.Delete(ctx, ds.RawKey(key))
		}
		return b.Put(ctx, ds.RawKey(key), encodePins(key, pins))
	})
}
