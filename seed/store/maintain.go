package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaintainEvery is the time between two calls of Maintain by Run.
const MaintainEvery = 30 * time.Second

// errInUse says that a file is not forgotten after all.
var errInUse = errors.New("file is in use")

// Run calls Maintain at times until ctx ends, and then returns nil. A kill loses
// the times of use since the last call, which are then taken to be recent. Close
// the store after Run has returned.
func (d *Disk) Run(ctx context.Context) error {
	t := time.NewTicker(d.cfg.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := d.Maintain(); err != nil {
				d.log.Warn("cannot maintain the block store", "dir", d.cfg.Dir, "err", err)
			}
		}
	}
}

// Maintain evicts what exceeds the capacity or fills the disk, writes the times
// of last use that have changed, and forgets files that have been empty for
// long. On a disk that is full even so it writes nothing: what is kept free
// there is for the records of evictions.
func (d *Disk) Maintain() error {
	err := errors.Join(d.quota.trim(), d.makeRoom(0, 0))
	if errors.Is(err, ErrFull) {
		d.log.Debug("disk is full: nothing else is written", "dir", d.cfg.Dir, "err", err)
		return nil
	}
	return errors.Join(err, d.flushTimes(), d.forgetEmpty())
}

// forgetEmpty deletes files that have been empty and unused for long.
func (d *Disk) forgetEmpty() error {
	now := d.clock()
	var errs []error
	for _, f := range d.index.emptyFor(now) {
		err := d.index.remove(f.key, func(f *diskFile) error {
			return f.destroy(func() error {
				if !d.index.forgettable(f, now) {
					return errInUse
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errInUse) && !errors.Is(err, ErrNotFound) {
			errs = append(errs, fmt.Errorf("forget file %s of task %s: %w", f.key.Generation, f.key.Task, err))
		}
	}
	return errors.Join(errs...)
}

// Maintain forgets files that have been empty for long.
func (m *Memory) Maintain() error {
	now := m.clock()
	var errs []error
	for _, f := range m.index.emptyFor(now) {
		err := m.index.remove(f.key, func(f *memoryFile) error {
			if !m.index.forgettable(f, now) {
				return errInUse
			}
			return f.destroy()
		})
		if err != nil && !errors.Is(err, errInUse) && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
