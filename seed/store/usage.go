package store

import (
	"context"
	"fmt"

	ds "github.com/ipfs/go-datastore"
)

// timesBatch is how many pages' times are written in one step.
const timesBatch = 1024

// takeTimes takes the times of use of page at, as they were kept; it reports
// whether there is such a page. A time to come is of a clock that was wrong.
func (e *extent) takeTimes(at int64, used []uint32, now uint32) bool {
	if at >= int64(len(e.pages)) {
		return false
	}
	p := e.page(at * pageBlocks)
	if len(used) != len(p.stripes) {
		return false
	}
	for s, t := range used {
		p.stripes[s].used.Store(min(t, now))
	}
	return true
}

// assumeUsed counts now as the last use of stripes of which it is not known:
// those written in the last moments before a kill.
func (e *extent) assumeUsed(now uint32) {
	e.heldStripes(func(_ int64, st *stripe, _ int64) { st.used.CompareAndSwap(0, now) })
}

// touchedPage is a page whose times of use have changed.
type touchedPage struct {
	f  *diskFile
	at int64
	p  *page
}

// flushTimes writes the times of use that have changed.
func (d *Disk) flushTimes() error {
	var pages []touchedPage
	for _, f := range d.index.all() {
		for at := range f.pages {
			if p := f.pages[at].Load(); p != nil && p.touched.Load() {
				pages = append(pages, touchedPage{f, int64(at), p})
			}
		}
	}
	for len(pages) > 0 {
		n := min(len(pages), timesBatch)
		if err := d.putTimes(pages[:n]); err != nil {
			return fmt.Errorf("write the times of use of %d pages: %w", n, err)
		}
		pages = pages[n:]
	}
	return nil
}

// putTimes writes the times of some pages in one step. None of their files is
// deleted meanwhile; those that are just being deleted are left out.
func (d *Disk) putTimes(pages []touchedPage) error {
	var live []touchedPage
	for _, t := range pages {
		if !t.f.life.TryRLock() {
			continue
		}
		defer t.f.life.RUnlock()
		if !t.f.dead.Load() {
			live = append(live, t)
		}
	}
	err := d.records.commit(func(ctx context.Context, b ds.Batch) error {
		for _, t := range live {
			t.p.touched.Store(false) // before the times are read
			key := blockKey(timesPrefix, t.f.name, t.at)
			if err := b.Put(ctx, ds.RawKey(key), encodeTimes(key, t.p.stripes)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, t := range live {
			t.p.touched.Store(true)
		}
	}
	return err
}
