package seed

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestSpareOfEitherShare: who waits for a peer's buffer gets one while blocks
// that nobody reads have some, in whatever order they are dropped.
func TestSpareOfEitherShare(t *testing.T) {
	for range 40 {
		b := newBuffers(2) // one of them for peers
		for _, origin := range []bool{true, false} {
			buf, err := b.get(t.Context(), origin)
			if err != nil {
				t.Fatal(err)
			}
			f := newFlight(content.BlockName{FileSize: content.BlockSize}, nil, b)
			f.lend(buf)
			f.grip(false) // a reader's, who has not begun
			f.unsave(errors.New("the store is full"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := b.get(ctx, false)
		cancel()
		if err != nil {
			t.Fatalf("%v, though %d flights could be dropped", err, len(b.spare))
		}
	}
}

// TestStoredBlockStays: those who hold a block read it where it came while it is
// stored, until they let go or somebody needs the memory.
func TestStoredBlockStays(t *testing.T) {
	b := newBuffers(1)
	arrive := func() *flight {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		buf, err := b.get(ctx, true)
		if err != nil {
			t.Fatalf("the buffer is not given back: %v", err)
		}
		f := newFlight(content.BlockName{FileSize: content.BlockSize}, nil, b)
		f.lend(buf)
		f.advance(f.size)
		outboard, root := f.tree()
		f.finish(content.Seal{Root: root}, outboard)
		return f
	}
	read := func(f *flight) (int, flightState) {
		n, state, _, err := f.read(make([]byte, 10), 5)
		if err != nil {
			t.Fatal(err)
		}
		return n, state
	}
	f := arrive()
	f.grip(true)
	f.grip(true)
	f.end(stored, nil)
	f.ungrip(true)
	if n, _ := read(f); n != 10 {
		t.Errorf("%d bytes of a block that is held", n)
	}
	if p, err := f.next(3, nil, ""); err != nil || p.state != complete || p.seal == nil || p.to != content.LeavesPerBlock {
		t.Errorf("what follows leaf 3 of it: %+v, %v", p, err)
	}
	f.ungrip(true)
	if n, state := read(f); n != 0 || state != stored {
		t.Errorf("%d bytes in state %d of a block that nobody holds", n, state)
	}

	f = arrive()
	f.end(stored, nil) // nobody holds it
	f = arrive()
	f.grip(true)
	f.end(stored, nil)
	next := arrive() // takes what f keeps
	if n, state := read(f); n != 0 || state != stored {
		t.Errorf("%d bytes in state %d of a block whose memory another needed", n, state)
	}
	if p, err := f.next(3, nil, ""); err != nil || p.state != stored {
		t.Errorf("what follows leaf 3 of it: %+v, %v", p, err)
	}
	f.ungrip(true)
	next.end(stored, nil)
	if len(b.spare) != 0 {
		t.Errorf("%d flights are offered, which have no buffer", len(b.spare))
	}
}
