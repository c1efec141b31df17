package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/p2pnode/p2pnode/internal/content"
)

// diskFile is a File of a Disk.
//
// Readers take no lock. What they rely on: the bytes of a held block never
// change, and whoever drops one clears its bit, then advances epoch, and only
// then touches its record and its bytes. A reader that finds the epoch where it
// was has read what was held.
//
// Whoever writes, drops or condemns a block has a claim on it; whoever evicts a
// stripe has one on each of its blocks.
type diskFile struct {
	*extent
	disk  *Disk
	info  Info
	name  string // in keys of the datastore
	path  string
	open  atomic.Pointer[handle]
	epoch atomic.Uint64

	// life is held for reading by claims. It guards the writing of dead.
	life sync.RWMutex
	dead atomic.Bool

	// mu guards the following.
	mu      sync.Mutex
	claimed map[int64]chan struct{} // closed when the claim ends

	pinning sync.Mutex // held while pins change
}

func (f *diskFile) Info() Info  { return f.info }
func (f *diskFile) Alive() bool { return !f.dead.Load() }

func (f *diskFile) Lease(r content.Range) Lease { return f.lease(r, f.disk.clock()) }

// want says that somebody took an interest in the file at the time now.
func (f *diskFile) want(now uint32) *diskFile {
	f.wanted.Store(now)
	return f
}

// claim does work while nobody else writes or drops block i or evicts its
// stripe, the file is not deleted and the store not closed.
func (f *diskFile) claim(i int64, work func() error) error {
	lease := f.lease(f.layout.Block(i), f.disk.clock())
	defer lease.Release()
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
	done := make(chan struct{})
	for {
		f.mu.Lock()
		other, busy := f.claimed[i]
		if !busy {
			f.claimed[i] = done
		}
		f.mu.Unlock()
		if !busy {
			break
		}
		<-other
	}
	defer func() {
		f.mu.Lock()
		delete(f.claimed, i)
		f.mu.Unlock()
		close(done)
	}()
	return work()
}

// handle returns the open data file; the caller releases it.
func (f *diskFile) handle(create bool) (*handle, error) {
	h, err := f.disk.handles.get(&f.open, f.path, create)
	// A file that was deleted meanwhile may have a successor of the same name.
	if f.dead.Load() {
		if err == nil {
			h.release()
			f.disk.handles.evict(&f.open)
		}
		return nil, ErrNotFound
	}
	return h, err
}

func (f *diskFile) Write(i int64, data []byte, rec Record) error {
	err := validateBlock(f.layout, i, data, rec)
	if err == nil {
		err = f.put(i, data, rec)
	}
	if err != nil {
		if errors.Is(err, ErrFull) {
			f.disk.metrics.refused.Inc()
		}
		return fmt.Errorf("write block %d of %s: %w", i, f.key.Task, err)
	}
	return nil
}

// put writes a block that is not held, once there is room for it. A disk that is
// full all the same gets a second try after an eviction.
func (f *diskFile) put(i int64, data []byte, rec Record) error {
	defer f.use(i>>f.shift, f.disk.clock()).release()
	n := int64(len(data))
	err := f.putOnce(i, data, rec)
	if noSpace(err) {
		if roomErr := f.disk.makeRoom(n, n); roomErr != nil {
			return fmt.Errorf("%w: %w", roomErr, err)
		}
		if err = f.putOnce(i, data, rec); noSpace(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	return err
}

func (f *diskFile) putOnce(i int64, data []byte, rec Record) error {
	n := int64(len(data))
	if f.Has(i) || f.dead.Load() { // for which no other block should go
		return f.claim(i, func() error { return nil })
	}
	if err := f.disk.quota.reserve(n); err != nil {
		return err
	}
	written := false
	defer func() {
		if !written {
			f.disk.quota.giveBack(n)
		}
	}()
	if err := f.disk.makeRoom(n, 0); err != nil {
		return err
	}
	return f.claim(i, func() error {
		if f.Has(i) {
			return nil
		}
		err := f.write(i, data, rec)
		written = err == nil
		return err
	})
}

// write writes a block; the caller has a claim on it and reserved its bytes.
func (f *diskFile) write(i int64, data []byte, rec Record) error {
	h, err := f.handle(true)
	if err != nil {
		return err
	}
	defer h.release()
	base := i * content.BlockSize
	if _, err := h.WriteAt(data, base); err != nil {
		punch(h.dataFile, base, int64(len(data)))
		return err
	}
	if err := f.disk.records.putBlock(f.name, i, rec); err != nil {
		return err
	}
	rec.Outboard, rec.Sig = bytes.Clone(rec.Outboard), bytes.Clone(rec.Sig)
	f.disk.cache.add(recordID{f.serial, i}, &rec)
	f.checked(i).Store(f.disk.clock())
	f.disk.quota.add(int64(len(data)))
	f.disk.metrics.writes.Inc()
	f.set(i)
	return nil
}

func (f *diskFile) Record(i int64) (Record, error) {
	rec, err := f.heldRecord(i)
	if isDamage(err) {
		if err = f.examine(i); err == nil {
			rec, err = f.heldRecord(i)
		}
	}
	if err != nil {
		return Record{}, fmt.Errorf("record of block %d of %s: %w", i, f.key.Task, err)
	}
	return *rec, nil
}

func (f *diskFile) heldRecord(i int64) (*Record, error) {
	if !f.Has(i) {
		return nil, ErrNotFound
	}
	return f.record(i)
}

// record returns the record of a held block, from memory if it is there.
func (f *diskFile) record(i int64) (*Record, error) {
	id := recordID{f.serial, i}
	if rec, ok := f.disk.cache.get(id); ok {
		f.disk.metrics.recordHits.Inc()
		return rec, nil
	}
	f.disk.metrics.recordMisses.Inc()
	epoch := f.epoch.Load()
	rec, err := f.disk.records.block(f.name, i, f.layout.Block(i).Len)
	if err != nil {
		return nil, err
	}
	f.disk.cache.add(id, rec)
	if f.epoch.Load() != epoch {
		f.disk.cache.remove(id) // it may be that of a dropped block
	}
	return rec, nil
}

func (f *diskFile) ReadAt(p []byte, off int64, verify bool) error {
	if err := checkRange(off, len(p), f.info.Size); err != nil {
		return err
	}
	total, now := len(p), f.disk.clock()
	for len(p) > 0 {
		i, in := off/content.BlockSize, off%content.BlockSize
		n := min(int64(len(p)), content.BlockSize-in)
		st := f.use(i>>f.shift, now)
		err := f.readBlock(p[:n], i, in, verify, now)
		st.release()
		if err != nil {
			return fmt.Errorf("read block %d of %s: %w", i, f.key.Task, err)
		}
		p, off = p[n:], off+n
	}
	f.disk.metrics.readBytes.Add(float64(total))
	return nil
}

// readBlock fills p from byte in of block i on. While blocks are dropped around
// it, it tries again, in the end with a claim on its block.
func (f *diskFile) readBlock(p []byte, i, in int64, verify bool, now uint32) error {
	for range 3 {
		epoch := f.epoch.Load()
		err := f.tryRead(p, i, in, verify, now)
		if err == nil && f.epoch.Load() == epoch {
			return nil
		}
		if isDamage(err) {
			err = f.examine(i)
		}
		if err != nil {
			return err
		}
	}
	return f.claim(i, func() error {
		err := f.tryRead(p, i, in, verify, now)
		if isDamage(err) {
			return f.condemn(i, err)
		}
		return err
	})
}

func (f *diskFile) tryRead(p []byte, i, in int64, verify bool, now uint32) error {
	if !f.Has(i) {
		return ErrNotFound
	}
	h, err := f.handle(false)
	if err != nil {
		return err
	}
	defer h.release()
	if f.checkDue(i, verify, now) {
		if err := f.compare(h, i, f.record); err != nil {
			return err
		}
	}
	base := i * content.BlockSize
	if !verify {
		if n, err := h.ReadAt(p, base+in); n < len(p) {
			return err
		}
		return nil
	}
	rec, err := f.record(i)
	if err != nil {
		return err
	}
	return readVerified(h.dataFile, base, f.layout.Block(i).Len, rec, p, in)
}

// checkDue reports whether the caller has to check block i before it reads it.
// Of the readers that meet an old check one makes the new one.
func (f *diskFile) checkDue(i int64, verify bool, now uint32) bool {
	checked := f.checked(i)
	at := checked.Load()
	if at == 0 || verify {
		return at == 0
	}
	return now > at+uint32(RecheckAfter.Seconds()) && checked.CompareAndSwap(at, now)
}

// compare checks all of block i against its record, and notes the result.
func (f *diskFile) compare(h *handle, i int64, record func(int64) (*Record, error)) error {
	f.disk.metrics.checks.Inc()
	rec, err := record(i)
	if err == nil {
		err = checkBlock(h.dataFile, i*content.BlockSize, f.layout.Block(i).Len, rec)
	}
	if err != nil {
		f.checked(i).Store(0)
		return err
	}
	f.checked(i).Store(f.disk.clock())
	return nil
}

func (f *diskFile) Check(i int64) error {
	if err := f.examine(i); err != nil {
		return fmt.Errorf("check block %d of %s: %w", i, f.key.Task, err)
	}
	return nil
}

// examine checks block i while nobody changes it, and drops it where it fails.
// What a reader took for damage may have been a block that was dropped and
// written again meanwhile: then all is well, and examine returns nil.
func (f *diskFile) examine(i int64) error {
	return f.claim(i, func() error {
		if !f.Has(i) {
			return ErrNotFound
		}
		f.disk.cache.remove(recordID{f.serial, i})
		h, err := f.handle(false)
		if err == nil {
			err = f.compare(h, i, f.record)
			h.release()
		}
		if isDamage(err) {
			return f.condemn(i, err)
		}
		return err
	})
}

// condemn drops a damaged block; the caller has a claim on it.
func (f *diskFile) condemn(i int64, reason error) error {
	f.disk.metrics.corrupt.Inc()
	f.disk.log.Warn("dropped a corrupt block", "task", f.key.Task, "generation", f.key.Generation, "block", i, "err", reason)
	return errors.Join(ErrCorrupt, f.drop(i))
}

// isDamage reports whether err says that a block is not as it was written; all
// else may pass.
func isDamage(err error) bool {
	if err == nil {
		return false
	}
	for _, damage := range []error{errMismatch, errRecord, io.EOF, io.ErrUnexpectedEOF, fs.ErrNotExist, syscall.EIO} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}
