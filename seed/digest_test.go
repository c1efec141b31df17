package seed

import (
	"errors"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// TestDigestAfterEviction: a file that was found to be what its digest says is
// for all upstreams. Of one of which a block is gone what comes anew is again
// the word of one upstream, until the whole was checked again.
func TestDigestAfterEviction(t *testing.T) {
	data := p2ptest.Bytes(7, 3*mib+5)
	b := newBench(t, digestURL(data), len(data), nil)
	elsewhere, err := content.NewTask(strings.Replace(b.task.URL, "origin.test", "other.test", 1), content.Filter{})
	if err != nil || elsewhere.ID != b.task.ID {
		t.Fatalf("%v, or not one task", err)
	}
	other := func(want error) {
		t.Helper()
		f, err := b.Open(t.Context(), Request{Task: elsewhere, Origin: rangeread.Origin{URL: elsewhere.URL, Size: -1}, Want: content.Range{Len: 1}})
		if err == nil {
			_ = f.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("by another upstream: %v, want %v", err, want)
		}
	}
	f := b.open(content.Range{})
	other(ErrNotSupported)
	if _, err := f.Prefetch(t.Context(), nil, false, nil); err != nil {
		t.Fatal(err)
	}
	other(nil)

	// Who was let in when it was whole gets no other upstream's bytes.
	late, err := b.Open(t.Context(), Request{Task: elsewhere, Origin: rangeread.Origin{URL: elsewhere.URL, Size: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }()
	if err := f.f.disk.Drop(1); err != nil {
		t.Fatal(err)
	}
	other(ErrNotSupported)
	if _, err := late.Hold(t.Context(), content.Range{Off: mib, Len: 1}); !errors.Is(err, ErrNotSupported) {
		t.Errorf("a reader that was let in before: %v", err)
	}
	if n := b.filler.bytes(); n != int64(len(data)) {
		t.Errorf("%d bytes were asked for", n)
	}
	if _, err := f.Prefetch(t.Context(), nil, false, nil); err != nil {
		t.Fatal(err)
	}
	other(nil)

	// A file that another upstream's bytes made wrong is found out.
	if err := f.f.disk.Drop(2); err != nil {
		t.Fatal(err)
	}
	b.filler.data[2*mib] ^= 1
	if _, err := f.Prefetch(t.Context(), nil, false, nil); !errors.Is(err, ErrDigest) {
		t.Errorf("a wrong block in the place of an evicted one: %v, want ErrDigest", err)
	}
}
