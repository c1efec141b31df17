package prefetch

import (
	"errors"
	"testing"

	"github.com/p2pnode/p2pnode/seed"
)

// TestPin: what is pinned is what was asked for, and Unpin takes the same words.
func TestPin(t *testing.T) {
	r := newRig(t, 5*mib)
	if _, err := r.Fetch(t.Context(), Request{URL: fileURL, Len: -1, Seeds: true, Pin: true}, nil); !errors.Is(err, ErrArgument) {
		t.Errorf("pinned on seeds: %v", err)
	}
	if _, err := r.Unpin(Request{URL: fileURL, Len: -1}); !errors.Is(err, seed.ErrNotFound) {
		t.Errorf("unpin what is not known: %v", err)
	}
	pinned := func(want int64) {
		t.Helper()
		if n := r.store.Pinned(); n != want {
			t.Errorf("%d bytes are pinned, want %d", n, want)
		}
	}
	if _, err := r.Fetch(t.Context(), Request{URL: fileURL, Off: -2 * mib, Len: -1, Pin: true}, nil); err != nil {
		t.Fatal(err)
	}
	pinned(2 * mib)
	if n, err := r.Unpin(Request{URL: fileURL + "#part", Off: 0, Len: 4 * mib}); n != mib || err != nil {
		t.Errorf("unpinned %d bytes, %v", n, err)
	}
	pinned(mib)
	var behind *seed.RangeError
	if _, err := r.Unpin(Request{URL: fileURL, Off: 5 * mib, Len: 1}); !errors.As(err, &behind) {
		t.Errorf("unpin behind the end: %v", err)
	}
	if n, err := r.Unpin(Request{URL: fileURL, Off: -1, Len: -1}); n != mib || err != nil {
		t.Errorf("unpinned %d bytes, %v", n, err)
	}
	pinned(0)
}
