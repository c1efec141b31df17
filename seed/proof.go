package seed

import (
	"bytes"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// An owner signs an increment when this many whole leaves are there, or the
// first of them has waited this long (SPEC.md of rangeread).
const (
	incrementLeaves = (256 << 10) / content.LeafSize
	incrementDelay  = 50 * time.Millisecond
)

// proof is what can be sent next to a peer that follows a flight.
type proof struct {
	state flightState
	err   error
	// One of inc and seal is set where leaves can be sent; to is the leaf up to
	// which they are there.
	inc      *content.Increment
	seal     *content.Seal
	outboard []byte
	to       int
	// wake is set where there is nothing to send yet.
	wake <-chan struct{}
	// origin says what is waited for.
	origin bool
}

// addIncrement keeps an increment that upstream sent. It comes again with each
// part of its leaves.
func (f *flight) addIncrement(inc content.Increment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.incs {
		if f.incs[i].First == inc.First && bytes.Equal(f.incs[i].Sig, inc.Sig) {
			return
		}
	}
	f.incs = append(f.incs, inc)
}

// next returns what can be sent from leaf on. An owner's flight is signed here,
// on demand: a block that nobody follows costs no increments.
func (f *flight) next(leaf int, key crypto.PrivKey, self peer.ID) (proof, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone() {
		return proof{state: f.state, err: f.err}, nil
	}
	there := f.wholeLeaves(f.n)
	p := proof{state: min(f.state, complete), origin: f.way == fromOrigin}
	if leaf < there {
		if f.seal != nil && f.mask>>leaf&1 == 1 {
			p.to = leaf + 1
			for p.to < there && f.mask>>p.to&1 == 1 {
				p.to++
			}
			p.seal, p.outboard = f.seal, f.outboard
			if f.state == arriving {
				p.outboard = bytes.Clone(f.outboard) // more of it may come
			}
			return p, nil
		}
		inc, err := f.increment(leaf, there, key, self)
		if err != nil {
			return proof{}, err
		}
		if inc != nil {
			p.inc, p.to = inc, min(inc.End(), there)
			return p, nil
		}
	}
	if f.unsaved != nil && f.state == arriving {
		return proof{state: failed, err: f.unsaved}, nil // no seal will come
	}
	p.wake = f.bell.wait()
	return p, nil
}

// increment returns one that covers leaf, or nil where there is none yet; of a
// block from the origin it signs one when it is time, and where more leaves are
// there than two would have, of the first alone: when these are sent the block may
// be complete, and its tree proves the rest in fewer bytes. mu is held. Cost of
// signing: 28 µs.
func (f *flight) increment(leaf, there int, key crypto.PrivKey, self peer.ID) (*content.Increment, error) {
	for i := range f.incs {
		if inc := &f.incs[i]; inc.First <= leaf && leaf < inc.End() {
			return inc, nil
		}
	}
	if f.way != fromOrigin || f.state != arriving {
		return nil, nil
	}
	waited := time.Since(f.unsigned)
	if leaf >= f.signed && there-leaf < incrementLeaves && f.n < f.size && waited < incrementDelay {
		f.bell.ringIn(incrementDelay-waited, f.poke)
		return nil, nil
	}
	end := there
	if there-leaf >= 2*incrementLeaves {
		end = leaf + incrementLeaves
	}
	hashes := f.leaves[min(leaf, len(f.leaves)):min(end, len(f.leaves))]
	for i := leaf + len(hashes); i < end; i++ { // a peer sent it
		hashes = append(hashes[:len(hashes):len(hashes)], f.hashLeaf(i))
	}
	inc, err := content.SignIncrement(key, self, f.name, leaf, hashes)
	if err != nil {
		return nil, err
	}
	f.incs = append(f.incs, inc)
	if end > f.signed {
		f.signed = end
		if end == there {
			f.unsigned = time.Time{}
		} // else the rest is an increment at once
	}
	return &f.incs[len(f.incs)-1], nil
}

// sealed returns the seal of a complete flight.
func (f *flight) sealed() content.Seal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.seal
}
