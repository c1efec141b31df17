package read

import (
	"sync"
	"sync/atomic"
)

// Sizes of what moves at once from a block to a client. A reader has a large
// buffer where one is free, and where his range needs it; with many readers the
// others make do with small ones, so that a thousand take some 32 MiB.
const (
	largeBuffer = 256 << 10
	smallBuffer = 16 << 10
	maxLarge    = 64
)

var (
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	large        atomic.Int32 // large buffers that are lent
)

// getBuffer lends a buffer for a range of n bytes.
func getBuffer(n int64) *[]byte {
	if n > smallBuffer {
		if large.Add(1) <= maxLarge {
			return largeBuffers.Get().(*[]byte)
		}
		large.Add(-1)
	}
	return smallBuffers.Get().(*[]byte)
}

// putBuffer takes a buffer back.
func putBuffer(b *[]byte) {
	if len(*b) == smallBuffer {
		smallBuffers.Put(b)
		return
	}
	largeBuffers.Put(b)
	large.Add(-1)
}
