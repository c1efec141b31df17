package prefetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/store"
)

// origin is a seed.Filler that has one file.
type origin struct {
	mu    sync.Mutex
	data  []byte
	etag  string
	err   error // instead of an answer
	asked int
	// begun, where set, runs between what the file is and its first byte.
	begun func()
}

func (o *origin) state() (data []byte, etag string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	return o.data, o.etag, o.err
}

func (o *origin) set(data []byte, etag string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data, o.etag, o.err = data, etag, err
}

func (o *origin) Fill(ctx context.Context, job *seed.Job) error {
	data, etag, err := o.state()
	if err != nil {
		return err
	}
	meta := content.Meta{Size: int64(len(data)), ETag: etag}
	meta.Generation, _ = content.NewGeneration(etag, "", meta.Size)
	job.AskOrigin()
	if err := job.Begin(seed.Found{Meta: meta, CacheControl: "max-age=3600"}); err != nil {
		return err
	}
	if o.begun != nil {
		o.begun()
	}
	for !job.Done() {
		buf, err := job.Buffer(ctx)
		if err != nil {
			return err
		}
		if err := job.Advance(copy(buf, data[job.Pos():])); err != nil {
			return err
		}
	}
	return nil
}

// seeds is the map and the peers that it names: the stripes of a file belong to
// them in turn.
type seeds struct {
	ids []peer.ID

	mu     sync.Mutex
	fail   map[peer.ID]error
	once   map[peer.ID]error // the first time alone
	from   rangeread.Source
	asked  []rangeread.Request
	by     []peer.ID
	health []string
}

func (s *seeds) Owner(_ content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool) {
	if sequential {
		stripe = 0
	}
	for i := range s.ids {
		if id := s.ids[(int(stripe)+i)%len(s.ids)]; !slices.Contains(skip, id) {
			return id, true
		}
	}
	return "", false
}

func (s *seeds) Version() (epoch, seq uint64) { return 7, 8 }

func (s *seeds) MayGrant(p peer.ID) bool { return p != "former" }

func (s *seeds) Fill(_ context.Context, p peer.ID, req rangeread.Request) (rangeread.Header, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.by = append(s.asked, req), append(s.by, p)
	if err := s.once[p]; err != nil {
		delete(s.once, p)
		return rangeread.Header{}, err
	}
	return rangeread.Header{Source: s.from}, s.fail[p]
}

func (s *seeds) Success(p peer.ID, _ time.Duration) { s.note("+" + string(p)) }
func (s *seeds) Failure(p peer.ID)                  { s.note("-" + string(p)) }
func (s *seeds) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = append(s.health, text)
}

// rig is a Prefetcher with all that is around it.
type rig struct {
	*Prefetcher
	t      *testing.T
	self   peer.ID
	origin *origin
	seeds  *seeds
	files  *seed.Manager
	store  *store.Memory
}

const (
	mib     = content.BlockSize
	fileURL = "http://origin.test/file"
)

func newRig(t *testing.T, size int, seedIDs ...peer.ID) *rig {
	t.Helper()
	return newRigWith(t, size, func(*seed.Config) {}, seedIDs...)
}

func newRigWith(t *testing.T, size int, change func(*seed.Config), seedIDs ...peer.ID) *rig {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	key, self := p2ptest.Key(t)
	r := &rig{
		t: t, self: self, store: store.NewMemory(64 << 20), seeds: &seeds{ids: seedIDs},
		origin: &origin{data: p2ptest.Bytes(3, size), etag: `"1"`},
	}
	cfg := seed.Config{
		Self: self, Key: key, Store: r.store, Filler: r.origin, Spool: t.TempDir(),
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
	}
	change(&cfg)
	r.files = seed.New(cfg)
	t.Cleanup(func() { _ = r.files.Close() })
	r.Prefetcher = New(Config{Self: self, Files: r.files, Map: r.seeds, Peers: r.seeds, Health: r.seeds})
	return r
}

// count wants so many blocks of the file to be held.
func (r *rig) count(want int64) {
	r.t.Helper()
	var n int64
	for f := range r.store.Files() {
		n += f.Count()
	}
	if n != want {
		r.t.Errorf("%d blocks are held, want %d", n, want)
	}
}

func TestFetchParts(t *testing.T) {
	for _, c := range []struct {
		off, n int64
		blocks int64
		wrong  bool
	}{
		{0, -1, 4, false},
		{0, 1, 1, false},
		{mib - 1, 2, 2, false},
		{3 * mib, -1, 1, false},
		{-1, -1, 1, false},
		{-mib - 100, -1, 2, false},
		{-100 * mib, -1, 4, false},
		{3*mib + 99, 1 << 40, 1, false},
		{3*mib + 100, -1, 0, true},
		{4 * mib, 1, 0, true},
	} {
		t.Run(fmt.Sprintf("%d+%d", c.off, c.n), func(t *testing.T) {
			r := newRig(t, 3*mib+100)
			var last, total int64
			got, err := r.Fetch(t.Context(), Request{URL: fileURL + "#there", Off: c.off, Len: c.n}, func(done, sum int64) { last, total = done, sum })
			var behind *seed.RangeError
			if c.wrong != errors.As(err, &behind) || !c.wrong && err != nil {
				t.Fatalf("error %v", err)
			}
			if got.Local+got.Peer != 0 || got.Origin != last || last != total {
				t.Errorf("%+v; progress ended at %d of %d", got, last, total)
			}
			if !c.wrong {
				r.count(c.blocks)
			}
		})
	}
}

func TestFetchEmptyAndBad(t *testing.T) {
	r := newRig(t, 0)
	if got, err := r.Fetch(t.Context(), Request{URL: fileURL, Len: -1}, nil); err != nil || got != (Result{}) {
		t.Errorf("empty file: %+v, %v", got, err)
	}
	if _, err := r.Fetch(t.Context(), Request{URL: "ftp://origin.test/", Len: -1}, nil); !errors.Is(err, content.ErrURL) {
		t.Errorf("bad URL: %v", err)
	}
	refused := newRig(t, 1)
	refused.origin.set(nil, "", &seed.OriginError{Status: 404})
	var origin *seed.OriginError
	if _, err := refused.Fetch(t.Context(), Request{URL: fileURL, Len: -1}, nil); !errors.As(err, &origin) {
		t.Errorf("the origin says 404: %v", err)
	}
}

func TestSpread(t *testing.T) {
	r := newRig(t, 6*mib, "a", "b")
	r.seeds.from = rangeread.SourceOrigin
	var last int64
	got, err := r.Fetch(t.Context(), Request{URL: fileURL, Off: mib + 5, Len: 3*mib - 10, Seeds: true}, func(done, total int64) {
		if total != 3*mib || done != last+mib {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || got != (Result{Origin: 3 * mib}) || last != 3*mib {
		t.Errorf("%+v, %v", got, err)
	}
	r.count(0)
	if len(r.seeds.asked) != 3 {
		t.Fatalf("%d requests", len(r.seeds.asked))
	}
	for i, req := range r.seeds.asked {
		stripe := req.Range.Off / mib
		if want := r.seeds.ids[stripe%2]; r.seeds.by[i] != want {
			t.Errorf("stripe %d: asked %s, want %s", stripe, r.seeds.by[i], want)
		}
		if req.Range.Len != mib || stripe < 1 || stripe > 3 {
			t.Errorf("range %v", req.Range)
		}
		if req.Origin == nil || req.Origin.URL != fileURL || req.Origin.Size != 6*mib || req.Epoch != 7 || req.Seq != 8 || req.Generation.IsZero() ||
			!slices.Equal(req.Path, []peer.ID{r.self}) {
			t.Errorf("request %+v", req)
		}
	}
	r.seeds.from = rangeread.SourceStore
	if got, err := r.Fetch(t.Context(), Request{URL: fileURL, Len: -1, Seeds: true}, nil); err != nil || got != (Result{Local: 6 * mib}) {
		t.Errorf("held by the seeds: %+v, %v", got, err)
	}
}

// TestSpreadToSelf: a node that is a seed brings in its own stripes itself.
func TestSpreadToSelf(t *testing.T) {
	r := newRig(t, 4*mib, "a")
	r.seeds.ids = append(r.seeds.ids, r.self)
	r.seeds.from = rangeread.SourcePeer
	got, err := r.Fetch(t.Context(), Request{URL: fileURL, Len: -1, Seeds: true}, nil)
	if err != nil || got != (Result{Origin: 2 * mib, Peer: 2 * mib}) {
		t.Errorf("%+v, %v", got, err)
	}
	r.count(2)
}

func TestSpreadFailures(t *testing.T) {
	lost := errors.New("connection lost")
	status := func(s rangeread.Status) error { return &rangeread.Error{Status: s, Size: -1} }
	for _, c := range []struct {
		name string
		fail map[peer.ID]error
		once map[peer.ID]error
		want error // nil: done
		by   string
		says string
	}{
		{"the owner is gone", map[peer.ID]error{"a": lost}, nil, nil, "ab", "-a+b"},
		{"it does not hold it and will not fill", map[peer.ID]error{"a": status(rangeread.StatusNotFound)}, nil, nil, "ab", "+b"},
		{"it is busy", nil, map[peer.ID]error{"a": status(rangeread.StatusBusy)}, nil, "aa", "+a"},
		{"all are gone", map[peer.ID]error{"a": lost, "b": lost}, nil, lost, "ab", "-a-b"},
		{"the origin refuses", map[peer.ID]error{"a": &rangeread.Error{Status: rangeread.StatusOriginError, OriginStatus: 404}}, nil,
			&seed.OriginError{Status: 404}, "a", ""},
		{"it may not be carried", map[peer.ID]error{"a": status(rangeread.StatusNotSupported)}, nil, seed.ErrNotSupported, "a", ""},
		{"it has changed again and again", map[peer.ID]error{"a": status(rangeread.StatusChanged)}, nil, seed.ErrChanged, "aaa", ""},
		{"it has changed", nil, map[peer.ID]error{"a": status(rangeread.StatusChanged)}, nil, "aa", "+a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, mib, "a", "b")
			r.seeds.fail, r.seeds.once = c.fail, c.once
			_, err := r.Fetch(t.Context(), Request{URL: fileURL, Len: -1, Seeds: true}, nil)
			var got, want *seed.OriginError
			if errors.As(c.want, &want) {
				if !errors.As(err, &got) || got.Status != want.Status {
					t.Errorf("error %v, want %v", err, c.want)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			by := ""
			for _, id := range r.seeds.by {
				by += string(id)
			}
			if by != c.by || strings.Join(r.seeds.health, "") != c.says {
				t.Errorf("asked %s, want %s; health %v, want %s", by, c.by, r.seeds.health, c.says)
			}
			if by == "ab" && !slices.Equal(r.seeds.asked[1].Skip, []peer.ID{"a"}) {
				t.Errorf("the second was told to skip %v", r.seeds.asked[1].Skip)
			}
		})
	}
	none := newRig(t, mib)
	if _, err := none.Fetch(t.Context(), Request{URL: fileURL, Len: -1, Seeds: true}, nil); !errors.Is(err, seed.ErrUnavailable) || !strings.Contains(err.Error(), "no seeds are known") {
		t.Errorf("no pool: %v", err)
	}
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// untouched is a body that must not be read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestImport(t *testing.T) {
	data := p2ptest.Bytes(3, 2*mib+5)
	down := &seed.OriginError{Detail: "connection refused"}
	for _, c := range []struct {
		name   string
		url    string
		err    error // of the origin
		change func(*Import)
		etag   string // that it then has
		wrong  string // what the error says, "" where it succeeds
		early  bool   // it fails before the body is read
	}{
		{name: "the origin says what it is", etag: `"1"`},
		{name: "and the caller too", etag: `"1"`, change: func(i *Import) { i.ETag = "1" }},
		{name: "but the caller says otherwise", change: func(i *Import) { i.ETag = `"2"` }, wrong: "another version", early: true},
		{name: "its digest is right", etag: `"1"`, change: func(i *Import) { i.Digest = strings.ToUpper(digestOf(data)) }},
		{name: "its digest is wrong", change: func(i *Import) { i.Digest = digestOf(nil) }, wrong: "does not match its digest"},
		{name: "its digest is none", change: func(i *Import) { i.Digest = "md5:00" }, wrong: "digest", early: true},
		{name: "another size", change: func(i *Import) { i.Size-- }, wrong: "2097156 bytes are given", early: true},
		{name: "origin down", err: down, wrong: "give its ETag", early: true},
		{name: "nobody there", err: seed.ErrUnavailable, wrong: "give its ETag", early: true},
		{name: "origin down, ETag given", err: down, etag: `"x"`, change: func(i *Import) { i.ETag = `"x"` }},
		{name: "origin fails, ETag given", err: &seed.OriginError{Status: 503}, etag: `"x"`, change: func(i *Import) { i.ETag = "x" }},
		{name: "origin down, Last-Modified given", err: down, change: func(i *Import) { i.LastModified = "Fri, 02 Jan 2026 03:04:05 GMT" }},
		{name: "origin down, an ETag that is no UTF-8", err: down, change: func(i *Import) { i.ETag = "\xff" }, wrong: "UTF-8", early: true},
		{name: "origin down, an ETag that fits no message", err: down, change: func(i *Import) { i.ETag = strings.Repeat("a", content.MaxFields) }, wrong: "at most", early: true},
		{name: "origin down, a weak ETag", err: down, change: func(i *Import) { i.ETag = `W/"x"` }, wrong: "not a strong one", early: true},
		{name: "origin down, no date", err: down, change: func(i *Import) { i.LastModified = "yesterday" }, wrong: "Last-Modified", early: true},
		{name: "origin refuses, ETag given", err: &seed.OriginError{Status: 404}, change: func(i *Import) { i.ETag = "x" }, wrong: "404", early: true},
		{name: "not to be cached, ETag given", err: seed.ErrNotSupported, change: func(i *Import) { i.ETag = "x" }, wrong: "does not carry", early: true},
		{name: "a digest task, origin down", err: down, url: "http://origin.test/v2/x/blobs/" + digestOf(data)},
		{name: "a digest task of other bytes", url: "http://origin.test/v2/x/blobs/" + digestOf(nil), wrong: "does not match its digest"},
		{name: "a bad URL", url: "file:///x", wrong: "neither http", early: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, len(data))
			r.origin.set(data, `"1"`, c.err)
			in := Import{URL: fileURL, Size: int64(len(data)), Body: bytes.NewReader(data)}
			if c.url != "" {
				in.URL = c.url
			}
			if c.change != nil {
				c.change(&in)
			}
			if c.early {
				in.Body = untouched{t}
			}
			var last, total int64
			got, err := r.Import(t.Context(), in, func(done, sum int64) { last, total = done, sum })
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("error %v, want one that says %q", err, c.wrong)
				}
				r.count(0)
				return
			}
			if err != nil || got != (Result{Imported: int64(len(data))}) || last != int64(len(data)) || total != last {
				t.Errorf("%+v, %v; progress ended at %d of %d", got, err, last, total)
			}
			r.count(3)
			for f := range r.store.Files() {
				if f.Info().ETag != c.etag && c.url == "" {
					t.Errorf("ETag %q, want %q", f.Info().ETag, c.etag)
				}
			}
			again := in
			again.Body = bytes.NewReader(data)
			if got, err := r.Import(t.Context(), again, nil); err != nil || got != (Result{Local: int64(len(data))}) {
				t.Errorf("again: %+v, %v", got, err)
			}
		})
	}
}
