package store

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/p2pnode/p2pnode/internal/content"
)

// pageBlocks is how many blocks a page knows: a multiple of 64 and of the blocks
// of any stripe.
const pageBlocks = 4096

// extent is what a store knows in memory of one file's blocks: which are held,
// when each was checked, and for each stripe who uses it. It is read and changed
// without a lock; one caller at a time may change the bit of a given block. A
// part of the file of which nothing was ever held takes no memory, so the size
// that an origin claims costs nothing.
type extent struct {
	key    Key
	layout content.Layout
	serial uint64 // the number of the file in this process
	n      int64  // blocks
	shift  uint   // a stripe is 1<<shift blocks
	pages  []atomic.Pointer[page]

	held     atomic.Int64  // blocks
	wanted   atomic.Uint32 // the clock when somebody last took an interest
	outdated atomic.Bool
}

// page is a run of pageBlocks blocks, fewer at the end of the file.
type page struct {
	bits []atomic.Uint64 // a bit a block that is held
	// checked has the clock of each block's last check, 0 for none since an
	// unclean stop.
	checked []atomic.Uint32
	stripes []stripe
	touched atomic.Bool // a stripe was used since its times were last written
}

func newExtent(serial uint64, key Key, layout content.Layout, now uint32) *extent {
	n := layout.Blocks()
	e := &extent{
		key: key, layout: layout, serial: serial, n: n,
		shift: uint(bits.TrailingZeros64(uint64(layout.Stripe() / content.BlockSize))),
		pages: make([]atomic.Pointer[page], (n+pageBlocks-1)/pageBlocks),
	}
	e.wanted.Store(now)
	return e
}

// Key implements File.
func (e *extent) Key() Key { return e.key }

// Has implements File.
func (e *extent) Has(i int64) bool {
	if i < 0 || i >= e.n {
		return false
	}
	p := e.pages[i/pageBlocks].Load()
	in := i % pageBlocks
	return p != nil && p.bits[in/64].Load()&(1<<(in%64)) != 0
}

// Count implements File.
func (e *extent) Count() int64 { return e.held.Load() }

// Bitmap implements File.
func (e *extent) Bitmap() []byte {
	out := make([]byte, (e.n+7)/8)
	var word [8]byte
	for at := range e.pages {
		p := e.pages[at].Load()
		if p == nil {
			continue
		}
		for w := range p.bits {
			binary.LittleEndian.PutUint64(word[:], p.bits[w].Load())
			copy(out[at*pageBlocks/8+8*w:], word[:])
		}
	}
	return out
}

// page returns the page of block i, which must be in the file.
func (e *extent) page(i int64) *page {
	slot := &e.pages[i/pageBlocks]
	if p := slot.Load(); p != nil {
		return p
	}
	n := min(pageBlocks, e.n-i/pageBlocks*pageBlocks)
	slot.CompareAndSwap(nil, &page{
		bits:    make([]atomic.Uint64, (n+63)/64),
		checked: make([]atomic.Uint32, n),
		stripes: make([]stripe, (n-1)>>e.shift+1),
	})
	return slot.Load()
}

// set reports whether the bit of block i was clear.
func (e *extent) set(i int64) bool {
	in := i % pageBlocks
	mask := uint64(1) << (in % 64)
	if e.page(i).bits[in/64].Or(mask)&mask != 0 {
		return false
	}
	e.held.Add(1)
	return true
}

// clear reports whether no block is held now that the bit of block i is clear.
func (e *extent) clear(i int64) (last bool) {
	in := i % pageBlocks
	mask := uint64(1) << (in % 64)
	if e.page(i).bits[in/64].And(^mask)&mask == 0 {
		return false
	}
	return e.held.Add(-1) == 0
}

// checked returns where the clock of block i's last check is kept.
func (e *extent) checked(i int64) *atomic.Uint32 { return &e.page(i).checked[i%pageBlocks] }

// heldBlocks calls visit for each held block, in order.
func (e *extent) heldBlocks(visit func(i int64)) {
	for at := range e.pages {
		p := e.pages[at].Load()
		if p == nil {
			continue
		}
		for w := range p.bits {
			for word := p.bits[w].Load(); word != 0; word &= word - 1 {
				visit(int64(at*pageBlocks + 64*w + bits.TrailingZeros64(word)))
			}
		}
	}
}

// heldStripes calls visit for each stripe of which blocks are held, in order,
// with the bytes that they have.
func (e *extent) heldStripes(visit func(s int64, st *stripe, bytes int64)) {
	per := 1 << e.shift // blocks of a stripe
	for at := range e.pages {
		p := e.pages[at].Load()
		if p == nil {
			continue
		}
		for w := range p.bits {
			word := p.bits[w].Load()
			for word != 0 {
				k := bits.TrailingZeros64(word) >> e.shift
				mask := (uint64(1)<<per - 1) << (k * per)
				in := (64*w)>>e.shift + k
				s := int64(at*pageBlocks>>e.shift + in)
				visit(s, &p.stripes[in], e.bytesOf(s, bits.OnesCount64(word&mask), word&mask))
				word &^= mask
			}
		}
	}
}

// bytesOf returns the bytes of count blocks of stripe s, whose bits are in mask.
func (e *extent) bytesOf(s int64, count int, mask uint64) int64 {
	n := int64(count) * content.BlockSize
	last := e.n - 1
	if s == last>>e.shift && mask&(1<<(last%64)) != 0 {
		n += e.layout.Block(last).Len - content.BlockSize
	}
	return n
}

// blocksOf returns the blocks [first, end) of stripe s.
func (e *extent) blocksOf(s int64) (first, end int64) {
	return s << e.shift, min(e.n, (s+1)<<e.shift)
}

// stripesOf returns the stripes [first, end) that r touches.
func (e *extent) stripesOf(r content.Range) (first, end int64) {
	r = r.Intersect(content.Range{Len: e.layout.Size})
	if r.Empty() {
		return 0, 0
	}
	return r.Off / content.BlockSize >> e.shift, (r.End()-1)/content.BlockSize>>e.shift + 1
}
