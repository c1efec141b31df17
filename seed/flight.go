package seed

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

type flightState int

const (
	arriving flightState = iota
	complete             // all bytes and the seal are there; being stored
	stored               // in the store: read it there, or here while the buffer is kept
	failed
)

// flight is one block on its way into this node.
type flight struct {
	name content.BlockName
	size int
	bufs *buffers
	// job brings the block, and may hand it to another; claimed is set when it
	// has begun to. file.mu guards both.
	job     *Job
	claimed bool
	// raw: some bytes came from the origin. The job's goroutine alone uses it.
	raw bool
	// leaves are the hashes of the first leaves. The job's goroutine alone adds to
	// them, under mu; those that are there never change.
	leaves []content.LeafHash

	mu sync.Mutex
	// mu guards the following.
	state  flightState
	err    error
	buf    *buffer
	readin int // readers that copy out of buf right now
	// kept: the block is stored, and its buffer is still there for those who hold
	// the flight, unless somebody needs the memory, who sets wanted.
	kept, wanted bool
	// holders are the grips on the flight, reading those of them that have begun
	// to read. unsaved says why the block will not be stored: the flight ends
	// with the last holder, or while nobody reads it for one who needs memory.
	holders, reading int
	unsaved          error
	n                int          // bytes that are there, verified or from the origin
	way              way          // where the bytes come from now
	from             peer.ID      // the peer, where way is fromPeer, fromSite or, of this node's site, fromHeld
	refusal          *OriginError // the origin's, which was asked before; nil for none
	// Proofs for those who follow: increments, and of a block whose root is
	// known already the outboard, as far as mask says.
	incs     []content.Increment
	signed   int       // the last leaf that we signed, and one
	unsigned time.Time // when the first whole leaf behind them came
	seal     *content.Seal
	outboard []byte
	mask     uint64 // bit i: outboard has the path to leaf i
	bell     bell
}

func newFlight(name content.BlockName, job *Job, bufs *buffers) *flight {
	return &flight{name: name, size: int(name.Bytes().Len), job: job, bufs: bufs}
}

// poke wakes all who wait, so that they look at the clock.
func (f *flight) poke() {
	f.mu.Lock()
	f.bell.alarm()
	f.mu.Unlock()
}

// unfinished reports whether the flight still arrives.
func (f *flight) unfinished() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == arriving
}

// way says where a job's next bytes come from.
type way int

const (
	undecided way = iota
	fromPeer
	fromSite // a peer that reads for this node's site: nobody waits on this node meanwhile
	fromHeld // a peer, for what it holds: nobody waits on it, and the origin is next
	fromOrigin
)

// take sets where the bytes come from next, and what the origin said before. Those
// who follow look again whether they may.
func (f *flight) take(w way, from peer.ID, refusal *OriginError) {
	f.mu.Lock()
	f.way, f.from, f.refusal = w, from, refusal
	f.bell.ring()
	f.mu.Unlock()
}

// lend gives the flight its buffer.
func (f *flight) lend(b *buffer) {
	f.mu.Lock()
	f.buf = b
	f.mu.Unlock()
}

// advance says that n more bytes are in the buffer.
func (f *flight) advance(n int) {
	f.mu.Lock()
	whole := f.wholeLeaves(f.n)
	f.n += n
	if f.unsigned.IsZero() && f.wholeLeaves(f.n) > whole {
		f.unsigned = time.Now()
	}
	f.bell.ring()
	f.mu.Unlock()
}

// hashed adds the hashes of the leaves that follow those of leaves.
func (f *flight) hashed(next []content.LeafHash) {
	f.mu.Lock()
	if f.leaves == nil {
		f.leaves = make([]content.LeafHash, 0, content.Leaves(int64(f.size)))
	}
	f.leaves = append(f.leaves, next...)
	f.mu.Unlock()
}

// hash hashes what is not hashed yet of the whole leaves in the first n bytes,
// while they are in the processor's cache: to read a whole block from memory
// once more takes as long as to hash it.
func (f *flight) hash(n int) {
	var next [content.LeavesPerBlock]content.LeafHash
	from, to := len(f.leaves), f.wholeLeaves(n)
	for i := from; i < to; i++ {
		next[i-from] = f.hashLeaf(i)
	}
	if from < to {
		f.hashed(next[:to-from])
	}
}

// hashLeaf hashes leaf i, which is there.
func (f *flight) hashLeaf(i int) content.LeafHash {
	leaf := f.buf.mem[i*content.LeafSize : min((i+1)*content.LeafSize, f.size)]
	return content.HashLeaf(leaf, i, content.Leaves(int64(f.size)))
}

// wholeLeaves returns the number of whole leaves in the first n bytes.
func (f *flight) wholeLeaves(n int) int {
	if n == f.size {
		return content.Leaves(int64(f.size))
	}
	return n / content.LeafSize
}

// tree makes the tree of the block, all of which is there. Only the job's
// goroutine may call it.
func (f *flight) tree() (outboard []byte, root content.Root) {
	f.hash(f.size)
	return content.OutboardOf(f.leaves, int64(f.size))
}

// addSeal keeps a checked seal and the part of the tree that came with it. It
// fails where an earlier seal named another root.
func (f *flight) addSeal(seal content.Seal, slice []byte, first, last int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seal != nil && f.seal.Root != seal.Root {
		return fmt.Errorf("block %d of %s: two sources disagree on its root", f.name.Index, f.name.Task)
	}
	f.seal = &seal
	if first == last {
		return nil
	}
	if f.outboard == nil {
		f.outboard = make([]byte, content.OutboardSize(int64(f.size)))
	}
	if err := content.ExpandSlice(f.outboard, slice, int64(f.size), first, last); err != nil {
		return err
	}
	for i := first; i < last; i++ {
		f.mask |= 1 << i
	}
	return nil
}

// fullMask is the mask of a whole outboard.
func (f *flight) fullMask() uint64 { return ^uint64(0) >> (64 - content.Leaves(int64(f.size))) }

// rootKnown reports whether the whole outboard is there.
func (f *flight) rootKnown() bool { return f.seal != nil && f.mask == f.fullMask() }

// finish ends arriving: seal and outboard are final.
func (f *flight) finish(seal content.Seal, outboard []byte) {
	f.mu.Lock()
	f.seal, f.outboard, f.mask = &seal, outboard, f.fullMask()
	f.state = complete
	f.bell.ring()
	f.mu.Unlock()
}

// bytes returns the buffer's memory; only the job's goroutine may call it, and
// only before the flight ends.
func (f *flight) bytes() []byte { return f.buf.mem[:f.size] }

// end sets a final state and lets the buffer go when nobody reads in it.
func (f *flight) end(s flightState, err error) {
	f.mu.Lock()
	f.endLocked(s, err)
	f.mu.Unlock()
}

func (f *flight) endLocked(s flightState, err error) {
	f.state, f.err = s, err
	f.bell.ring()
	f.letGo()
}

// grip counts a holder, who may have begun to read.
func (f *flight) grip(reading bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders++
	if reading {
		f.reading++
	}
}

// begin says that a holder begins to read.
func (f *flight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading++
	if f.unsaved != nil {
		f.bufs.withdraw(f)
	}
}

// ungrip takes a holder away.
func (f *flight) ungrip(reading bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders--
	if reading {
		f.reading--
	}
	f.settleUnsaved()
	if f.holders == 0 {
		f.letGo()
	}
}

// unsave keeps a block that will not be stored for those who hold it.
func (f *flight) unsave(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsaved = err
	f.bell.ring()
	f.settleUnsaved()
}

// settleUnsaved ends a flight that is not stored with its last holder, and
// offers its buffer while nobody reads it; mu is held.
func (f *flight) settleUnsaved() {
	switch {
	case f.unsaved == nil || f.state >= stored:
	case f.holders == 0:
		f.bufs.withdraw(f)
		f.endLocked(failed, f.unsaved)
	case f.reading == 0 && f.bufs.offer(f):
		f.endLocked(failed, errDropped)
	}
}

// reclaim drops a flight that was offered, unless it is not stored and somebody
// reads it by now.
func (f *flight) reclaim() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == stored {
		f.wanted = true
		f.letGo()
	}
	if f.unsaved != nil && f.state < stored && f.reading == 0 {
		f.endLocked(failed, errDropped)
	}
}

// letGo gives the buffer back where nobody needs it any more. Of a block that is
// stored it is kept for those who hold the flight, and offered to others: what is
// read here need not be read from the disk, nor verified once more. mu is held.
func (f *flight) letGo() {
	if f.buf == nil || f.readin > 0 || f.state < stored {
		return
	}
	if f.state == stored && f.holders > 0 && !f.wanted {
		if f.kept || !f.bufs.offer(f) {
			f.kept = true
			return
		}
	}
	if f.kept {
		f.kept = false
		f.bufs.withdraw(f)
	}
	f.bufs.put(f.buf)
	f.buf = nil
}

// gone reports whether the flight has ended and its bytes are not here any more;
// mu is held.
func (f *flight) gone() bool { return f.state == failed || f.state == stored && f.buf == nil }

// read copies what is there from byte off of the block into p. With n == 0 and
// a state before stored, wake is closed at the next change; n == 0 and stored say
// that the buffer is not kept any more.
func (f *flight) read(p []byte, off int) (n int, state flightState, wake <-chan struct{}, err error) {
	f.mu.Lock()
	if f.gone() {
		defer f.mu.Unlock()
		return 0, f.state, nil, f.err
	}
	there := f.n - off
	if there <= 0 || f.buf == nil {
		defer f.mu.Unlock()
		return 0, f.state, f.bell.wait(), nil
	}
	mem := f.buf.mem[off : off+min(there, len(p))]
	f.readin++
	state = f.state
	f.mu.Unlock()
	n = copy(p, mem)
	f.mu.Lock()
	f.readin--
	f.letGo()
	f.mu.Unlock()
	return n, state, nil, nil
}

// source says where the bytes come from.
func (f *flight) source() Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way == fromOrigin {
		return SourceOrigin
	}
	return SourcePeer
}
