package seed

import (
	"bytes"
	"errors"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

func whole(size int64) (content.Range, error) { return content.Range{Len: size}, nil }

var crowdKey = store.Key{Task: content.TaskID{9}, Generation: content.Generation{9}}

// uncrowd takes away what crowd wrote.
func uncrowd(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Delete(crowdKey); err != nil {
		t.Fatal(err)
	}
}

// crowd writes blocks of another task until the store had to evict all that it
// may.
func crowd(t *testing.T, s store.Store) {
	t.Helper()
	file, err := s.Create(crowdKey, store.Info{Meta: content.Meta{Size: 64 * mib, Generation: crowdKey.Generation}})
	if err != nil {
		t.Fatal(err)
	}
	data := p2ptest.Bytes(5, mib)
	outboard, root := content.Outboard(data)
	for i := range int64(16) {
		if err := file.Write(i, data, store.Record{Seal: content.Seal{Root: root}, Outboard: outboard}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPrefetchPinned: what is pinned stays, whatever else is stored, until it is
// unpinned or its file has changed.
func TestPrefetchPinned(t *testing.T) {
	b := newBench(t, benchURL, 6*mib, func(c *Config) { c.Store = store.NewMemory(8 * mib) })
	f := b.open(content.Range{})
	if _, err := f.Prefetch(t.Context(), []content.Range{{Off: mib, Len: 2 * mib}}, true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Prefetch(t.Context(), []content.Range{{Off: 4 * mib, Len: mib}}, false, nil); err != nil {
		t.Fatal(err)
	}
	if n := b.Files()[0].Pinned; n != 2*mib || b.Stats().Pinned != n {
		t.Errorf("%d bytes are pinned, in all %d", n, b.Stats().Pinned)
	}
	crowd(t, b.store)
	b.held(1, 2)
	if _, err := b.Unpin(content.TaskID{7}, whole); !errors.Is(err, ErrNotFound) {
		t.Errorf("unpin what is not known: %v", err)
	}
	first := func(int64) (content.Range, error) { return content.Range{Len: mib + 1}, nil }
	if n, err := b.Unpin(b.task.ID, first); n != mib || err != nil {
		t.Errorf("unpinned %d bytes, %v", n, err)
	}
	uncrowd(t, b.store)
	crowd(t, b.store)
	b.held(2)
	if n, err := b.Unpin(b.task.ID, whole); n != mib || err != nil || b.Stats().Pinned != 0 {
		t.Errorf("unpinned %d bytes, %v, %d left", n, err, b.Stats().Pinned)
	}
	uncrowd(t, b.store)
	crowd(t, b.store)
	other, err := b.store.Open(crowdKey)
	if err == nil {
		err = other.Pin(content.Range{Len: 6 * mib})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Prefetch(t.Context(), []content.Range{{Len: 3 * mib}}, true, nil); !errors.Is(err, ErrNoRoom) || b.Stats().Pinned != 6*mib {
		t.Errorf("more pins than there is room for: %v, %d bytes are pinned", err, b.Stats().Pinned)
	}
	if _, err := f.Prefetch(t.Context(), []content.Range{{Len: 2 * mib}}, true, nil); err != nil {
		t.Errorf("as many as there is room for: %v", err)
	}
	b.outdate(f.f)
	if n := f.f.disk.Pinned(); n != 0 {
		t.Errorf("%d bytes of an old generation are pinned", n)
	}
}

// TestImportPinned: an import that is refused leaves no pin.
func TestImportPinned(t *testing.T) {
	b := newBench(t, benchURL, 3*mib, func(c *Config) { c.Store = store.NewMemory(8 * mib) })
	in := Import{Task: b.task, Pin: true, Found: Found{Meta: content.Meta{Size: 3 * mib, Generation: b.filler.gen, ETag: `"d"`}}}
	in.Body = bytes.NewReader(append(bytes.Clone(b.data), 0))
	if _, err := b.Import(t.Context(), in); !errors.Is(err, errTooLong) || b.Stats().Pinned != 0 {
		t.Errorf("%v, %d bytes are pinned", err, b.Stats().Pinned)
	}
	in.Body = bytes.NewReader(b.data)
	if _, err := b.Import(t.Context(), in); err != nil || b.Stats().Pinned != 3*mib {
		t.Errorf("%v, %d bytes are pinned", err, b.Stats().Pinned)
	}
	crowd(t, b.store)
	b.held(0, 1, 2)
}
