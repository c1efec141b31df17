package seed

import (
	"context"
	"errors"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// changing is an origin whose file can be replaced. A fill of a file that is no
// more what it was ends with ErrChanged.
type changing struct{ now *fakeOrigin }

func (c *changing) Fill(ctx context.Context, job *Job) error { return c.now.Fill(ctx, job) }

func otherFile(n int, etag string) *fakeOrigin {
	o := newFakeOrigin(n)
	o.data, o.meta = p2ptest.Bytes(8, n), testMeta(int64(n), etag)
	return o
}

// TestChangedFile: when the origin turns out to have another generation, the
// reader of the old one is cut short, the next Open gets the new one, those who
// name the old one still get what is held of it, and when the origin goes back
// to it, it is the current one again, with what is held.
func TestChangedFile(t *testing.T) {
	one, two := newFakeOrigin(4*mib), otherFile(3*mib, `"two"`)
	c := &changing{one}
	m := newManager(t, c, nil)
	old := open(t, m, content.Range{Len: mib})
	waitStored(t, m, 1)
	c.now = two
	if _, err := readFile(t.Context(), old, content.Range{Off: mib, Len: mib}); !errors.Is(err, ErrChanged) {
		t.Fatalf("the old file's second block: %v, want ErrChanged", err)
	}
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "the fill ends")
	mustRead(t, m, two.data, content.Range{Len: 3 * mib})
	if got, err := readFile(t.Context(), old, content.Range{Len: mib}); sameBytes(got, err, one.data, content.Range{Len: mib}) != nil {
		t.Error("what is held of the old file cannot be read by those who have it open")
	}
	r := request(testTask(t), content.Range{Len: mib})
	r.Expect = one.meta.Generation
	if f, err := m.Open(t.Context(), r); err != nil || f.Meta() != one.meta {
		t.Errorf("the old file by its name: %v", err)
	} else {
		f.Close()
	}
	c.now = one
	fresh := open(t, m, content.Range{})
	if fresh.Meta() != two.meta {
		t.Error("naming the old generation made it the current one")
	}
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "all that was read is stored")
	two.meta.Generation = content.Generation{} // not to be met again
	m.cfg.Store.(*store.Memory).Files()(func(f store.File) bool {
		if f.Info().ETag == `"two"` {
			if err := f.Drop(0); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if _, err := readFile(t.Context(), fresh, content.Range{Len: mib}); !errors.Is(err, ErrChanged) {
		t.Fatalf("the new file after the origin went back: %v, want ErrChanged", err)
	}
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "the fill ends")
	before := one.bytes.Load()
	again := open(t, m, content.Range{Len: mib})
	if again.Meta() != one.meta {
		t.Fatalf("meta %+v, want the first generation", again.Meta())
	}
	mustRead(t, m, one.data, content.Range{Len: mib})
	if n := one.bytes.Load() - before; n != 0 {
		t.Errorf("%d bytes were read of a block that is held", n)
	}
	mustRead(t, m, one.data, content.Range{Len: 4 * mib})
}

// TestLatestIsTheNewest: naming an old generation first, after a restart, does
// not make it the one that others get.
func TestLatestIsTheNewest(t *testing.T) {
	one, two := newFakeOrigin(mib), otherFile(mib, `"two"`)
	disk := store.NewMemory(0)
	for _, o := range []*fakeOrigin{one, two} {
		m := newManager(t, o, func(c *Config) { c.Store = disk })
		r := request(testTask(t), content.Range{Len: mib})
		r.Expect = o.meta.Generation
		f, err := m.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, ask := range []func(m *Manager){
		func(m *Manager) { m.Files() },
		func(m *Manager) { m.held(testTask(t), one.meta.Generation) },
	} {
		m := newManager(t, two, func(c *Config) { c.Store = disk })
		ask(m)
		if f := open(t, m, content.Range{}); f.Meta() != two.meta {
			t.Errorf("meta %+v, want that of the newer file", f.Meta())
		}
	}
}
