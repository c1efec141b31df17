package seed

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// testFlight is a flight of one full block that comes from the origin, and the
// block's bytes.
func testFlight(t *testing.T) (*flight, []byte, crypto.PrivKey, peer.ID) {
	t.Helper()
	key, id := p2ptest.Key(t)
	bufs := newBuffers(1)
	name := content.BlockName{Task: testTask(t).ID, Generation: testMeta(mib, `"x"`).Generation, FileSize: mib}
	f := newFlight(name, nil, bufs)
	f.take(fromOrigin, "", nil)
	b, err := bufs.get(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	f.lend(b)
	data := p2ptest.Bytes(3, mib)
	copy(f.bytes(), data)
	return f, data, key, id
}

// TestIncrementTimes: an increment is signed when 256 KiB of leaves are there
// that were not signed, or when one has waited 50 ms; what was signed is sent at
// once to who comes later.
func TestIncrementTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, key, id := testFlight(t)
		next := func(leaf int) proof {
			p, err := f.next(leaf, key, id)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		f.advance(content.LeafSize - 1)
		if p := next(0); p.inc != nil || p.wake == nil {
			t.Fatal("an increment without one whole leaf")
		}
		f.advance(1)
		p := next(0)
		if p.inc != nil || p.wake == nil {
			t.Fatal("an increment of one leaf at once")
		}
		start := time.Now()
		<-p.wake
		if d := time.Since(start); d != incrementDelay {
			t.Errorf("woken after %s, want %s", d, incrementDelay)
		}
		if p = next(0); p.inc == nil || p.to != 1 {
			t.Fatalf("after %s: %+v, want leaf 0", incrementDelay, p)
		}
		f.advance((incrementLeaves - 1) * content.LeafSize)
		if p = next(1); p.inc != nil {
			t.Fatalf("%d leaves are an increment at once", incrementLeaves-1)
		}
		f.advance(content.LeafSize + 5)
		if p = next(1); p.inc == nil || p.to != incrementLeaves+1 {
			t.Fatalf("256 KiB of leaves: %+v, want an increment at once", p)
		}
		if time.Since(start) != incrementDelay {
			t.Error("it took time")
		}
		if len(f.incs) != 2 {
			t.Errorf("%d increments, want 2", len(f.incs))
		}
		if p = next(3); p.inc == nil || p.inc.First != 1 || len(f.incs) != 2 {
			t.Errorf("a late follower gets %+v, want the increment from leaf 1", p.inc)
		}
		time.Sleep(time.Second) // virtual: nothing is woken in vain for ever
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.bell.due.IsZero() {
			t.Error("a timer runs with nobody to wake")
		}
	})
}

// TestIncrementBeforeTheFirst: one who asks for leaves before the first that was
// signed gets them signed at once.
func TestIncrementBeforeTheFirst(t *testing.T) {
	f, data, key, id := testFlight(t)
	f.advance(40 * content.LeafSize)
	for _, leaf := range []int{20, 0, 39} {
		p, err := f.next(leaf, key, id)
		if err != nil || p.inc == nil {
			t.Fatalf("leaf %d: %+v, %v", leaf, p, err)
		}
		if err := p.inc.Verify(f.name); err != nil {
			t.Fatal(err)
		}
		for i, h := range p.inc.Hashes {
			at := (p.inc.First + i) * content.LeafSize
			if h != content.HashLeaf(data[at:at+content.LeafSize], p.inc.First+i, content.LeavesPerBlock) {
				t.Fatalf("wrong hash of leaf %d", p.inc.First+i)
			}
		}
	}
	if len(f.incs) != 2 {
		t.Errorf("%d increments, want 2: that from leaf 20 covers leaf 39", len(f.incs))
	}
}

// TestIncrementsOfMuch: of many leaves at once no more are signed than make an
// increment, and the next as soon as they are asked for: meanwhile the block may be
// complete, and is proven by its tree then.
func TestIncrementsOfMuch(t *testing.T) {
	f, _, key, id := testFlight(t)
	f.advance(content.BlockSize - 1)
	for _, want := range []struct{ leaf, to int }{{0, 16}, {16, 32}, {5, 16}, {32, 63}} {
		p, err := f.next(want.leaf, key, id)
		if err != nil || p.inc == nil || p.to != want.to {
			t.Fatalf("from leaf %d: %+v, %v, want an increment up to %d", want.leaf, p, err, want.to)
		}
		if err := p.inc.Verify(f.name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyFollowersOneTimer: all followers of a flight share one timer.
func TestManyFollowersOneTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, key, id := testFlight(t)
		f.advance(content.LeafSize)
		first, err := f.next(0, key, id)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		due := f.bell.due
		f.mu.Unlock()
		time.Sleep(incrementDelay / 2)
		for range 100 {
			p, err := f.next(0, key, id)
			if err != nil || p.wake != first.wake {
				t.Fatalf("another wake, %v", err)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.bell.due != due {
			t.Error("the timer was started again")
		}
	})
}
