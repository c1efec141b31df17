package seed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

func TestFreshness(t *testing.T) {
	const date, later = "Date: Mon, 23 Nov 2026 10:00:00 GMT\n", "Expires: Mon, 23 Nov 2026 10:00:30 GMT\n"
	for _, c := range []struct {
		cacheControl, digest string
		fields               content.Fields
		want                 freshness
	}{
		{"", "", "", freshness{time.Minute, false, -1}},
		{"max-age=10", "", "", freshness{10 * time.Second, false, -1}},
		{`max-age="10"`, "", "", freshness{10 * time.Second, false, -1}},
		{"max-age=0", "", "", freshness{0, false, -1}},
		{"max-age=3600", "", date + later, freshness{time.Hour, false, -1}},
		{"max-age=3600, s-maxage=7200", "", "", freshness{2 * time.Hour, true, -1}},
		{"max-age=3600, s-maxage=0", "", "", freshness{0, true, -1}},
		{"max-age=3600, immutable", "", "", freshness{time.Hour, false, -1}},
		{"immutable", "", "", freshness{forever, false, -1}},
		{"must-revalidate", "", "", freshness{time.Minute, true, -1}},
		{"max-age=120, proxy-revalidate", "", "", freshness{2 * time.Minute, true, -1}},
		{"max-age=10, stale-if-error=60", "", "", freshness{10 * time.Second, false, time.Minute}},
		{"max-age=x", "", "", freshness{0, false, -1}},
		{"max-age=99999999999", "", "", freshness{math.MaxInt32 * time.Second, false, -1}},
		{"public", "", date + later, freshness{30 * time.Second, false, -1}},
		{"", "", date + "Expires: Monday, 23-Nov-26 10:00:30 GMT\n", freshness{30 * time.Second, false, -1}},
		{"", "", date + "Expires: Mon Nov 23 10:00:30 2026\n", freshness{30 * time.Second, false, -1}},
		{"", "", later, freshness{0, false, -1}},
		{"", "", date + "Expires: 0\n", freshness{0, false, -1}},
		{"max-age=60", "sha256:00", "", freshness{forever, false, -1}},
	} {
		if got := newFreshness(c.cacheControl, c.digest, c.fields); got != c.want {
			t.Errorf("%q %q %q: %+v, want %+v", c.cacheControl, c.digest, c.fields, got, c.want)
		}
	}
}

// metaFiller only says what a file is.
type metaFiller struct {
	mu    sync.Mutex
	found Found
	err   error
	calls atomic.Int64
	hold  chan struct{} // answers wait for its end, where set
}

func (f *metaFiller) Fill(ctx context.Context, job *Job) error {
	f.calls.Add(1)
	f.mu.Lock()
	found, err, hold := f.found, f.err, f.hold
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err != nil {
		return err
	}
	return job.Begin(found)
}

func (f *metaFiller) answer(etag, cacheControl string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gen, _ := content.NewGeneration(etag, "", 100)
	f.found = Found{Meta: content.Meta{Size: 100, Generation: gen, ETag: etag}, CacheControl: cacheControl}
	f.err = err
}

// TestRevalidation: what is held is asked about once it is no longer current,
// once for all, and served stale when nobody can say.
func TestRevalidation(t *testing.T) {
	filler := &metaFiller{}
	key, self := p2ptest.Key(t)
	var clock atomic.Int64
	m := New(Config{
		Self: self, Key: key, Store: store.NewMemory(1 << 20), Filler: filler,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
		Now:        func() time.Time { return time.Unix(1_800_000_000, clock.Load()) },
	})
	t.Cleanup(func() { _ = m.Close() })
	task, err := content.NewTask("http://origin.test/file", content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	open := func() (string, error) {
		f, err := m.Open(t.Context(), Request{Task: task, Origin: rangeread.Origin{URL: task.URL, Size: -1}})
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		return f.Meta().ETag, nil
	}
	pass := func(d time.Duration) { clock.Add(int64(d)) }
	want := func(step, etag string, calls int64) {
		t.Helper()
		got, err := open()
		if err != nil || got != etag {
			t.Errorf("%s: %s, %v; want %s", step, got, err, etag)
		}
		if n := filler.calls.Swap(0); n != calls {
			t.Errorf("%s: asked %d times, want %d", step, n, calls)
		}
	}
	filler.answer(`"1"`, "", nil)
	want("unknown", `"1"`, 1)
	pass(59 * time.Second)
	want("current", `"1"`, 0)
	pass(2 * time.Second)
	want("validated", `"1"`, 1)
	want("current again", `"1"`, 0)
	pass(time.Minute)
	filler.answer("", "", fmt.Errorf("%w: nobody is there", ErrUnavailable))
	want("served stale", `"1"`, 1)
	want("not asked again at once", `"1"`, 0)
	pass(time.Minute)
	filler.answer("", "", fmt.Errorf("%w: %w, says a peer", ErrUnavailable, ErrPrivate))
	want("private by the word of who may lie", `"1"`, 1)
	pass(time.Minute)
	filler.answer("", "", &OriginError{Status: 503})
	want("origin fails", `"1"`, 1)
	pass(time.Minute)
	filler.answer("", "", &OriginError{Status: 404})
	if _, err := open(); err == nil {
		t.Error("origin says 404: served what is held")
	}
	filler.answer(`"2"`, "max-age=600, must-revalidate", nil)
	filler.calls.Store(0)
	want("changed", `"2"`, 1)
	pass(599 * time.Second)
	want("its lifetime", `"2"`, 0)
	pass(2 * time.Second)
	filler.answer("", "", fmt.Errorf("%w: nobody is there", ErrUnavailable))
	if _, err := open(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("must-revalidate, nobody is there: %v", err)
	}
	filler.answer(`"2"`, "", nil)
	filler.calls.Store(0)
	filler.hold = make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if etag, err := open(); err != nil || etag != `"2"` {
				t.Errorf("one of many: %s, %v", etag, err)
			}
		})
	}
	for filler.calls.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	close(filler.hold)
	wg.Wait()
	if n := filler.calls.Load(); n != 1 {
		t.Errorf("20 readers: asked %d times", n)
	}
}

// FuzzFreshness: whatever an origin writes of the life of its answers, the times
// are such as can be added, and what is fresh at an age is so before.
func FuzzFreshness(f *testing.F) {
	f.Add("max-age=60, s-maxage=99999999999, stale-if-error=-1", "Mon, 23 Nov 2026 10:00:00 GMT", "Monday, 23-Nov-26 10:00:30 GMT", int64(60e9))
	f.Add(`private="x", immutable`, "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", int64(forever))
	f.Add("", "Mon, 23 Nov 2026 10:00:00 GMT", "Mon Nov 23 10:00:30 2026", int64(0))
	f.Add("max-age=60, No-Cache", "", "", int64(1))
	f.Add(`max-age="60`, "", "", int64(-1))
	f.Fuzz(func(t *testing.T, cacheControl, date, expires string, age int64) {
		fields, err := content.NewFields(func(yield func(name, value string) bool) { _ = yield("Date", date) && yield("Expires", expires) })
		if err != nil {
			return
		}
		got := newFreshness(cacheControl, "", fields)
		if got.lifetime < 0 || got.lifetime > forever || got.staleIfError < -1 || got.staleIfError > forever {
			t.Errorf("%q, %q to %q: %+v", cacheControl, date, expires, got)
		}
		at := time.Duration(age)
		fresh := Fresh(cacheControl, "", fields, at)
		if fresh && (at >= got.lifetime || age > 0 && !Fresh(cacheControl, "", fields, at/2)) {
			t.Errorf("%q, %q to %q: fresh at %s, of %s", cacheControl, date, expires, at, got.lifetime)
		}
		isNoCache := func(s string) bool { return strings.EqualFold(strings.Trim(s, " \t"), "no-cache") }
		if fresh && slices.ContainsFunc(strings.Split(cacheControl, ","), isNoCache) && !strings.ContainsAny(cacheControl, "\"\\") {
			t.Errorf("%q is fresh", cacheControl)
		}
	})
}
