package store

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// maxFiles bounds the files of a store: each takes some memory, also an empty
// one.
const maxFiles = 1 << 20

// index knows the files of a store. Making and removing the file of a key
// exclude each other, without a lock that other keys would feel.
type index[F tracked] struct {
	// mu guards the following.
	mu       sync.RWMutex
	files    map[Key]F
	tasks    map[content.TaskID][]F
	changing map[Key]chan struct{} // closed when the change is done
	closed   bool
}

func newIndex[F tracked]() *index[F] {
	return &index[F]{
		files:    make(map[Key]F),
		tasks:    make(map[content.TaskID][]F),
		changing: make(map[Key]chan struct{}),
	}
}

func (x *index[F]) get(key Key) (F, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f, ok := x.files[key]
	switch {
	case x.closed:
		return f, ErrClosed
	case !ok:
		return f, fmt.Errorf("file %s of task %s: %w", key.Generation, key.Task, ErrNotFound)
	}
	return f, nil
}

func (x *index[F]) latest(task content.TaskID) (F, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var none F
	if x.closed {
		return none, ErrClosed
	}
	files := x.tasks[task]
	if len(files) == 0 {
		return none, fmt.Errorf("task %s: %w", task, ErrNotFound)
	}
	return latestOf(files), nil
}

// latestOf returns the latest of one or more files.
func latestOf[F File](files []F) F {
	best := files[0]
	for _, f := range files[1:] {
		if newer(f, best) {
			best = f
		}
	}
	return best
}

func newer(a, b File) bool {
	if c := a.Info().Created.Compare(b.Info().Created); c != 0 {
		return c > 0
	}
	ag, bg := a.Key().Generation, b.Key().Generation
	return bytes.Compare(ag[:], bg[:]) > 0
}

// all returns the files as they are now.
func (x *index[F]) all() []F {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]F, 0, len(x.files))
	for _, f := range x.files {
		out = append(out, f)
	}
	return out
}

func (x *index[F]) count() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.files)
}

// begin waits until nobody else changes key, and keeps others away until the
// end. It fails with ErrClosed.
func (x *index[F]) begin(key Key) (end func(), err error) {
	for {
		x.mu.Lock()
		busy, ok := x.changing[key]
		switch {
		case x.closed:
			x.mu.Unlock()
			return nil, ErrClosed
		case !ok:
			done := make(chan struct{})
			x.changing[key] = done
			x.mu.Unlock()
			return func() {
				x.mu.Lock()
				delete(x.changing, key)
				x.mu.Unlock()
				close(done)
			}, nil
		}
		x.mu.Unlock()
		<-busy
	}
}

// create returns the file of key, or the one that build makes.
func (x *index[F]) create(key Key, build func() (F, error)) (F, error) {
	var none F
	if f, err := x.get(key); err == nil {
		return f, nil
	}
	end, err := x.begin(key)
	if err != nil {
		return none, err
	}
	defer end()
	if f, err := x.get(key); err == nil {
		return f, nil
	}
	if n := x.count(); n >= maxFiles {
		return none, fmt.Errorf("%d files: %w", n, ErrFull)
	}
	f, err := build()
	if err != nil {
		return none, err
	}
	x.insert(key, f)
	return f, nil
}

// remove takes the file of key out, once destroy has succeeded.
func (x *index[F]) remove(key Key, destroy func(F) error) error {
	end, err := x.begin(key)
	if err != nil {
		return err
	}
	defer end()
	f, err := x.get(key)
	if err != nil {
		return err
	}
	if err := destroy(f); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.files, key)
	left := slices.DeleteFunc(x.tasks[key.Task], func(o F) bool { return o.Key() == key })
	if len(left) == 0 {
		delete(x.tasks, key.Task)
	} else {
		x.tasks[key.Task] = left
	}
	return nil
}

func (x *index[F]) insert(key Key, f F) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.files[key] = f
	x.tasks[key.Task] = append(x.tasks[key.Task], f)
}

// outdateOlder counts all files but the latest of each task as outdated.
func (x *index[F]) outdateOlder() {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, files := range x.tasks {
		best := latestOf(files)
		for _, f := range files {
			f.Outdate(f.Key() != best.Key())
		}
	}
}

// emptyFor returns the files of which nothing is held or in use, and which
// nobody has wanted for so long that they can be forgotten.
func (x *index[F]) emptyFor(now uint32) (out []F) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, files := range x.tasks {
		for _, f := range files {
			if f.Count() == 0 && x.forgettableLocked(f, now) {
				out = append(out, f)
			}
		}
	}
	return out
}

// forgettable reports whether f is still such a file.
func (x *index[F]) forgettable(f F, now uint32) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.forgettableLocked(f, now)
}

func (x *index[F]) forgettableLocked(f F, now uint32) bool {
	keep := EmptyAfter
	if f.Key() != latestOf(x.tasks[f.Key().Task]).Key() {
		keep = emptyOlderAfter
	}
	e := f.extentOf()
	return int64(now)-int64(e.wanted.Load()) >= int64(keep/time.Second) && e.idle()
}

// close makes all calls fail, after the changes under way; it reports whether
// this was the first call.
func (x *index[F]) close() bool {
	x.mu.Lock()
	first := !x.closed
	x.closed = true
	var busy []chan struct{}
	for _, done := range x.changing {
		busy = append(busy, done)
	}
	x.mu.Unlock()
	for _, done := range busy {
		<-done
	}
	return first
}
