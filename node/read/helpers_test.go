package read

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
	"github.com/p2pnode/p2pnode/seed/store"
)

const (
	// soon bounds the wait for what must happen.
	soon = 20 * time.Second
	// silence is when a source that says nothing is left.
	silence = 500 * time.Millisecond
)

// fakeMap names the same sources for all stripes.
type fakeMap struct {
	order []peer.ID // best first
	self  peer.ID
	seed  bool // this node is one of the task's seeds
	owner peer.ID
	// standIn asks the origin where no seed is left.
	standIn peer.ID
	// before, where set, runs before the n-th choice of sources, from 0 on.
	before func(n int)
	former []peer.ID
	// gateways read for this node's site, the first that is not dead.
	gateways []peer.ID
	// siteReader reads for this node's site while an owner there does not; near
	// are the seeds there that own nothing.
	siteReader peer.ID
	near       map[peer.ID]bool
	// pool are further members of it.
	pool []peer.ID

	changes atomic.Uint64

	mu      sync.Mutex
	stripes []int64
}

func (m *fakeMap) Sources(dst []Source, _ content.TaskID, stripe int64, _ bool, skip []peer.ID) []Source {
	m.mu.Lock()
	n := len(m.stripes)
	m.stripes = append(m.stripes, stripe)
	m.mu.Unlock()
	if m.before != nil {
		m.before(n)
	}
	for _, p := range m.order {
		if !slices.Contains(skip, p) {
			dst = append(dst, Source{Peer: p, Held: m.near[p]})
		}
	}
	return dst
}

func (m *fakeMap) Owner(_ content.TaskID, _ int64, _ bool, skip []peer.ID) (peer.ID, bool) {
	if m.owner != "" && !slices.Contains(skip, m.owner) {
		return m.owner, true
	}
	return "", false
}

func (m *fakeMap) Gateway(_ content.TaskID, _ int64, _ bool, skip []peer.ID) (peer.ID, bool) {
	for _, p := range m.gateways {
		if !slices.Contains(skip, p) {
			return p, true
		}
	}
	return "", false
}

func (m *fakeMap) SiteReader(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) {
	return m.siteReader, m.siteReader != ""
}

func (m *fakeMap) StandIn(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) {
	return m.standIn, m.standIn != ""
}

func (m *fakeMap) Previous(dst []peer.ID, _ content.TaskID, _ int64, _ bool, skip []peer.ID) []peer.ID {
	for _, p := range m.former { // each but the first where those before are in skip
		dst = append(dst, p)
		if !slices.Contains(skip, p) {
			break
		}
	}
	return dst
}

func (m *fakeMap) MayGrant(p peer.ID) bool {
	return p == m.standIn || slices.Contains(slices.Concat(m.order, m.gateways, m.pool), p)
}
func (m *fakeMap) IsSeed(content.TaskID) bool   { return m.seed }
func (m *fakeMap) Version() (epoch, seq uint64) { return 5, 6 + m.changes.Load() }

// fakeHealth counts what it is told; those in doubt it was given.
type fakeHealth struct {
	doubtful map[peer.ID]bool

	mu       sync.Mutex
	success  []peer.ID
	answered []time.Duration // after what time, each success
	failures []peer.ID
	wrong    int
	probes   int
}

func (h *fakeHealth) Success(p peer.ID, after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.success = append(h.success, p)
	h.answered = append(h.answered, after)
	delete(h.doubtful, p)
}

func (h *fakeHealth) Failure(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures = append(h.failures, p)
}

func (h *fakeHealth) Wrong(peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong++
	return h.wrong == 1
}

func (h *fakeHealth) Doubtful(p peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.doubtful[p]
}

func (h *fakeHealth) Probe(peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probes++
	return true
}

func (h *fakeHealth) failed() []peer.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.failures)
}

type fakeProviders struct {
	found []peer.ID
	near  []peer.ID // the neighbours

	mu    sync.Mutex
	looks int
	met   []peer.AddrInfo
}

func (p *fakeProviders) Met(info peer.AddrInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.met = append(p.met, info)
}

func (p *fakeProviders) Neighbours() []peer.ID { return slices.Clone(p.near) }

func (p *fakeProviders) Find(context.Context, content.TaskID) []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	return p.found
}

// source is a peer that has a whole file in memory, or does what serve says.
type source struct {
	host  host.Host
	key   crypto.PrivKey
	task  content.Task
	meta  content.Meta
	data  []byte
	seals []content.Seal
	trees [][]byte
	// serve, where set, answers the n-th request, from 0 on.
	serve func(ctx context.Context, n int, req rangeread.Request, a *rangeread.Answer) error

	mu   sync.Mutex
	reqs []rangeread.Request
}

func (s *source) id() peer.ID { return s.host.ID() }

func (s *source) name(i int64) content.BlockName {
	return content.BlockName{Task: s.task.ID, Generation: s.meta.Generation, FileSize: s.meta.Size, Index: i}
}

func (s *source) requests() []rangeread.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reqs)
}

// Serve implements rangeread.Handler.
func (s *source) Serve(ctx context.Context, _ peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	s.mu.Lock()
	n := len(s.reqs)
	s.reqs = append(s.reqs, req)
	s.mu.Unlock()
	if s.serve != nil {
		return s.serve(ctx, n, req, a)
	}
	return s.all(a)
}

// all sends the whole answer.
func (s *source) all(a *rangeread.Answer) error { return s.upTo(a, s.meta.Size, nil) }

// upTo sends header and bytes up to byte end, on a leaf's edge, changed by
// tamper.
func (s *source) upTo(a *rangeread.Answer, end int64, tamper func(p []byte, off int64)) error {
	r, err := a.Header(rangeread.Header{Meta: s.meta, Source: rangeread.SourceStore})
	if err != nil {
		return err
	}
	first, last := content.BlockSpan(r.Intersect(content.Range{Len: end}))
	for i := first; i < last && a.Pos() < min(end, r.End()); i++ {
		err := a.Complete(i, min(r.End(), end), s.seals[i], s.trees[i], func(p []byte, off int64) error {
			copy(p, s.data[off:])
			if tamper != nil {
				tamper(p, off)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// halts sends the first n bytes, on a leaf's edge, and then says nothing any more.
func (s *source) halts(ctx context.Context, a *rangeread.Answer, n int64) error {
	if err := errors.Join(s.upTo(a, n, nil), a.Flush()); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// status answers everything with an error.
func (s *source) status(st rangeread.Status) {
	s.serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		return rangeread.NewError(st, "scripted")
	}
}

// world is one node with a filler under test, an origin, and scripted peers.
type world struct {
	t         *testing.T
	host      host.Host
	m         *seed.Manager
	filler    *Filler
	seeds     *fakeMap
	health    *fakeHealth
	providers *fakeProviders
	origin    *p2ptest.Origin
	disk      store.Store
	url       string
	task      content.Task
	data      []byte
	sources   []*source
	job       atomic.Pointer[seed.Job] // the last that was begun
	expect    content.Generation       // that askers ask for
}

// Fill implements seed.Filler: the filler's own, which the test may see the jobs of.
func (w *world) Fill(ctx context.Context, job *seed.Job) error {
	w.job.Store(job)
	return w.filler.Fill(ctx, job)
}

const path = "/file"

// newWorld makes a world with a file of size bytes, which n sources have, in
// the order of the map. change may change the configurations.
func newWorld(t *testing.T, size, n int, change func(w *world, f *FillerConfig, m *seed.Config)) *world {
	t.Helper()
	w := &world{
		t: t, origin: p2ptest.NewOrigin(t), data: p2ptest.Bytes(9, size),
		seeds: &fakeMap{}, health: &fakeHealth{doubtful: map[peer.ID]bool{}}, providers: &fakeProviders{},
	}
	w.url = w.origin.Add(path, w.data)
	var err error
	if w.task, err = content.NewTask(w.url, content.Filter{}); err != nil {
		t.Fatal(err)
	}
	policy, err := origin.NewPolicy([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	client := origin.New(origin.Config{Policy: policy})
	t.Cleanup(client.CloseIdle)
	hosts := p2ptest.Hosts(t, n+1)
	w.host = hosts[0]
	w.seeds.self = w.host.ID()
	for _, h := range hosts[1:] {
		w.addSource(client, h)
		w.seeds.order = append(w.seeds.order, h.ID())
	}
	ranges := rangeread.NewClient(rangeread.ClientConfig{Host: w.host, Trusted: func(peer.ID) bool { return true }, Silence: silence})
	w.run(ranges.Run)
	fc := FillerConfig{
		Self: w.host.ID(), Client: ranges, Origin: client, Map: w.seeds, Health: w.health, Providers: w.providers, Seed: true,
	}
	mc := seed.Config{
		Self: w.host.ID(), Key: w.host.Peerstore().PrivKey(w.host.ID()), Store: store.NewMemory(0), VerifySeal: ranges.VerifySeal, Seed: true,
	}
	if change != nil {
		change(w, &fc, &mc)
	}
	w.filler = NewFiller(fc)
	w.run(w.filler.Run)
	mc.Filler = w
	w.disk = mc.Store
	w.m = seed.New(mc)
	t.Cleanup(func() { _ = w.m.Close() })
	return w
}

// run runs something until the test ends.
func (w *world) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f(ctx) })
	w.t.Cleanup(func() { cancel(); wg.Wait() })
}

// addSource makes a scripted peer that has the file.
func (w *world) addSource(client *origin.Client, h host.Host) {
	w.t.Helper()
	s := &source{host: h, key: h.Peerstore().PrivKey(h.ID()), task: w.task, data: w.data}
	resp, err := client.Head(w.t.Context(), origin.Request{URL: w.url})
	if err != nil {
		w.t.Fatal(err)
	}
	w.origin.Reset()
	s.meta = resp.Meta
	for i := range s.meta.Layout().Blocks() {
		b := s.meta.Layout().Block(i)
		tree, root := content.Outboard(w.data[b.Off:b.End()])
		seal, err := content.SealBlock(s.key, s.id(), s.name(i), root)
		if err != nil {
			w.t.Fatal(err)
		}
		s.seals, s.trees = append(s.seals, seal), append(s.trees, tree)
	}
	w.run(rangeread.NewServer(rangeread.ServerConfig{Host: h, Handler: s}).Run)
	p2ptest.Connect(w.t, w.host, h)
	w.sources = append(w.sources, s)
}

func (w *world) request(want content.Range) seed.Request {
	return seed.Request{Task: w.task, Origin: rangeread.Origin{URL: w.url, Size: -1}, Want: want}
}

func (w *world) all() content.Range { return content.Range{Len: int64(len(w.data))} }

// read reads a range as a client does.
func (w *world) read(r content.Range) ([]byte, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	f, err := w.m.Open(ctx, w.request(r))
	if err != nil {
		return nil, err
	}
	file := NewFile(f)
	defer func() { _ = file.Close() }()
	var out bytes.Buffer
	_, err = file.Copy(ctx, &out, r)
	return out.Bytes(), err
}

// mustRead reads a range and compares it.
func (w *world) mustRead(r content.Range) {
	w.t.Helper()
	got, err := w.read(r)
	if err != nil {
		w.t.Fatalf("read %s: %v", r, err)
	}
	if !bytes.Equal(got, w.data[r.Off:r.End()]) {
		w.t.Fatalf("read %s: wrong bytes", r)
	}
}

// stored waits until so many blocks are stored.
func (w *world) stored(blocks int64) {
	w.t.Helper()
	p2ptest.Eventually(w.t, soon, func() bool {
		held := w.m.Files()
		return len(held) == 1 && held[0].Blocks == blocks
	}, blocks, " blocks are stored")
}

// asked returns how many requests each source got.
func (w *world) asked() string {
	var n []int
	for _, s := range w.sources {
		n = append(n, len(s.requests()))
	}
	return fmt.Sprint(n)
}

// below reports whether a host's score for a stripe is below that of the node
// under test.
func (w *world) below(h host.Host, stripe int64) bool {
	key := content.StripeKey(w.task.ID, stripe)
	score := func(h host.Host) float64 { return content.Score(key, content.Member{ID: h.ID(), Weight: 1}) }
	return score(h) < score(w.host)
}

// asker returns a function that asks the node under test, which serves peers
// from now on, for the first bytes of a range as the peer s.
func (w *world) asker(s *source) func(want content.Range, path ...peer.ID) error {
	w.run(rangeread.NewServer(rangeread.ServerConfig{Host: w.host, Handler: w.m}).Run)
	p2ptest.Eventually(w.t, soon, func() bool { return slices.Contains(w.host.Mux().Protocols(), rangeread.ProtocolID) }, "the server answers")
	client := rangeread.NewClient(rangeread.ClientConfig{Host: s.host, Trusted: func(peer.ID) bool { return true }})
	w.run(client.Run)
	return func(want content.Range, path ...peer.ID) error {
		body, err := client.Open(w.t.Context(), w.host.ID(), rangeread.Request{
			Task: w.task.ID, Generation: w.expect, Path: path, Range: want, Origin: &rangeread.Origin{URL: w.url, Size: int64(len(w.data))},
		})
		if err != nil {
			return err
		}
		_, err = body.Next(nil)
		return errors.Join(err, body.Close())
	}
}

// wantAsked checks how many requests each source, and the origin, got.
func (w *world) wantAsked(sources string, origin int) {
	w.t.Helper()
	if got := w.asked(); got != sources {
		w.t.Errorf("sources were asked %s times, want %s", got, sources)
	}
	if n := w.origin.Requests(path); n != origin {
		w.t.Errorf("the origin was asked %d times, want %d", n, origin)
	}
}

// wantError checks that a read fails with an error of the origin.
func (w *world) wantOriginError(err error, status int) {
	w.t.Helper()
	var refused *seed.OriginError
	if !errors.As(err, &refused) || refused.Status != status {
		w.t.Errorf("%v, want the origin's %d", err, status)
	}
}
