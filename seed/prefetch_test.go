package seed

import (
	"context"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// dataFiller is an origin of one file, in memory.
type dataFiller struct {
	data []byte
	gen  content.Generation
	// gate, where set, is received from before each block.
	gate chan struct{}

	mu      sync.Mutex
	wanted  int // blocks of fills that have not been given to them
	most    int // the most of these at a time
	served  int64
	failing map[int64]error // by block
}

func (d *dataFiller) Fill(ctx context.Context, job *Job) error {
	blocks := int(content.Span(job.Pos(), min(job.Want().End(), int64(len(d.data)))).Align(content.BlockSize).Len / content.BlockSize)
	d.count(blocks)
	defer func() { d.count(-blocks) }()
	job.AskOrigin()
	if err := job.Begin(Found{Meta: content.Meta{Size: int64(len(d.data)), Generation: d.gen, ETag: `"d"`}}); err != nil {
		return err
	}
	for !job.Done() {
		i := job.Pos() / content.BlockSize
		d.mu.Lock()
		err := d.failing[i]
		d.mu.Unlock()
		if err != nil {
			return err
		}
		if d.gate != nil && job.Pos()%content.BlockSize == 0 {
			select {
			case <-d.gate:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		buf, err := job.Buffer(ctx)
		if err != nil {
			return err
		}
		n := copy(buf, d.data[job.Pos():])
		d.mu.Lock()
		d.served += int64(n)
		d.mu.Unlock()
		if blocks > 0 { // when it is stored the next fill may begin before this one ends
			blocks--
			d.count(-1)
		}
		if err := job.Advance(n); err != nil {
			return err
		}
	}
	return nil
}

func (d *dataFiller) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted += n
	d.most = max(d.most, d.wanted)
}

// peak returns the most blocks that were on their way at a time.
func (d *dataFiller) peak() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.most
}

func (d *dataFiller) fail(block int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = map[int64]error{block: err}
}

func (d *dataFiller) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.served
}

// bench is a manager over a store in memory, with one file to be had.
type bench struct {
	*Manager
	t      *testing.T
	store  store.Store
	filler *dataFiller
	task   content.Task
	data   []byte
}

const benchURL = "http://origin.test/file"

func newBench(t *testing.T, url string, size int, change func(*Config)) *bench {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	task, err := content.NewTask(url, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, task: task, data: p2ptest.Bytes(7, size)}
	b.filler = &dataFiller{data: b.data}
	if task.Digest != "" {
		b.filler.gen = content.DigestGeneration(task.Digest)
	} else {
		b.filler.gen, _ = content.NewGeneration(`"d"`, "", int64(size))
	}
	key, self := p2ptest.Key(t)
	cfg := Config{
		Self: self, Key: key, Store: store.NewMemory(64 << 20), Filler: b.filler, Spool: t.TempDir(), Seed: true,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
	}
	if change != nil {
		change(&cfg)
	}
	b.store, b.Manager = cfg.Store, New(cfg)
	t.Cleanup(func() {
		closeManager(t, b.Manager)
		_ = b.store.Close()
	})
	return b
}

func (b *bench) open(want content.Range) *File {
	b.t.Helper()
	f, err := b.Open(b.t.Context(), Request{Task: b.task, Origin: rangeread.Origin{URL: b.task.URL, Size: -1}, Want: want})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = f.Close() })
	return f
}

// held wants exactly these blocks of the file to be stored, with their bytes.
func (b *bench) held(blocks ...int64) {
	b.t.Helper()
	f, err := b.store.Latest(b.task.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	if n := f.Count(); n != int64(len(blocks)) {
		b.t.Errorf("%d blocks are held, want %d", n, len(blocks))
	}
	for _, i := range blocks {
		r := content.Layout{Size: int64(len(b.data))}.Block(i)
		p := make([]byte, r.Len)
		if err := f.ReadAt(p, r.Off, true); err != nil || string(p) != string(b.data[r.Off:r.End()]) {
			b.t.Errorf("block %d: %v, right bytes: %t", i, err, err == nil)
		}
	}
}

func digestURL(data []byte) string { return blobURL(digestOf(data)) }

func blobURL(digest string) string { return "http://origin.test/v2/name/blobs/" + digest }

func TestPrefetchWhole(t *testing.T) {
	b := newBench(t, benchURL, 9*mib+100, func(c *Config) { c.MaxFlights = 8 })
	f := b.open(content.Range{})
	var last, calls int64
	got, err := f.Prefetch(t.Context(), nil, false, func(done, total int64) {
		calls++
		if total != 9*mib+100 || done <= last {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || got != (Fetched{Origin: 9*mib + 100}) || last != got.Sum() || calls != 10 {
		t.Errorf("%+v, %v; %d calls, the last with %d", got, err, calls, last)
	}
	b.held(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	if n := b.filler.peak(); n > 2 {
		t.Errorf("%d blocks were on their way at a time: a quarter of 8 is 2", n)
	}
	again, err := f.Prefetch(t.Context(), nil, false, nil)
	if err != nil || again != (Fetched{Local: 9*mib + 100}) || b.filler.bytes() != 9*mib+100 {
		t.Errorf("again: %+v, %v, %d bytes asked in all", again, err, b.filler.bytes())
	}
}

func TestPrefetchRanges(t *testing.T) {
	b := newBench(t, benchURL, 6*mib, nil)
	f := b.open(content.Range{})
	for _, c := range []struct {
		ranges []content.Range
		want   Fetched
		held   []int64
	}{
		{[]content.Range{{Off: mib - 1, Len: 2}}, Fetched{Origin: 2 * mib}, []int64{0, 1}},
		{[]content.Range{{Off: 0, Len: 1}, {Off: 5 * mib, Len: 1 << 40}}, Fetched{Local: mib, Origin: mib}, []int64{0, 1, 5}},
		{[]content.Range{{Off: 6 * mib, Len: 1}}, Fetched{}, []int64{0, 1, 5}},
		{[]content.Range{{Off: 1, Len: 1}, {Off: 2, Len: 1}, {Off: 0, Len: 3 * mib}}, Fetched{Local: 2 * mib, Origin: mib}, []int64{0, 1, 2, 5}},
	} {
		got, err := f.Prefetch(t.Context(), c.ranges, false, nil)
		if err != nil || got != c.want {
			t.Errorf("%v: %+v, %v; want %+v", c.ranges, got, err, c.want)
		}
		b.held(c.held...)
	}
}

func TestPrefetchFailureAndRepeat(t *testing.T) {
	b := newBench(t, benchURL, 5*mib, nil)
	f := b.open(content.Range{})
	b.filler.fail(3, &OriginError{Status: 503})
	var origin *OriginError
	if _, err := f.Prefetch(t.Context(), nil, false, nil); !errors.As(err, &origin) || origin.Status != 503 {
		t.Errorf("error %v", err)
	}
	b.filler.fail(-1, nil)
	if _, err := f.Prefetch(t.Context(), nil, false, nil); err != nil {
		t.Errorf("repeated: %v", err)
	}
	b.held(0, 1, 2, 3, 4)
}

// TestPrefetchCancel: when nobody wants the blocks any more, no fill goes on.
func TestPrefetchCancel(t *testing.T) {
	b := newBench(t, benchURL, 8*mib, func(c *Config) { c.MaxFlights = 8 })
	f := b.open(content.Range{})
	b.filler.gate = make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("client left")
	done := make(chan error, 1)
	go func() {
		_, err := f.Prefetch(ctx, nil, false, nil)
		done <- err
	}()
	b.filler.gate <- struct{}{} // the first block comes
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	_ = f.Close()
	p2ptest.Eventually(t, waitLimit, func() bool { return b.Stats().Fills == 0 }, "fills end with their prefetch")
	close(b.filler.gate)
	// What was taken of the share was given back.
	if !b.background.TryAcquire(b.share) {
		t.Error("blocks are still counted as on their way")
	}
}

// TestPrefetchLeavesRoom: a reader gets his bytes while a prefetch has taken
// all that it may.
func TestPrefetchLeavesRoom(t *testing.T) {
	b := newBench(t, benchURL, 16*mib, func(c *Config) { c.MaxFlights = 8 })
	f := b.open(content.Range{})
	b.filler.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := f.Prefetch(ctx, nil, false, nil)
		done <- err
	}()
	p2ptest.Eventually(t, waitLimit, func() bool { return b.Stats().Fills == 2 }, "the share of the prefetch is taken")
	holds, err := f.Hold(t.Context(), content.Range{Off: 10 * mib, Len: 4 * mib})
	if err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, waitLimit, func() bool { return b.Stats().Fills == 6 }, "a reader's blocks are asked for")
	close(b.filler.gate)
	p := make([]byte, 100)
	for _, h := range holds {
		if n, err := h.ReadAt(t.Context(), p, h.i*mib); err != nil || string(p[:n]) != string(b.data[h.i*mib:][:n]) {
			t.Errorf("block %d: %v", h.i, err)
		}
		h.Release()
	}
	cancel()
	<-done
}

func TestPrefetchTooMuch(t *testing.T) {
	b := newBench(t, benchURL, 5*mib, func(c *Config) { c.Store = store.NewMemory(8 * mib) })
	f := b.open(content.Range{})
	if _, err := f.Prefetch(t.Context(), nil, false, nil); err == nil || b.filler.bytes() != 0 {
		t.Errorf("more than half of the store: %v, %d bytes asked", err, b.filler.bytes())
	}
	if _, err := f.Prefetch(t.Context(), []content.Range{{Len: 4 * mib}}, false, nil); err != nil {
		t.Errorf("half of the store: %v", err)
	}
}

// refusing is a store whose files take no block, once gate is closed.
type refusing struct {
	store.Store
	gate chan struct{}
}

type refusingFile struct {
	store.File
	gate chan struct{}
}

func (s refusing) Create(k store.Key, i store.Info) (store.File, error) {
	f, err := s.Store.Create(k, i)
	return refusingFile{f, s.gate}, err
}

func (f refusingFile) Write(int64, []byte, store.Record) error {
	<-f.gate
	return store.ErrFull
}

// TestPrefetchUnstored: a block that the store refuses is no success, and does
// not hang.
func TestPrefetchUnstored(t *testing.T) {
	gate := make(chan struct{})
	b := newBench(t, benchURL, mib, func(c *Config) { c.Store = refusing{c.Store, gate} })
	f := b.open(content.Range{})
	done := make(chan error, 1)
	go func() {
		_, err := f.Prefetch(t.Context(), nil, false, nil)
		done <- err
	}()
	p2ptest.Eventually(t, waitLimit, func() bool {
		f.f.mu.Lock()
		defer f.f.mu.Unlock()
		for _, fl := range f.f.flights {
			fl.mu.Lock()
			defer fl.mu.Unlock()
			return fl.state == complete && fl.bell.ch != nil
		}
		return false
	}, "the prefetch waits for the store")
	close(gate)
	if err := <-done; !errors.Is(err, store.ErrFull) {
		t.Errorf("error %v", err)
	}
}

func TestPrefetchDigest(t *testing.T) {
	data := p2ptest.Bytes(7, 2*mib+5)
	right := newBench(t, digestURL(data), len(data), nil)
	if _, err := right.open(content.Range{}).Prefetch(t.Context(), nil, false, nil); err != nil {
		t.Error(err)
	}
	right.held(0, 1, 2)
	wrong := newBench(t, digestURL([]byte("another")), len(data), nil)
	f := wrong.open(content.Range{})
	if _, err := f.Prefetch(t.Context(), []content.Range{{Len: 1}}, false, nil); err != nil {
		t.Errorf("a part has no digest: %v", err)
	}
	if _, err := f.Prefetch(t.Context(), nil, false, nil); !errors.Is(err, ErrDigest) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := wrong.store.Latest(wrong.task.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a file of the wrong digest is kept: %v", err)
	}
	if wrong.Manager.held(wrong.task, content.Generation{}) != nil {
		t.Error("a file of the wrong digest is served")
	}
}
