package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	ds "github.com/ipfs/go-datastore"
	pebbleds "github.com/ipfs/go-ds-pebble"
)

// The keys of the datastore, with <name> = <task>/<generation> and an index (of a
// block, or of a page) of 16 hexadecimal digits. Each block has two, written together: its record, and
// an empty value that says it is held. So the bitmaps of 100,000 blocks load in
// 12 ms from small keys alone; from the records' own keys, between which 4 KiB
// lie each time, it took 490 ms with all in memory.
const (
	infoPrefix   = "/f/" // /f/<name>
	recordPrefix = "/b/" // /b/<name>/<index>
	heldPrefix   = "/h/" // /h/<name>/<index>
	timesPrefix  = "/a/" // /a/<name>/<index>
	pinsPrefix   = "/p/" // /p/<name>
)

func fileName(key Key) string {
	return hex.EncodeToString(key.Task[:]) + "/" + hex.EncodeToString(key.Generation[:])
}

func blockKey(prefix, name string, i int64) string {
	return fmt.Sprintf("%s%s/%016x", prefix, name, i)
}

// parseName reads what fileName wrote.
func parseName(name string) (Key, error) {
	var key Key
	task, generation, _ := strings.Cut(name, "/")
	for _, part := range []struct {
		dst []byte
		src string
	}{{key.Task[:], task}, {key.Generation[:], generation}} {
		if len(part.src) != hex.EncodedLen(len(part.dst)) {
			return Key{}, fmt.Errorf("name %q: %w", name, errRecord)
		}
		if _, err := hex.Decode(part.dst, []byte(part.src)); err != nil {
			return Key{}, fmt.Errorf("name %q: %w", name, errRecord)
		}
	}
	if fileName(key) != name {
		return Key{}, fmt.Errorf("name %q: %w", name, errRecord)
	}
	return key, nil
}

// parseBlockKey reads what blockKey wrote, without its prefix.
func parseBlockKey(rest string) (name string, i int64, err error) {
	at := strings.LastIndexByte(rest, '/')
	if at < 0 || len(rest)-at != 17 {
		return "", 0, fmt.Errorf("block key %q: %w", rest, errRecord)
	}
	n, err := strconv.ParseUint(rest[at+1:], 16, 63)
	if err != nil || strings.ToLower(rest[at:]) != rest[at:] { // it would be a second key of the block
		return "", 0, fmt.Errorf("block key %q: %w", rest, errRecord)
	}
	return rest[:at], int64(n), nil
}

// records is the datastore. Its writes are synced when they return; those that
// run at one time share their syncs, which is pebble's own group commit.
type records struct {
	db *pebbleds.Datastore

	// mu is held for reading while the datastore is used, which panics once
	// it is closed. It guards the following.
	mu     sync.RWMutex
	closed bool
}

func openRecords(dir string, log *slog.Logger) (*records, error) {
	db, err := pebbleds.NewDatastore(dir,
		pebbleds.WithPebbleOpts(&pebble.Options{Logger: pebbleLog{log}}),
		pebbleds.WithPebbleWriteOptions(pebble.Sync))
	if err != nil {
		return nil, fmt.Errorf("open records in %s (if they are damaged, remove the directory: it is a cache): %w", dir, err)
	}
	return &records{db: db}, nil
}

func (r *records) use(work func() error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return ErrClosed
	}
	return work()
}

// get returns the value of key. errRecord where there is none, or a damaged
// one: whoever asks knows that there was one.
func (r *records) get(key string) (value []byte, err error) {
	err = r.use(func() error {
		value, err = r.db.Get(context.Background(), ds.RawKey(key))
		if errors.Is(err, ds.ErrNotFound) || pebble.IsCorruptionError(err) {
			return fmt.Errorf("%s: %w: %w", key, errRecord, err)
		}
		return err
	})
	return value, err
}

// commit makes all changes in one step, and returns when they are synced.
func (r *records) commit(change func(context.Context, ds.Batch) error) error {
	return r.use(func() error {
		ctx := context.Background()
		batch, err := r.db.Batch(ctx)
		if err != nil {
			return err
		}
		if err := change(ctx, batch); err != nil {
			return err
		}
		return batch.Commit(ctx)
	})
}

func (r *records) putInfo(name string, info Info) error {
	key := infoPrefix + name
	return r.commit(func(ctx context.Context, b ds.Batch) error {
		return b.Put(ctx, ds.RawKey(key), encodeInfo(key, info))
	})
}

func (r *records) putBlock(name string, i int64, rec Record) error {
	key := blockKey(recordPrefix, name, i)
	return r.commit(func(ctx context.Context, b ds.Batch) error {
		if err := b.Put(ctx, ds.RawKey(key), encodeRecord(key, rec)); err != nil {
			return err
		}
		return b.Put(ctx, ds.RawKey(blockKey(heldPrefix, name, i)), nil)
	})
}

// block returns the record of block i, which is n bytes long.
func (r *records) block(name string, i, n int64) (*Record, error) {
	key := blockKey(recordPrefix, name, i)
	value, err := r.get(key)
	if err != nil {
		return nil, err
	}
	return decodeRecord(key, value, n)
}

func (r *records) deleteBlock(name string, i int64) error {
	return r.commit(func(ctx context.Context, b ds.Batch) error { return deleteBlock(ctx, b, name, i) })
}

func deleteBlock(ctx context.Context, b ds.Batch, name string, i int64) error {
	if err := b.Delete(ctx, ds.RawKey(blockKey(recordPrefix, name, i))); err != nil {
		return err
	}
	return b.Delete(ctx, ds.RawKey(blockKey(heldPrefix, name, i)))
}

// deleteFile removes all that there is of a file.
func (r *records) deleteFile(name string, e *extent) error {
	return r.commit(func(ctx context.Context, b ds.Batch) error {
		err := errors.Join(b.Delete(ctx, ds.RawKey(infoPrefix+name)), b.Delete(ctx, ds.RawKey(pinsPrefix+name)))
		e.heldBlocks(func(i int64) {
			if err == nil {
				err = deleteBlock(ctx, b, name, i)
			}
		})
		for at := range e.pages {
			if err == nil && e.pages[at].Load() != nil {
				err = b.Delete(ctx, ds.RawKey(blockKey(timesPrefix, name, int64(at))))
			}
		}
		return err
	})
}

// loader takes what the datastore holds. Each function but file reports whether
// what it is given belongs to a file.
type loader struct {
	file  func(name string, info Info) error
	held  func(name string, i int64) bool
	times func(name string, page int64, used []uint32) bool
	pins  func(name string, pins []run) bool
}

// load calls to.file for each Info and then the others for each block and so on.
// What is damaged or belongs nowhere is removed; it returns how many keys that
// were.
//
// It walks pebble's own iterator: the datastore's Query ends without an error
// where pebble meets one, and the files behind it would seem not to exist.
func (r *records) load(to loader) (removed int, err error) {
	var damaged []string
	err = r.scan(infoPrefix, func(rest string, value []byte) error {
		key, err := parseName(rest)
		if err == nil {
			var info Info
			if info, err = decodeInfo(infoPrefix+rest, value, key.Generation); err == nil {
				return to.file(rest, info)
			}
		}
		damaged = append(damaged, infoPrefix+rest)
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = r.scan(heldPrefix, func(rest string, _ []byte) error {
		name, i, err := parseBlockKey(rest)
		if err != nil || !to.held(name, i) {
			damaged = append(damaged, heldPrefix+rest, recordPrefix+rest)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = r.scan(timesPrefix, func(rest string, value []byte) error {
		name, at, err := parseBlockKey(rest)
		if err == nil {
			var used []uint32
			if used, err = decodeTimes(timesPrefix+rest, value); err == nil && to.times(name, at, used) {
				return nil
			}
		}
		damaged = append(damaged, timesPrefix+rest)
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = r.scan(pinsPrefix, func(rest string, value []byte) error {
		pins, err := decodePins(pinsPrefix+rest, value)
		if err != nil || !to.pins(rest, pins) {
			damaged = append(damaged, pinsPrefix+rest)
		}
		return nil
	})
	if err != nil || len(damaged) == 0 {
		return 0, err
	}
	return len(damaged), r.commit(func(ctx context.Context, b ds.Batch) error {
		for _, key := range damaged {
			if err := b.Delete(ctx, ds.RawKey(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// scan calls visit with each key behind prefix, in order, and its value.
func (r *records) scan(prefix string, visit func(rest string, value []byte) error) error {
	upper := []byte(prefix)
	upper[len(upper)-1]++
	it, err := r.db.DB.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scan %s: %w", prefix, err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = visit(string(it.Key()[len(prefix):]), it.Value())
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return fmt.Errorf("scan %s: %w", prefix, err)
	}
	return nil
}

// close closes the database beneath the datastore, which holds nothing else.
// The datastore's own Close writes tables first, and waits for ever on a full
// disk; the log, which is synced, has all that they would.
func (r *records) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.db.DB.Close()
}
