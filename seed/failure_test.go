package seed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestFailureTakesOneBlock: where a job of several blocks fails at one of them,
// for a reason that may pass, the readers of those behind it get their bytes;
// the origin's final word is for all.
func TestFailureTakesOneBlock(t *testing.T) {
	for _, tc := range []struct {
		status int
		behind bool // is served
	}{{http.StatusServiceUnavailable, true}, {http.StatusTooManyRequests, true}, {0, true}, {http.StatusNotFound, false}} {
		t.Run(fmt.Sprint(tc.status), func(t *testing.T) {
			origin := newFakeOrigin(4 * mib)
			origin.meta = testMeta(257*mib, `"large"`) // stripes of two blocks; the rest is not read
			m := newManager(t, origin, nil)
			f := open(t, m, content.Range{})
			held := make(chan struct{})
			origin.before = func(_ context.Context, job *Job) error {
				<-held // by the readers of both blocks
				if job.Pos() == 0 {
					return &OriginError{Status: tc.status}
				}
				return nil
			}
			holds, err := f.Hold(t.Context(), content.Range{Len: 2 * mib})
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range holds {
				defer h.Release()
			}
			close(held)
			var refused *OriginError
			if _, err := holds[0].ReadAt(t.Context(), make([]byte, 1), 0); !errors.As(err, &refused) || refused.Status != tc.status {
				t.Errorf("the block that failed: %v", err)
			}
			p := make([]byte, 1000)
			n, err := holds[1].ReadAt(t.Context(), p, mib)
			if served := err == nil && n > 0 && bytes.Equal(p[:n], origin.data[mib:][:n]); served != tc.behind {
				t.Errorf("the block behind it: %d bytes, %v", n, err)
			}
			want := int64(2) // the metadata, and the stripe
			if tc.behind {
				want++ // and that block alone
			}
			if got := origin.fills.Load(); got != want {
				t.Errorf("%d fills, want %d", got, want)
			}
		})
	}
}
