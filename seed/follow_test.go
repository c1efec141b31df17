package seed

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// TestReadersFollow: a local reader gets the bytes of a block as they arrive,
// and a block that no peer follows costs no increments.
func TestReadersFollow(t *testing.T) {
	g := newGate(300 * kib)
	origin := newFakeOrigin(2 * mib)
	origin.chunk, origin.step = 100*kib, g.step
	m := newManager(t, origin, nil)
	f := open(t, m, content.Range{Len: 1})
	holds, err := f.Hold(t.Context(), content.Range{Len: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2*mib)
	for n := 0; n < 300*kib; {
		k, err := holds[0].ReadAt(t.Context(), got[n:], int64(n))
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if err := sameBytes(got[:300*kib], nil, origin.data, content.Range{Len: 300 * kib}); err != nil {
		t.Fatal(err)
	}
	if holds[0].Source() != SourceOrigin {
		t.Errorf("source %s, want origin", holds[0].Source())
	}
	first := flightsNow(m)[0]
	g.open(always)
	mustRead(t, m, origin.data, content.Range{Len: 2 * mib})
	if n := len(first.incs); n != 0 {
		t.Errorf("%d increments were signed for nobody", n)
	}
	for _, h := range holds {
		h.Release()
		h.Release()
	}
}

// pieces records what a reader got.
type pieces struct {
	mu   sync.Mutex
	all  []rangeread.Piece
	size int64
}

func (p *pieces) see(piece rangeread.Piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	piece.Data = nil // reused
	piece.Slice = nil
	p.all = append(p.all, piece)
}

func (p *pieces) count(piece rangeread.Piece) {
	p.mu.Lock()
	p.size += int64(len(piece.Data))
	p.mu.Unlock()
	p.see(piece)
}

func (p *pieces) got() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// increments returns how many there were, and by whom.
func (p *pieces) increments() (n int, signers map[peer.ID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	signers = map[peer.ID]bool{}
	for _, piece := range p.all {
		if inc := piece.Increment; inc != nil {
			signers[inc.Signer] = true
			n++
		}
	}
	return n, signers
}

func (p *pieces) seals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, piece := range p.all {
		if piece.Seal != nil {
			n++
		}
	}
	return n
}

// chain is an owner that reads the origin, a seed that follows it, and a reader
// that has no manager.
func chain(t *testing.T, origin *fakeOrigin) (owner, seed, reader *node) {
	t.Helper()
	hosts := p2ptest.Hosts(t, 3)
	for !scoresBelow(t, hosts[2], hosts[1], 0) || !scoresBelow(t, hosts[2], hosts[1], 1) || !scoresBelow(t, hosts[2], hosts[1], 2) {
		hosts[2] = p2ptest.Hosts(t, 1)[0] // one that the seed lets follow it
	}
	owner = newNode(t, hosts[0], func(*node) Filler { return origin }, nil)
	seed = newNode(t, hosts[1], func(n *node) Filler {
		return peerFiller{n: n, from: func(*Job) []peer.ID { return []peer.ID{owner.id()} }}
	}, nil)
	reader = newNode(t, hosts[2], func(*node) Filler { return origin }, nil)
	connectAll(t, owner, seed, reader)
	return owner, seed, reader
}

// TestFollowersOfFollowers: bytes of a block in flight reach a follower's
// follower before the block is complete, by the owner's increments; the seal
// closes the block; a late follower of a half-arrived block gets all of it.
func TestFollowersOfFollowers(t *testing.T) {
	const half = 520 * kib
	g := newGate(half)
	origin := newFakeOrigin(2*mib + 77)
	origin.chunk, origin.step = 20*kib, g.step
	owner, seed, reader := chain(t, origin)
	all := content.Range{Len: int64(len(origin.data))}
	var early, direct, late pieces
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	check := func(from *node, p *pieces) func() error {
		return func() error {
			got, err := reader.readPeer(ctx, from.id(), ask(t, all), p.count)
			return sameBytes(got, err, origin.data, all)
		}
	}
	done := make(chan error, 1)
	go func() { done <- parallel(check(seed, &early), check(owner, &direct)) }()
	whole := int64(half / content.LeafSize * content.LeafSize)
	for _, p := range []*pieces{&early, &direct} {
		p2ptest.Eventually(t, soon, func() bool { return p.got() >= whole }, "whole leaves of a block that stands still")
		if n := p.seals(); n != 0 {
			t.Errorf("%d seals of a block that is not complete", n)
		}
	}
	lateDone := make(chan error, 1)
	go func() { lateDone <- check(seed, &late)() }()
	p2ptest.Eventually(t, soon, func() bool { return late.got() >= whole }, "a late follower gets what is there")
	g.open(always)
	for _, ch := range []chan error{done, lateDone} {
		if err := <-ch; err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []*pieces{&early, &direct, &late} {
		if n, signers := p.increments(); n == 0 || len(signers) != 1 || !signers[owner.id()] {
			t.Errorf("%d increments by %v, want some, all by the owner", n, signers)
		}
	}
	for _, p := range []*pieces{&early, &direct, &late} {
		if n := p.seals(); n < 3 {
			t.Errorf("%d seals of 3 blocks", n)
		}
	}
	if n := origin.maxCopies(); n != 1 {
		t.Errorf("the origin was read %d times", n)
	}
	waitStored(t, owner.m, 3)
	waitStored(t, seed.m, 3)
}

// TestFirstByteThroughTwoHops: an origin that stops after one leaf: that leaf is
// at a reader two hops away after the time of one increment and two round trips,
// not after the block.
func TestFirstByteThroughTwoHops(t *testing.T) {
	g := newGate(content.LeafSize)
	origin := newFakeOrigin(mib)
	origin.chunk, origin.step = content.LeafSize, g.step
	_, seed, reader := chain(t, origin)
	var p pieces
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		got, err := reader.readPeer(ctx, seed.id(), ask(t, content.Range{Len: mib}), p.count)
		done <- sameBytes(got, err, origin.data, content.Range{Len: mib})
	}()
	p2ptest.Eventually(t, soon, func() bool { return p.got() == content.LeafSize }, "the first leaf")
	t.Logf("first byte after %s", time.Since(start).Round(time.Millisecond))
	g.open(always)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestServeEdges: ranges on and around the edges of leaves and blocks, from the
// store and from flights.
func TestServeEdges(t *testing.T) {
	origin := newFakeOrigin(2*mib + 3*content.LeafSize + 5)
	owner, seed, reader := chain(t, origin)
	size := int64(len(origin.data))
	for range 2 { // the second time from the stores
		for _, from := range []*node{seed, owner} {
			for _, off := range []int64{0, 1, content.LeafSize - 1, content.LeafSize, mib - 1, mib, 2 * mib, size - 6, size - 5, size - 1} {
				for _, n := range []int64{1, content.LeafSize, mib + 1, size} {
					want := content.Range{Off: off, Len: n}
					sent := rangeread.Widen(want, size)
					got, err := reader.readPeer(t.Context(), from.id(), ask(t, want), nil)
					if err := sameBytes(got, err, origin.data, sent); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if n := origin.maxCopies(); n != 1 {
		t.Errorf("the origin was read %d times", n)
	}
}
