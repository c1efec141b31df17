package seed

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// asking is a manager whose filler only says what a file is, under a clock.
type asking struct {
	t      *testing.T
	m      *Manager
	filler *metaFiller
	clock  atomic.Int64
	task   content.Task
}

func newAsking(t *testing.T) *asking {
	t.Helper()
	a := &asking{t: t, filler: &metaFiller{}}
	key, self := p2ptest.Key(t)
	a.m = New(Config{
		Self: self, Key: key, Store: store.NewMemory(1 << 20), Filler: a.filler,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil }, Now: a.now,
	})
	t.Cleanup(func() { _ = a.m.Close() })
	var err error
	if a.task, err = content.NewTask("http://origin.test/file", content.Filter{}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *asking) now() time.Time { return time.Unix(1_800_000_000, a.clock.Load()) }

// says makes the origin answer with these terms, aged.
func (a *asking) says(cacheControl string, fields content.Fields, age time.Duration) {
	a.filler.answer(`"1"`, cacheControl, nil)
	a.filler.mu.Lock()
	a.filler.found.Fields, a.filler.found.Age = fields, age
	a.filler.mu.Unlock()
}

// open opens the file after a while, and checks how often the origin was asked.
func (a *asking) open(after time.Duration, d Demand, calls int64) (*File, error) {
	a.t.Helper()
	a.clock.Add(int64(after))
	f, err := a.m.Open(a.t.Context(), Request{Task: a.task, Origin: rangeread.Origin{URL: a.task.URL, Size: -1}, Demand: d})
	if n := a.filler.calls.Swap(0); n != calls {
		a.t.Errorf("%+v: asked %d times, want %d", d, n, calls)
	}
	if err == nil {
		a.t.Cleanup(func() { _ = f.Close() })
	}
	return f, err
}

// TestDemands: a reader may want content more or less current than the origin
// demands (RFC 9111 section 5.2.1).
func TestDemands(t *testing.T) {
	a := newAsking(t)
	a.says("max-age=100", "", 0)
	step := func(after time.Duration, d Demand, calls int64, age time.Duration) {
		t.Helper()
		f, err := a.open(after, d, calls)
		if err != nil {
			t.Fatal(err)
		}
		if f.Age() != age {
			t.Errorf("%+v: age %s, want %s", d, f.Age(), age)
		}
	}
	const s = time.Second
	step(0, Demand{Since: a.now()}, 1, 0)
	step(50*s, Demand{}, 0, 50*s)
	step(0, Demand{MaxAge: 50 * s}, 0, 50*s)
	step(0, Demand{MaxAge: 49 * s}, 1, 0)
	step(40*s, Demand{MinFresh: 60 * s}, 0, 40*s)
	step(0, Demand{MinFresh: 61 * s}, 1, 0)
	step(10*s, Demand{Since: a.now()}, 0, 10*s) // asked at that time, not before
	step(0, Demand{Since: a.now()}, 1, 0)
	step(100*s, Demand{MaxStale: s}, 0, 100*s)
	step(s, Demand{MaxStale: s}, 1, 0)
	step(100*s, Demand{}, 1, 0)
	step(200*s, Demand{MaxStale: forever * 2}, 0, 200*s) // any number of seconds
	step(0, Demand{Lifetime: 199 * s}, 1, 0)
	step(200*s, Demand{Lifetime: 201 * s}, 0, 200*s)
	a.says("max-age=100, must-revalidate", "", 30*s)
	step(0, Demand{Since: a.now()}, 1, 30*s) // from a cache before the origin
	step(70*s, Demand{MaxStale: forever}, 1, 30*s)
	step(0, Demand{MaxAge: 10 * s}, 1, 30*s) // it cannot be had younger
}

// TestFreshening: what a validation says of a file counts from then on (RFC 9111
// section 3.2), Age and all.
func TestFreshening(t *testing.T) {
	a := newAsking(t)
	a.says("max-age=10", "X-Old: 1\n", 4*time.Second)
	f, err := a.open(0, Demand{}, 1)
	if err != nil || f.Age() != 4*time.Second || f.Meta().Fields != "X-Old: 1\n" {
		t.Fatalf("%v, age %s, %q", err, f.Age(), f.Meta().Fields)
	}
	if _, err := a.open(5*time.Second, Demand{}, 0); err != nil {
		t.Fatal(err)
	}
	a.says("max-age=60", "X-New: 2\n", 0)
	f, err = a.open(time.Second, Demand{}, 1)
	if err != nil || f.CacheControl() != "max-age=60" || f.Meta().Fields != "X-New: 2\n" || f.Age() != 0 {
		t.Fatalf("%v, %q, %q, age %s", err, f.CacheControl(), f.Meta().Fields, f.Age())
	}
	if _, err := a.open(59*time.Second, Demand{}, 0); err != nil {
		t.Fatal(err)
	}
	// A source that is behind changes nothing.
	a.says("max-age=1", "", time.Hour)
	f, err = a.open(time.Second, Demand{}, 1)
	if err != nil || f.CacheControl() != "max-age=60" || f.Age() != time.Minute {
		t.Errorf("%v, %q, age %s", err, f.CacheControl(), f.Age())
	}
}

// TestStaleIfError: the origin may say for how long what is held will do when it
// cannot be reached.
func TestStaleIfError(t *testing.T) {
	a := newAsking(t)
	a.says("max-age=10, stale-if-error=90", "", 0)
	if _, err := a.open(0, Demand{}, 1); err != nil {
		t.Fatal(err)
	}
	a.filler.answer("", "", fmt.Errorf("%w: nobody is there", ErrUnavailable))
	f, err := a.open(20*time.Second, Demand{}, 1)
	if err != nil || f.Age() != 20*time.Second {
		t.Fatalf("%v, age %s", err, f.Age())
	}
	if _, err := a.open(time.Minute-1, Demand{}, 0); err != nil { // not asked again so soon
		t.Fatal(err)
	}
	if _, err := a.open(20*time.Second+1, Demand{}, 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after its time: %v", err)
	}
}

// TestHeld asks for what is here already.
func TestHeld(t *testing.T) {
	a := newAsking(t)
	a.says("max-age=10", "", 0)
	held := func(after time.Duration, d Demand) error {
		a.clock.Add(int64(after))
		f, err := a.m.Open(t.Context(), Request{Task: a.task, Origin: rangeread.Origin{URL: a.task.URL, Size: -1}, Demand: d, Held: true})
		if err == nil {
			if f.Has(content.Range{Len: 1}) || !f.Has(content.Range{}) {
				t.Error("has what it has not")
			}
			_ = f.Close()
		}
		return err
	}
	if err := held(0, Demand{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := a.open(0, Demand{}, 1); err != nil {
		t.Fatal(err)
	}
	if err := held(9*time.Second, Demand{}); err != nil {
		t.Errorf("current: %v", err)
	}
	if err := held(0, Demand{MaxAge: time.Second}); !errors.Is(err, ErrNotFound) {
		t.Errorf("too old: %v", err)
	}
	if err := held(time.Second, Demand{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("stale: %v", err)
	}
	if n := a.filler.calls.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}
