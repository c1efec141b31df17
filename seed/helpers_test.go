package seed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	testURL = "http://origin.test/file"
	// soon bounds the wait for what must happen.
	soon = 20 * time.Second
)

// testTask is the task of testURL.
func testTask(t testing.TB) content.Task {
	t.Helper()
	task, err := content.NewTask(testURL, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func testMeta(size int64, etag string) content.Meta {
	gen, _ := content.NewGeneration(etag, "", size)
	return content.Meta{Size: size, Generation: gen, ETag: etag, ContentType: "text/test"}
}

// fakeOrigin is a Filler that reads from memory as if it were the origin, and
// counts.
type fakeOrigin struct {
	data  []byte
	meta  content.Meta
	chunk int // bytes at once; default 64 KiB
	// before, where set, runs when a fill begins; step before each chunk.
	before func(ctx context.Context, job *Job) error
	step   func(ctx context.Context, pos int64) error

	fills, ended atomic.Int64
	bytes        atomic.Int64

	mu     sync.Mutex
	copies map[int64]int // block → how often its first byte was read
	wants  []content.Range
}

func newFakeOrigin(n int) *fakeOrigin {
	return &fakeOrigin{data: p2ptest.Bytes(7, n), meta: testMeta(int64(n), `"one"`), copies: map[int64]int{}}
}

// Fill implements Filler.
func (o *fakeOrigin) Fill(ctx context.Context, job *Job) error {
	o.fills.Add(1)
	defer o.ended.Add(1)
	o.mu.Lock()
	o.wants = append(o.wants, job.Want())
	o.mu.Unlock()
	job.AskOrigin()
	if meta, ok := job.Meta(); ok && meta.Sequential {
		if job.Whole(); job.Done() {
			return nil
		}
	}
	if o.before != nil {
		if err := o.before(ctx, job); err != nil {
			return err
		}
	}
	if err := job.Begin(Found{Meta: o.meta, CacheControl: "max-age=60"}); err != nil {
		return err
	}
	chunk := o.chunk
	if chunk == 0 {
		chunk = 64 * kib
	}
	for !job.Done() {
		if o.step != nil {
			if err := o.step(ctx, job.Pos()); err != nil {
				return err
			}
		}
		buf, err := job.Buffer(ctx)
		if err != nil {
			return err
		}
		pos := job.Pos()
		n := copy(buf[:min(len(buf), chunk)], o.data[pos:])
		o.bytes.Add(int64(n))
		if pos%content.BlockSize == 0 {
			o.mu.Lock()
			o.copies[pos/content.BlockSize]++
			o.mu.Unlock()
		}
		if err := job.Advance(n); err != nil {
			return err
		}
	}
	return nil
}

// fillFunc is a Filler that is one function.
type fillFunc func(ctx context.Context, job *Job) error

// Fill implements Filler.
func (f fillFunc) Fill(ctx context.Context, job *Job) error { return f(ctx, job) }

// maxCopies returns how often the block was read that was read most often.
func (o *fakeOrigin) maxCopies() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	most := 0
	for _, n := range o.copies {
		most = max(most, n)
	}
	return most
}

// gate lets what waits at it pass up to an offset.
type gate struct {
	mu     sync.Mutex
	upTo   int64
	opened chan struct{}
}

func newGate(upTo int64) *gate { return &gate{upTo: upTo, opened: make(chan struct{})} }

func (g *gate) open(upTo int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.upTo = upTo
	close(g.opened)
	g.opened = make(chan struct{})
}

func (g *gate) step(ctx context.Context, pos int64) error {
	for {
		g.mu.Lock()
		upTo, opened := g.upTo, g.opened
		g.mu.Unlock()
		if pos < upTo {
			return nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const always = int64(1) << 60

// newManager returns a manager with a memory store, without a network. change
// may change its configuration.
func newManager(t testing.TB, filler Filler, change func(*Config)) *Manager {
	t.Helper()
	key, id := p2ptest.Key(t)
	cfg := Config{
		Self: id, Key: key, Store: store.NewMemory(0), Filler: filler, Seed: true,
		VerifySeal: func(name content.BlockName, s content.Seal) error { return s.Verify(name) },
	}
	if change != nil {
		change(&cfg)
	}
	m := New(cfg)
	t.Cleanup(func() { closeManager(t, m) })
	return m
}

// closeManager closes a manager and looks for what it has left behind.
func closeManager(t testing.TB, m *Manager) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if n := m.Stats().Fills; n != 0 {
		t.Errorf("%d fills run after Close", n)
	}
	p2ptest.Eventually(t, soon, func() bool { return freeBuffers(m) }, "all buffers are given back")
}

// freeBuffers reports whether no buffer is lent.
func freeBuffers(m *Manager) bool {
	n := int64(m.cfg.MaxFlights)
	if !m.buffers.all.TryAcquire(n) {
		return false
	}
	m.buffers.all.Release(n)
	return true
}

func request(task content.Task, want content.Range) Request {
	return Request{Task: task, Origin: rangeread.Origin{URL: testURL, Size: -1}, Want: want}
}

// open opens testURL at a manager; the file closes with the test.
func open(t testing.TB, m *Manager, want content.Range) *File {
	t.Helper()
	f, err := m.Open(t.Context(), request(testTask(t), want))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// readRange opens testURL and reads a range, as a client does.
func readRange(ctx context.Context, t testing.TB, m *Manager, want content.Range) ([]byte, error) {
	t.Helper()
	f, err := m.Open(ctx, request(testTask(t), want))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readFile(ctx, f, want)
}

// readFile reads a range of an open file, with grips on all its blocks.
func readFile(ctx context.Context, f *File, want content.Range) ([]byte, error) {
	want = want.Intersect(content.Range{Len: f.Meta().Size})
	holds, err := f.Hold(ctx, want)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, h := range holds {
			h.Release()
		}
	}()
	out := make([]byte, want.Len)
	for n := int64(0); n < want.Len; {
		off := want.Off + n
		i := off/content.BlockSize - want.Off/content.BlockSize
		got, err := holds[i].ReadAt(ctx, out[n:], off)
		n += int64(got)
		if err != nil {
			return out[:n], err
		}
		if n == want.Len || (want.Off+n)%content.BlockSize == 0 {
			holds[i].Release()
		}
	}
	return out, nil
}

// mustRead reads a range and compares it with data.
func mustRead(t testing.TB, m *Manager, data []byte, want content.Range) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	got, err := readRange(ctx, t, m, want)
	if err := sameBytes(got, err, data, want); err != nil {
		t.Fatal(err)
	}
}

func sameBytes(got []byte, err error, data []byte, want content.Range) error {
	want = want.Intersect(content.Range{Len: int64(len(data))})
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", want, err)
	case !bytes.Equal(got, data[want.Off:want.End()]):
		return fmt.Errorf("read %s: wrong bytes", want)
	}
	return nil
}

// waitStored waits until a manager's one file has so many blocks stored.
func waitStored(t testing.TB, m *Manager, blocks int64) {
	t.Helper()
	p2ptest.Eventually(t, soon, func() bool {
		held := m.Files()
		return len(held) == 1 && held[0].Blocks == blocks
	}, blocks, " blocks are stored")
}

// parallel runs functions at once and returns their errors.
func parallel(fns ...func() error) error {
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// flights returns the flights of a manager's newest file, by block.
func flightsNow(m *Manager) []*flight {
	m.mu.Lock()
	var files []*file
	for _, f := range m.files {
		files = append(files, f)
	}
	m.mu.Unlock()
	var out []*flight
	for _, f := range files {
		f.mu.Lock()
		for _, fl := range f.flights {
			out = append(out, fl)
		}
		f.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b *flight) int { return int(a.name.Index - b.name.Index) })
	return out
}

// node is a manager behind a real range server, with a client, on a host.
type node struct {
	host   host.Host
	m      *Manager
	client *rangeread.Client
}

// newNode starts a node on a host; its filler is made for it.
func newNode(t testing.TB, h host.Host, filler func(*node) Filler, change func(*Config)) *node {
	t.Helper()
	n := &node{host: h}
	n.client = rangeread.NewClient(rangeread.ClientConfig{
		Host: h, Trusted: func(peer.ID) bool { return true },
		Silence: soon, // a loaded machine is not what is tested here
	})
	n.m = newManager(t, filler(n), func(c *Config) {
		c.Self, c.Key = h.ID(), h.Peerstore().PrivKey(h.ID())
		c.VerifySeal = n.client.VerifySeal
		if change != nil {
			change(c)
		}
	})
	srv := rangeread.NewServer(rangeread.ServerConfig{Host: h, Handler: n.m})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Run(ctx) })
	wg.Go(func() { _ = n.client.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	p2ptest.Eventually(t, soon, func() bool { return slices.Contains(h.Mux().Protocols(), rangeread.ProtocolID) }, "the server answers")
	return n
}

// scoresBelow reports whether a's score for a stripe is lower than b's, so that
// b lets a follow it when it follows another peer itself.
func scoresBelow(t testing.TB, a, b host.Host, stripe int64) bool {
	key := content.StripeKey(testTask(t).ID, stripe)
	score := func(h host.Host) float64 { return content.Score(key, content.Member{ID: h.ID(), Weight: 1}) }
	return score(a) < score(b)
}

// connectAll connects all nodes with one another.
func connectAll(t testing.TB, nodes ...*node) {
	t.Helper()
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			p2ptest.Connect(t, a.host, b.host)
		}
	}
}

func (n *node) id() peer.ID { return n.host.ID() }

// ask is a peer's request for a range of testURL.
func ask(t testing.TB, want content.Range) rangeread.Request {
	return rangeread.Request{
		Task: testTask(t).ID, Range: want, Origin: &rangeread.Origin{URL: testURL, Size: -1},
	}
}

// readPeer reads a range from a peer; the pieces that came are handed to see.
func (n *node) readPeer(ctx context.Context, from peer.ID, req rangeread.Request, see func(rangeread.Piece)) ([]byte, error) {
	body, err := n.client.Open(ctx, from, req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	var out []byte
	for {
		p, err := body.Next(nil)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, p.Data...)
		if see != nil {
			see(p)
		}
	}
}

// peerFiller fills from peers, one after another, and then from the origin.
type peerFiller struct {
	n      *node
	from   func(job *Job) []peer.ID
	origin Filler
	noFill bool
}

// Fill implements Filler.
func (p peerFiller) Fill(ctx context.Context, job *Job) error {
	err := fmt.Errorf("%w: no peers", ErrUnavailable)
	for _, id := range p.from(job) {
		for !job.Done() && !slices.Contains(job.Path, id) {
			if err = p.read(ctx, job, id); err != nil {
				break
			}
		}
		if job.Done() {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if p.origin == nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return p.origin.Fill(ctx, job)
}

func (p peerFiller) read(ctx context.Context, job *Job, id peer.ID) error {
	origin := job.Origin
	origin.Size = job.Size()
	req := rangeread.Request{
		Task: job.Task.ID, Generation: job.Expect, Range: job.Want(), Origin: &origin, NoFill: p.noFill,
		Path: append(slices.Clone(job.Path), p.n.id()), Skip: job.Skip,
	}
	if meta, known := job.Meta(); known {
		req.Generation = meta.Generation
	}
	job.AskPeer(id)
	body, err := p.n.client.Open(ctx, id, req)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := job.Begin(Found{Meta: body.Header.Meta}); err != nil {
		return err
	}
	for !job.Done() {
		var noMemory error
		piece, err := body.Next(func(_ int64, n int) []byte {
			var b []byte
			if b, noMemory = job.Buffer(ctx); len(b) >= n {
				return b[:n]
			}
			return make([]byte, n)
		})
		if err := errors.Join(noMemory, err); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := job.Verified(piece); err != nil {
			return err
		}
	}
	return nil
}
