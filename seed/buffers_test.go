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
