package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// MemoryConfig says how much a Memory keeps.
type MemoryConfig struct {
	// Capacity, Owned and Evicted are those of DiskConfig.
	Capacity int64
	Owned    func(key Key, stripe int64) bool
	Evicted  func(key Key, stripe int64, whole bool)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Memory is a Store that lives and dies with the process: for tests, and for
// nodes that must not write.
type Memory struct {
	index  *index[*memoryFile]
	quota  *quota[*memoryFile]
	now    func() time.Time
	serial atomic.Uint64
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store of at most capacity bytes; 0 or less means
// DefaultCapacity.
func NewMemory(capacity int64) *Memory { return OpenMemory(MemoryConfig{Capacity: capacity}) }

// OpenMemory returns an empty store.
func OpenMemory(cfg MemoryConfig) *Memory {
	m := &Memory{
		index: newIndex[*memoryFile](),
		quota: newQuota[*memoryFile](cfg.Capacity, cfg.Owned, cfg.Evicted),
		now:   cfg.Now,
	}
	if m.now == nil {
		m.now = time.Now
	}
	m.quota.files, m.quota.drop = m.index.all, m.evict
	return m
}

// clock returns the time in Unix seconds, at least 1.
func (m *Memory) clock() uint32 { return uint32(max(1, m.now().Unix())) }

// Create implements Store.
func (m *Memory) Create(key Key, info Info) (File, error) {
	if err := validateInfo(key, info); err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	f, err := m.index.create(key, func() (*memoryFile, error) {
		e := newExtent(m.serial.Add(1), key, info.Layout(), m.clock())
		return &memoryFile{extent: e, store: m, info: info, blocks: make(map[int64]*memoryBlock)}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	f.wanted.Store(m.clock())
	return f, nil
}

// Open implements Store.
func (m *Memory) Open(key Key) (File, error) { return m.want(m.index.get(key)) }

// Latest implements Store.
func (m *Memory) Latest(task content.TaskID) (File, error) { return m.want(m.index.latest(task)) }

// want notes that somebody took an interest in f. It keeps a nil pointer from
// becoming a File that is not nil.
func (m *Memory) want(f *memoryFile, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	f.wanted.Store(m.clock())
	return f, nil
}

// Delete implements Store.
func (m *Memory) Delete(key Key) error { return m.index.remove(key, (*memoryFile).destroy) }

// Files implements Store.
func (m *Memory) Files() iter.Seq[File] { return yieldFiles(m.index) }

func yieldFiles[F tracked](x *index[F]) iter.Seq[File] {
	return func(yield func(File) bool) {
		for _, f := range x.all() {
			if !yield(f) {
				return
			}
		}
	}
}

// Used implements Store.
func (m *Memory) Used() int64 { return m.quota.held.Load() }

// Capacity implements Store.
func (m *Memory) Capacity() int64 { return m.quota.capacity }

// Pinned implements Store.
func (m *Memory) Pinned() int64 { return m.quota.pinned.Load() }

// Free implements Store.
func (m *Memory) Free() int64 { return m.quota.room() }

// Reserve implements Store.
func (m *Memory) Reserve(n int64) error { return m.quota.reserve(n) }

// GiveBack implements Store.
func (m *Memory) GiveBack(n int64) { m.quota.giveBack(n) }

// Close implements Store; it drops everything.
func (m *Memory) Close() error {
	if !m.index.close() {
		return ErrClosed
	}
	for _, f := range m.index.all() {
		f.mu.Lock()
		f.closed = true
		f.heldBlocks(func(i int64) { f.dropLocked(i) })
		f.mu.Unlock()
	}
	return nil
}

// evict implements quota.drop.
func (m *Memory) evict(victims []victim[*memoryFile]) (out dropped) {
	for _, v := range victims {
		if bytes, whole, ok := v.file.evict(v.stripe); ok {
			out.bytes += bytes
			out.stripes = append(out.stripes, eviction{v.file.key, v.stripe, whole})
		}
	}
	return out
}

type memoryBlock struct {
	data *bytes.Reader
	rec  Record
}

type memoryFile struct {
	*extent
	store *Memory
	info  Info

	// mu guards the following; a block never changes once it is in.
	mu              sync.RWMutex
	blocks          map[int64]*memoryBlock
	deleted, closed bool
}

func (f *memoryFile) Info() Info { return f.info }

func (f *memoryFile) Alive() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.deleted
}

func (f *memoryFile) Lease(r content.Range) Lease { return f.lease(r, f.store.clock()) }

// goneLocked returns why nothing can be done with the file any more, or nil.
func (f *memoryFile) goneLocked() error {
	switch {
	case f.deleted:
		return ErrNotFound
	case f.closed:
		return ErrClosed
	}
	return nil
}

func (f *memoryFile) Write(i int64, data []byte, rec Record) error {
	err := validateBlock(f.layout, i, data, rec)
	if err == nil {
		err = f.put(i, data, rec)
	}
	if err != nil {
		return fmt.Errorf("write block %d of %s: %w", i, f.key.Task, err)
	}
	return nil
}

func (f *memoryFile) put(i int64, data []byte, rec Record) error {
	defer f.use(i>>f.shift, f.store.clock()).release()
	f.mu.RLock()
	err := f.goneLocked()
	f.mu.RUnlock()
	if err != nil || f.Has(i) {
		return err
	}
	if err := f.store.quota.reserve(int64(len(data))); err != nil {
		return err
	}
	rec.Outboard, rec.Sig = bytes.Clone(rec.Outboard), bytes.Clone(rec.Sig)
	block := &memoryBlock{data: bytes.NewReader(bytes.Clone(data)), rec: rec}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err = f.goneLocked(); err != nil || !f.set(i) {
		f.store.quota.giveBack(int64(len(data)))
		return err
	}
	f.blocks[i] = block
	f.store.quota.add(int64(len(data)))
	return nil
}

func (f *memoryFile) block(i int64) (*memoryBlock, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.goneLocked(); err != nil {
		return nil, err
	}
	b, ok := f.blocks[i]
	if !ok {
		return nil, ErrNotFound
	}
	return b, nil
}

func (f *memoryFile) Record(i int64) (Record, error) {
	b, err := f.block(i)
	if err != nil {
		return Record{}, fmt.Errorf("record of block %d of %s: %w", i, f.key.Task, err)
	}
	return b.rec, nil
}

func (f *memoryFile) ReadAt(p []byte, off int64, verify bool) error {
	if err := checkRange(off, len(p), f.info.Size); err != nil {
		return err
	}
	now := f.store.clock()
	for len(p) > 0 {
		i, in := off/content.BlockSize, off%content.BlockSize
		n := min(int64(len(p)), content.BlockSize-in)
		if err := f.readBlock(p[:n], i, in, verify, now); err != nil {
			return fmt.Errorf("read block %d of %s: %w", i, f.key.Task, err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readBlock fills p from byte in of block i on.
func (f *memoryFile) readBlock(p []byte, i, in int64, verify bool, now uint32) error {
	defer f.use(i>>f.shift, now).release()
	b, err := f.block(i)
	if err != nil {
		return err
	}
	if verify {
		err = readVerified(b.data, 0, b.data.Size(), &b.rec, p, in)
	} else {
		_, err = b.data.ReadAt(p, in)
	}
	if err != nil {
		return f.corrupt(i)
	}
	return nil
}

func (f *memoryFile) Check(i int64) error {
	b, err := f.block(i)
	if err != nil {
		return fmt.Errorf("check block %d of %s: %w", i, f.key.Task, err)
	}
	if checkBlock(b.data, 0, b.data.Size(), &b.rec) != nil {
		return fmt.Errorf("check block %d of %s: %w", i, f.key.Task, f.corrupt(i))
	}
	return nil
}

// corrupt drops a block, whose bytes cannot have changed but by a fault of the
// memory or of this process.
func (f *memoryFile) corrupt(i int64) error {
	return errors.Join(ErrCorrupt, f.Drop(i))
}

func (f *memoryFile) Drop(i int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.goneLocked(); err != nil {
		return fmt.Errorf("drop block %d of %s: %w", i, f.key.Task, err)
	}
	if f.Has(i) {
		f.dropLocked(i)
	}
	return nil
}

// dropLocked drops a held block; it reports whether it was the last.
func (f *memoryFile) dropLocked(i int64) (last bool) {
	last = f.clear(i)
	n := f.blocks[i].data.Size()
	delete(f.blocks, i)
	f.store.quota.add(-n)
	f.store.quota.giveBack(n)
	return last
}

// evict drops the blocks of a stripe, unless somebody uses it.
func (f *memoryFile) evict(stripe int64) (bytes int64, whole, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, st := f.stripe(stripe)
	if f.goneLocked() != nil || !st.seize() {
		return 0, false, false
	}
	defer st.unseize()
	first, end := f.blocksOf(stripe)
	for i := first; i < end; i++ {
		if f.Has(i) {
			bytes += f.layout.Block(i).Len
			whole = f.dropLocked(i)
		}
	}
	return bytes, whole, true
}

func (f *memoryFile) destroy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deleted = true
	f.heldBlocks(func(i int64) { f.dropLocked(i) })
	f.store.quota.pinned.Add(-f.Pinned())
	return nil
}

// Pin implements File.
func (f *memoryFile) Pin(r content.Range) error {
	if err := f.setPins(r, true); err != nil {
		return fmt.Errorf("pin %v of %s: %w", r, f.key.Task, err)
	}
	return nil
}

// Unpin implements File.
func (f *memoryFile) Unpin(r content.Range) error {
	if err := f.setPins(r, false); err != nil {
		return fmt.Errorf("unpin %v of %s: %w", r, f.key.Task, err)
	}
	return nil
}

func (f *memoryFile) setPins(r content.Range, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.goneLocked(); err != nil {
		return err
	}
	return f.store.quota.setPins(f.extent, r, on, func([]run) error { return nil })
}
