package store

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxOpenFiles bounds the data files that are open at a time.
	maxOpenFiles = 256
	// maxCachedRecords bounds the records in memory; each takes about 4 KiB.
	maxCachedRecords = 4096
	// minFree is what a disk must have left for a block to be written: a full
	// one stops the record database for good.
	minFree = 64 << 20
	// minOpen is what it must have left when a store is opened: below it the
	// record database may wait for ever.
	minOpen = minFree / 4
)

// DiskConfig says where and how a Disk keeps its blocks.
type DiskConfig struct {
	// Dir is made where there is none, with mode 0700. Required.
	Dir string
	// Capacity bounds the bytes of blocks, and of what is reserved; 0 means DefaultCapacity. What was
	// stored under a larger one goes when Maintain is called, or when the next
	// block is written.
	Capacity int64
	// Owned reports whether this node is who fetches a stripe from the origin:
	// such stripes are evicted after others. It must not call the store's
	// methods that write. Nil means that it owns nothing.
	Owned func(key Key, stripe int64) bool
	// Evicted hears of each stripe that was evicted, once it is gone, and
	// whether the file has no block left. It is called without locks, by
	// whoever needed the room, and delays him. Nil for nobody.
	Evicted func(key Key, stripe int64, whole bool)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger hears of damage; nil means slog.Default.
	Logger *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer

	// What tests put something else for.
	open func(path string, create bool) (dataFile, error)
	free func(dir string) (int64, bool)
	boot func() string
	// every is the time between two calls of Maintain by Run.
	every time.Duration
}

func (c DiskConfig) withDefaults() DiskConfig {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.open == nil {
		c.open = openData
	}
	if c.free == nil {
		c.free = freeSpace
	}
	if c.boot == nil {
		c.boot = bootID
	}
	if c.every == 0 {
		c.every = MaintainEvery
	}
	return c
}

// Disk is a Store in a directory, which it has to itself.
type Disk struct {
	cfg     DiskConfig
	log     *slog.Logger
	elapsed func() time.Duration // since the store was opened
	epoch   uint32               // what the clock was then
	clean   bool                 // what the directory held when it was opened needs no check
	lock    *DirLock
	records *records
	cache   *recordCache
	handles *handles
	index   *index[*diskFile]
	quota   *quota[*diskFile]
	metrics *metrics
	serial  atomic.Uint64 // numbers the files of this process

	// life is held for reading while a block is written or dropped.
	// It guards the following.
	life   sync.RWMutex
	closed bool
}

var _ Store = (*Disk)(nil)

// OpenDisk opens the store in cfg.Dir, or makes one. The caller closes it. An
// error wraps ErrLocked where another process has the directory, and ErrFull
// where its disk has less than 16 MiB left.
func OpenDisk(cfg DiskConfig) (*Disk, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open store: Dir is empty")
	}
	started, elapsed := stopwatch(cfg.Now)
	cfg = cfg.withDefaults()
	lock, err := LockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	d := &Disk{
		cfg:     cfg,
		log:     cfg.Logger,
		elapsed: elapsed,
		epoch:   uint32(max(1, started.Unix())),
		lock:    lock,
		cache:   newRecordCache(maxCachedRecords),
		handles: newHandles(maxOpenFiles, cfg.open),
		index:   newIndex[*diskFile](),
		quota:   newQuota[*diskFile](cfg.Capacity, cfg.Owned, cfg.Evicted),
	}
	d.quota.files, d.quota.drop = d.index.all, d.evict
	if err := d.load(); err != nil {
		if d.records != nil {
			err = errors.Join(err, d.records.close())
		}
		return nil, errors.Join(fmt.Errorf("open store: %w", err), lock.Close())
	}
	d.metrics = newMetrics(cfg.Registerer, d)
	d.log.Info("block store opened", "dir", cfg.Dir, "files", d.index.count(), "bytes", d.Used(), "clean", d.clean)
	return d, nil
}

// load reads what the directory holds.
func (d *Disk) load() (err error) {
	// Also that of the records: its own maker would let others look into it.
	if err := errors.Join(os.MkdirAll(filepath.Join(d.cfg.Dir, "data"), 0o700), os.MkdirAll(filepath.Join(d.cfg.Dir, "records"), 0o700)); err != nil {
		return err
	}
	if free, ok := d.cfg.free(d.cfg.Dir); ok && free < minOpen {
		return fmt.Errorf("%d bytes are free on the disk of %s, %d are needed: make room there, or use another directory: %w",
			free, d.cfg.Dir, int64(minOpen), ErrFull)
	}
	if d.clean, err = takeMark(d.cfg.Dir, d.cfg.boot()); err != nil {
		return err
	}
	if d.records, err = openRecords(filepath.Join(d.cfg.Dir, "records"), d.log); err != nil {
		return err
	}
	byName := make(map[string]*diskFile)
	removed, err := d.records.load(d.loader(byName))
	if err != nil {
		return err
	}
	if removed > 0 {
		d.log.Warn("removed damaged records", "dir", d.cfg.Dir, "records", removed)
	}
	for _, f := range byName {
		f.assumeUsed(d.epoch)
	}
	d.index.outdateOlder()
	if err := d.sweep(byName); err != nil {
		return err
	}
	if !d.clean {
		for _, f := range byName {
			f.reclaim()
		}
	}
	return nil
}

// loader puts what the datastore holds into the files, and those into byName.
func (d *Disk) loader(byName map[string]*diskFile) loader {
	return loader{
		file: func(name string, info Info) error {
			key, err := parseName(name)
			if err != nil {
				return err
			}
			f := d.newFile(key, info)
			byName[name] = f
			d.index.insert(key, f)
			return nil
		},
		held: func(name string, i int64) bool {
			f := byName[name]
			if f == nil || i >= f.n {
				return false
			}
			if f.set(i) {
				d.quota.adopt(f.layout.Block(i).Len)
			}
			if d.clean {
				f.checked(i).Store(d.epoch)
			}
			return true
		},
		times: func(name string, page int64, used []uint32) bool {
			f := byName[name]
			return f != nil && f.takeTimes(page, used, d.epoch)
		},
		pins: func(name string, pins []run) bool {
			f := byName[name]
			if f == nil || len(pins) > 0 && pins[len(pins)-1].end > (f.n-1)>>f.shift+1 {
				return false
			}
			for _, r := range pins {
				d.quota.pinned.Add(f.bytesIn(f.pin(r.first, r.end, true)))
			}
			return true
		},
	}
}

// sweep removes the data files that no Info speaks of: a kill between the two
// steps of a Delete leaves one.
func (d *Disk) sweep(known map[string]*diskFile) error {
	root := filepath.Join(d.cfg.Dir, "data")
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		task, generation, _ := strings.Cut(entry.Name(), ".")
		key, err := parseName(task + "/" + generation)
		if err != nil || known[fileName(key)] != nil {
			return nil // not ours to remove, or in use
		}
		return os.Remove(path)
	})
}

func (d *Disk) newFile(key Key, info Info) *diskFile {
	name := fileName(key)
	return &diskFile{
		extent:  newExtent(d.serial.Add(1), key, info.Layout(), d.clock()),
		disk:    d,
		info:    info,
		name:    name,
		path:    filepath.Join(d.cfg.Dir, "data", name[:2], strings.Replace(name, "/", ".", 1)),
		claimed: make(map[int64]chan struct{}),
	}
}

// clock returns the time in Unix seconds, at least 1. It goes on as it began
// when somebody sets the machine's clock.
func (d *Disk) clock() uint32 {
	return d.epoch + uint32(max(0, d.elapsed()/time.Second))
}

// stopwatch returns the time, and a function that says how much has passed since
// then. With the real clock that costs half of what time.Now does.
func stopwatch(now func() time.Time) (started time.Time, elapsed func() time.Duration) {
	if now == nil {
		started = time.Now()
		return started, func() time.Duration { return time.Since(started) }
	}
	started = now()
	return started, func() time.Duration { return now().Sub(started) }
}

// Create implements Store.
func (d *Disk) Create(key Key, info Info) (File, error) {
	if err := validateInfo(key, info); err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	if f, err := d.index.get(key); err == nil {
		return f.want(d.clock()), nil
	}
	if err := d.makeRoom(0, 0); err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	if d.index.count() >= maxFiles {
		if err := d.forgetEmpty(); err != nil {
			return nil, fmt.Errorf("create file: %w", err)
		}
	}
	f, err := d.index.create(key, func() (*diskFile, error) {
		f := d.newFile(key, info)
		return f, d.records.putInfo(f.name, info)
	})
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	return f, nil
}

// lateDelay is the wait, doubled each time, before what is in use is looked at
// again: the time in which a block is written.
const lateDelay = time.Millisecond

// makeRoom returns an error that wraps ErrFull where the disk cannot take n
// bytes, and evicts to change that; with atLeast, so many bytes in any case. No
// lock may be held.
func (d *Disk) makeRoom(n, atLeast int64) error {
	short := func() int64 {
		free, ok := d.cfg.free(d.cfg.Dir)
		if !ok {
			return 0
		}
		return minFree + n - free
	}
	missing := max(short(), atLeast)
	for late := 0; missing > 0; {
		var need int64
		bytes, err := d.quota.free(func() int64 {
			need = max(short(), atLeast)
			return need
		})
		if err != nil {
			return err
		}
		if bytes < atLeast {
			return fmt.Errorf("%d of %d bytes could be evicted: %w", bytes, atLeast, ErrFull)
		}
		atLeast, missing = 0, short()
		if missing <= 0 || need <= 0 || bytes > 0 {
			continue // what others have taken meanwhile is freed anew
		}
		if late++; late > maxLate {
			return fmt.Errorf("%d bytes too few are free on the disk of %s, where %d are kept: %w", missing, d.cfg.Dir, int64(minFree), ErrFull)
		}
		<-time.After(lateDelay << late) // all that could go is in use for the moment, by writers
	}
	return nil
}

// Open implements Store.
func (d *Disk) Open(key Key) (File, error) {
	f, err := d.index.get(key)
	if err != nil {
		return nil, err
	}
	return f.want(d.clock()), nil
}

// Latest implements Store.
func (d *Disk) Latest(task content.TaskID) (File, error) {
	f, err := d.index.latest(task)
	if err != nil {
		return nil, err
	}
	return f.want(d.clock()), nil
}

// Files implements Store.
func (d *Disk) Files() iter.Seq[File] { return yieldFiles(d.index) }

// Used implements Store.
func (d *Disk) Used() int64 { return d.quota.held.Load() }

// Capacity implements Store.
func (d *Disk) Capacity() int64 { return d.quota.capacity }

// Pinned implements Store.
func (d *Disk) Pinned() int64 { return d.quota.pinned.Load() }

// Free implements Store; it is what the disk has left where that is less.
func (d *Disk) Free() int64 {
	room := d.quota.room()
	if free, ok := d.cfg.free(d.cfg.Dir); ok {
		room = min(room, max(0, free-minFree))
	}
	return room
}

// Reserve implements Store.
func (d *Disk) Reserve(n int64) error { return d.quota.reserve(n) }

// GiveBack implements Store.
func (d *Disk) GiveBack(n int64) { d.quota.giveBack(n) }

// Delete implements Store.
func (d *Disk) Delete(key Key) error {
	return d.index.remove(key, func(f *diskFile) error {
		if err := f.destroy(func() error { return nil }); err != nil {
			return fmt.Errorf("delete file %s of task %s: %w", key.Generation, key.Task, err)
		}
		return nil
	})
}

// Close implements Store. It waits for writes in progress; reads in progress
// end by themselves.
func (d *Disk) Close() error { return d.close(true) }

// close ends the store; what an orderly end leaves behind is left out without
// orderly.
func (d *Disk) close(orderly bool) error {
	if !d.index.close() {
		return ErrClosed
	}
	d.life.Lock()
	d.closed = true
	d.life.Unlock()
	d.handles.close()
	var err error
	if orderly {
		err = d.flushTimes()
	}
	err = errors.Join(err, d.records.close())
	if err == nil && orderly && d.allChecked() {
		err = putMark(d.cfg.Dir, d.cfg.boot())
	}
	if err = errors.Join(err, d.lock.Close()); err != nil {
		return fmt.Errorf("close store in %s: %w", d.cfg.Dir, err)
	}
	return nil
}
