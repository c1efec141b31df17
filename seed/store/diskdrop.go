package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	ds "github.com/ipfs/go-datastore"
	"github.com/p2pnode/p2pnode/internal/content"
)

func (f *diskFile) Drop(i int64) error {
	err := f.claim(i, func() error {
		if !f.Has(i) {
			return nil
		}
		return f.drop(i)
	})
	if err != nil {
		return fmt.Errorf("drop block %d of %s: %w", i, f.key.Task, err)
	}
	return nil
}

// drop forgets a held block; the caller has a claim on it.
func (f *diskFile) drop(i int64) error {
	f.forget(i)
	f.disk.cache.remove(recordID{f.serial, i})
	block := f.layout.Block(i)
	defer f.disk.quota.giveBack(block.Len)
	if err := f.disk.records.deleteBlock(f.name, i); err != nil {
		return err
	}
	f.punch(block)
	return nil
}

// forget makes a held block unreadable; it reports whether no other is held.
func (f *diskFile) forget(i int64) (last bool) {
	last = f.clear(i)
	f.epoch.Add(1)
	f.disk.quota.add(-f.layout.Block(i).Len)
	return last
}

// punch gives the bytes of r back to the file system.
func (f *diskFile) punch(r content.Range) {
	h, err := f.handle(false)
	if err != nil {
		return // there are no bytes to free
	}
	defer h.release()
	punch(h.dataFile, r.Off, r.Len)
}

// destroy deletes the file, once the writes in progress have ended, if allowed,
// called then, returns nil.
func (f *diskFile) destroy(allowed func() error) error {
	f.life.Lock()
	defer f.life.Unlock()
	if err := allowed(); err != nil {
		return err
	}
	if err := f.disk.records.deleteFile(f.name, f.extent); err != nil {
		return err
	}
	f.dead.Store(true)
	var bytes int64
	f.heldBlocks(func(i int64) {
		f.forget(i)
		bytes += f.layout.Block(i).Len
	})
	f.disk.quota.pinned.Add(-f.Pinned())
	f.disk.handles.evict(&f.open)
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.disk.log.Warn("data file stays until the next start", "path", f.path, "err", err)
	}
	f.disk.quota.giveBack(bytes)
	return nil
}

// seizure is a stripe that is being evicted: nobody can read it any more, and
// its blocks are claimed.
type seizure struct {
	f      *diskFile
	stripe int64
	blocks []int64 // that were held
	bytes  int64
	whole  bool
	done   chan struct{}
}

// evict implements quota.drop. What somebody uses by now stays. After an error
// all stay.
func (d *Disk) evict(victims []victim[*diskFile]) dropped {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.closed {
		return dropped{err: ErrClosed}
	}
	var taken []seizure
	for _, v := range victims {
		if s, ok := v.file.seize(v.stripe); ok {
			taken = append(taken, s)
		}
	}
	var out dropped
	out.err = d.records.commit(func(ctx context.Context, b ds.Batch) error {
		for _, s := range taken {
			for _, i := range s.blocks {
				if err := deleteBlock(ctx, b, s.f.name, i); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, s := range taken {
		if out.err == nil {
			s.f.punch(s.f.layout.StripeRange(s.stripe))
			d.quota.giveBack(s.bytes)
			out.bytes += s.bytes
			out.stripes = append(out.stripes, eviction{s.f.key, s.stripe, s.whole})
		} else {
			s.restore()
		}
		s.end()
	}
	for _, s := range taken {
		s.f.shrink()
	}
	return out
}

// seize takes a stripe away from all readers, unless somebody uses it.
func (f *diskFile) seize(stripe int64) (seizure, bool) {
	if !f.life.TryRLock() { // it is being deleted
		return seizure{}, false
	}
	s := seizure{f: f, stripe: stripe, done: make(chan struct{})}
	_, st := f.stripe(stripe)
	if f.dead.Load() || !s.claim() {
		f.life.RUnlock()
		return seizure{}, false
	}
	if !st.seize() {
		s.end()
		return seizure{}, false
	}
	first, end := f.blocksOf(stripe)
	for i := first; i < end; i++ {
		if f.Has(i) {
			s.whole = f.forget(i)
			s.blocks = append(s.blocks, i)
			s.bytes += f.layout.Block(i).Len
		}
	}
	st.unseize()
	for _, i := range s.blocks {
		f.disk.cache.remove(recordID{f.serial, i})
	}
	return s, true
}

// claim takes a claim on all blocks of the stripe, if nobody has one.
func (s *seizure) claim() bool {
	f := s.f
	first, end := f.blocksOf(s.stripe)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := first; i < end; i++ {
		if f.claimed[i] != nil {
			return false
		}
	}
	for i := first; i < end; i++ {
		f.claimed[i] = s.done
	}
	return true
}

// restore makes the blocks readable again.
func (s *seizure) restore() {
	for _, i := range s.blocks {
		s.f.disk.quota.add(s.f.layout.Block(i).Len)
		s.f.set(i)
	}
}

// end lets the stripe and its file go.
func (s *seizure) end() {
	first, end := s.f.blocksOf(s.stripe)
	s.f.mu.Lock()
	for i := first; i < end; i++ {
		delete(s.f.claimed, i)
	}
	s.f.mu.Unlock()
	close(s.done)
	s.f.life.RUnlock()
}

// shrink cuts a data file of which nothing is held, where nobody is about to
// write to it. Where there are no holes in files only this frees the disk.
func (f *diskFile) shrink() {
	if f.Count() != 0 || !f.life.TryLock() {
		return
	}
	defer f.life.Unlock()
	if f.Count() != 0 || f.dead.Load() {
		return
	}
	h, err := f.handle(false)
	if err != nil {
		return
	}
	defer h.release()
	if file, ok := h.dataFile.(interface{ Truncate(size int64) error }); ok {
		_ = file.Truncate(0) // best effort, like the holes
	}
}

// reclaim frees what a kill left in the data file of blocks that are not held:
// their bytes are written before, and freed after, what says that they are.
func (f *diskFile) reclaim() {
	var held int64
	f.heldBlocks(func(i int64) { held += f.layout.Block(i).Len })
	if on, ok := allocated(f.path); !ok || on < held+content.BlockSize/2 {
		return
	}
	h, err := f.handle(false)
	if err != nil {
		return
	}
	defer h.release()
	from := int64(0)
	f.heldBlocks(func(i int64) {
		block := f.layout.Block(i)
		if block.Off > from {
			punch(h.dataFile, from, block.Off-from)
		}
		from = block.End()
	})
	if from < f.layout.Size {
		punch(h.dataFile, from, f.layout.Size-from)
	}
}
