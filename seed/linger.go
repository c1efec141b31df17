package seed

import "time"

// DefaultLinger is the default of Config.Linger.
const DefaultLinger = 10 * time.Second

// The reading of an origin without ranges cannot be taken up again in the middle:
// who comes after it was stopped pays for all of it once more. So it is not
// bound to those who wait for its next block, as other fills are: a peer that
// reads one stripe after another waits for none in between, nor does a client
// that is slower than the origin. It goes on while somebody has the file open,
// and for Config.Linger after the last of them. Then it ends, unless
//   - Config.Whole says that files are wanted whole;
//   - no more is left than has been read: whoever comes back would cost the
//     origin more than its rest does. That is never twice what stopping at the
//     better moment would have cost.

// use counts one who has the file open, until the returned function is called.
func (f *file) use() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.users--
		f.lingerLocked()
	}
}

// lingerLocked stops the reading of the whole file later, where nobody has the
// file open and nobody comes meanwhile; f.mu is held.
func (f *file) lingerLocked() {
	w := f.whole
	if f.users > 0 || w == nil {
		return
	}
	f.unused++
	unused := f.unused
	if f.lingering != nil {
		f.lingering.Stop()
	}
	f.lingering = time.AfterFunc(f.m.cfg.Linger, func() {
		f.mu.Lock()
		abandoned := f.users == 0 && f.unused == unused && f.whole == w
		f.mu.Unlock()
		if abandoned && !w.worthwhile() {
			w.stop()
		}
	})
}

// endWholeLocked says that the reading of the whole file has ended; f.mu is held.
func (f *file) endWholeLocked() {
	f.whole = nil
	if f.lingering != nil {
		f.lingering.Stop()
		f.lingering = nil
	}
}

// worthwhile reports whether a reading goes on that nobody follows.
func (j *Job) worthwhile() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	size := j.file.meta.Size
	return j.m.cfg.Whole && size <= j.m.cfg.Store.Capacity()/2 || size-j.read <= j.read
}

// stop ends the job; who comes now waits for its end, and starts anew.
func (j *Job) stop() {
	j.mu.Lock()
	j.gone = true
	j.mu.Unlock()
	j.cancel(errAbandoned)
}
