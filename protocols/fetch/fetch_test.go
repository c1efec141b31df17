package fetch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	assignmentpb "github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/fetch/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

const wait = 20 * time.Second

func testKey(t testing.TB, n byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// sign returns updates 1 to n of a supernode, each with a URL of so many bytes.
func sign(t testing.TB, supernode byte, n, url int) []assignment.Signed {
	t.Helper()
	key, _ := testKey(t, supernode)
	var out []assignment.Signed
	for seq := range uint64(n) {
		s, err := assignment.Sign(key, assignment.Update{
			Cursor:  assignment.Cursor{Epoch: 5, Seq: seq + 1},
			Assigns: []assignment.Assign{{Task: content.TaskID{byte(seq)}, URL: strings.Repeat("u", url), Size: -1, Lease: time.Minute}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// memory is a Log over a slice.
type memory struct {
	entries []assignment.Signed
	mu      sync.Mutex
	// mu guards the following.
	asked  [][]assignment.Cursor
	wanted []*content.Prefixes
}

func (m *memory) Since(cursors []assignment.Cursor, want *content.Prefixes, maxBytes int) (out []assignment.Signed, more bool) {
	m.mu.Lock()
	m.asked, m.wanted = append(m.asked, cursors), append(m.wanted, want)
	m.mu.Unlock()
	for _, e := range m.entries {
		c, err := e.Cursor()
		if err != nil {
			continue
		}
		known := slices.ContainsFunc(cursors, func(o assignment.Cursor) bool { return o.Supernode == c.Supernode && c.Compare(o) <= 0 })
		if known {
			continue
		}
		if maxBytes -= e.Size(); maxBytes < 0 {
			return out, true
		}
		out = append(out, e)
	}
	return out, false
}

// logFunc is a Log of one function.
type logFunc func([]assignment.Cursor, *content.Prefixes, int) ([]assignment.Signed, bool)

func (f logFunc) Since(c []assignment.Cursor, want *content.Prefixes, n int) ([]assignment.Signed, bool) {
	return f(c, want, n)
}

func serve(t *testing.T, h host.Host, log Log, cfg ServerConfig) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(h, log, cfg).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(h.Mux().Protocols(), Protocol) }, "server up")
}

func TestSinceOverManyPages(t *testing.T) {
	a, b := p2ptest.Pair(t)
	log := &memory{entries: slices.Concat(sign(t, 1, 100, 4000), sign(t, 2, 300, 100))}
	serve(t, b, log, ServerConfig{})
	_, first := testKey(t, 1)
	_, second := testKey(t, 2)
	c := NewClient(a, ClientConfig{})
	for _, x := range []struct {
		name    string
		cursors []assignment.Cursor
		want    []assignment.Signed
		pages   int
	}{
		{"everything", nil, log.entries, 8},
		{"one behind", []assignment.Cursor{{Supernode: first, Epoch: 5, Seq: 99}, {Supernode: second, Epoch: 5, Seq: 300}}, log.entries[99:100], 1},
		{"one supernode known", []assignment.Cursor{{Supernode: first, Epoch: 5, Seq: 100}}, log.entries[100:], 2},
		{"all of an older epoch", []assignment.Cursor{{Supernode: first, Epoch: 4, Seq: 999}, {Supernode: second, Epoch: 6}}, log.entries[:100], 7},
		{"nothing", []assignment.Cursor{{Supernode: first, Epoch: 6}, {Supernode: second, Epoch: 6}}, nil, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			log.asked = nil
			before := slices.Clone(x.cursors)
			got, complete, err := c.Since(t.Context(), b.ID(), x.cursors, nil)
			if err != nil || !complete {
				t.Fatalf("complete %v, err %v", complete, err)
			}
			if !reflect.DeepEqual(got, x.want) {
				t.Errorf("%d entries, want %d", len(got), len(x.want))
			}
			if len(log.asked) != x.pages || !slices.Equal(log.asked[0], before) || !slices.Equal(x.cursors, before) {
				t.Errorf("%d pages, want %d; asked first %v", len(log.asked), x.pages, log.asked[0])
			}
			for _, e := range got {
				if _, err := e.Open(func(peer.ID) bool { return true }); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What is wanted is asked for with each page.
func TestSinceNamesTasks(t *testing.T) {
	a, b := p2ptest.Pair(t)
	log := &memory{entries: sign(t, 1, 40, 4000)}
	serve(t, b, log, ServerConfig{})
	for _, want := range []*content.Prefixes{nil, {}, {5: 3}} {
		log.wanted = nil
		if _, complete, err := NewClient(a, ClientConfig{}).Since(t.Context(), b.ID(), nil, want); err != nil || !complete {
			t.Fatalf("complete %v, err %v", complete, err)
		}
		if len(log.wanted) != 3 || slices.ContainsFunc(log.wanted, func(p *content.Prefixes) bool { return !content.SamePrefixes(p, want) }) {
			t.Errorf("%v was asked for as %v", want, log.wanted)
		}
	}
}

// A log that gives more than it was asked for costs a page, not the answer.
func TestServerCutsPagesThatAreTooLarge(t *testing.T) {
	a, b := p2ptest.Pair(t)
	log := &memory{entries: sign(t, 1, 3000, 0)}
	serve(t, b, logFunc(func(c []assignment.Cursor, want *content.Prefixes, _ int) ([]assignment.Signed, bool) {
		return log.Since(c, want, 1<<30)
	}), ServerConfig{})
	got, complete, err := NewClient(a, ClientConfig{}).Since(t.Context(), b.ID(), nil, nil)
	if err != nil || !complete || len(got) != 3000 {
		t.Errorf("%d entries, complete %v, err %v", len(got), complete, err)
	}
}

func TestClientStopsWithoutProgress(t *testing.T) {
	a, b := p2ptest.Pair(t)
	entries := sign(t, 1, 1, 0)
	serve(t, b, logFunc(func([]assignment.Cursor, *content.Prefixes, int) ([]assignment.Signed, bool) { return entries, true }), ServerConfig{})
	got, complete, err := NewClient(a, ClientConfig{}).Since(t.Context(), b.ID(), nil, nil)
	if !errors.Is(err, ErrNoProgress) || complete || len(got) != 1 {
		t.Errorf("%d entries, complete %v, err %v", len(got), complete, err)
	}
}

func TestClientIsBounded(t *testing.T) {
	a, b := p2ptest.Pair(t)
	key, _ := testKey(t, 1)
	var seq uint64
	serve(t, b, logFunc(func(_ []assignment.Cursor, _ *content.Prefixes, room int) (out []assignment.Signed, _ bool) {
		for {
			seq++
			s, err := assignment.Sign(key, assignment.Update{
				Cursor:  assignment.Cursor{Epoch: 5, Seq: seq},
				Assigns: []assignment.Assign{{URL: strings.Repeat("u", 8<<10), Size: -1}},
			})
			if room -= s.Size(); err != nil || room < 0 {
				return out, true
			}
			out = append(out, s)
		}
	}), ServerConfig{})
	c := NewClient(a, ClientConfig{})
	c.maxBytes = 1 << 20
	got, complete, err := c.Since(t.Context(), b.ID(), nil, nil)
	sum := 0
	for _, e := range got {
		sum += e.Size()
	}
	if err != nil || complete || sum < c.maxBytes || sum > c.maxBytes+maxPage {
		t.Errorf("%d bytes, complete %v, err %v", sum, complete, err)
	}
}

func TestClientRefusesBadPages(t *testing.T) {
	for _, c := range []struct {
		name string
		page *pb.Page
		want error
	}{
		{"of another request", &pb.Page{Seq: 2}, frame.ErrMalformed},
		{"bad entry", &pb.Page{Seq: 1, Signed: append(assignment.Encode(sign(t, 1, 1, 0)), &assignmentpb.Signed{})}, frame.ErrMalformed},
		{"too many entries", &pb.Page{Seq: 1, Signed: slices.Repeat(assignment.Encode([]assignment.Signed{{}}), maxEntries+1)}, frame.ErrMalformed},
		{"oversized", &pb.Page{Seq: 1, Signed: slices.Repeat(assignment.Encode(sign(t, 1, 1, 8000)), 9)}, frame.ErrTooLarge},
		{"none", nil, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := p2ptest.Pair(t)
			b.SetStreamHandler(Protocol, func(st network.Stream) {
				_ = frame.NewReader(st, maxRequest).Read(&pb.Request{})
				if c.page != nil {
					_ = frame.NewWriter(st, 1<<20).Write(c.page)
				}
				_ = st.Close()
			})
			got, complete, err := NewClient(a, ClientConfig{}).Since(t.Context(), b.ID(), nil, nil)
			if !errors.Is(err, c.want) || complete || len(got) != 0 {
				t.Errorf("%d entries, complete %v, err %v, want %v", len(got), complete, err, c.want)
			}
		})
	}
}

func TestSlowServer(t *testing.T) {
	a, b := p2ptest.Pair(t)
	b.SetStreamHandler(Protocol, func(st network.Stream) { _, _ = io.Copy(io.Discard, st) })
	_, _, err := NewClient(a, ClientConfig{Timeout: 30 * time.Millisecond}).Since(t.Context(), b.ID(), nil, nil)
	if err == nil {
		t.Error("no error from a server that is silent")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, _, err := NewClient(a, ClientConfig{}).Since(ctx, b.ID(), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err %v", err)
	}
}

func raw(t *testing.T, from host.Host, to peer.ID) network.Stream {
	t.Helper()
	st, err := from.NewStream(t.Context(), to, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	return st
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := frame.NewWriter(&b, 1<<20).Write(m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestServerResetsBadStreams(t *testing.T) {
	_, id := testKey(t, 1)
	twice := []assignment.Cursor{{Supernode: id}, {Supernode: id}}
	good := encoded(t, requestToProto(1, twice[:1], nil))
	for _, c := range []struct {
		name    string
		in      []byte
		counter string
	}{
		{"oversized", encoded(t, &pb.Request{Cursors: []*pb.Cursor{{Supernode: make([]byte, maxRequest)}}}), "oversized_total"},
		{"garbage", []byte{3, 0xff, 0xff, 0xff}, "malformed_total"},
		{"wrong number", encoded(t, requestToProto(2, nil, nil)), "malformed_total"},
		{"number repeated", slices.Concat(good, good), "malformed_total"},
		{"supernode twice", encoded(t, requestToProto(1, twice, nil)), "malformed_total"},
		{"no supernode", encoded(t, requestToProto(1, make([]assignment.Cursor, 1), nil)), "malformed_total"},
		{"too many cursors", encoded(t, requestToProto(1, make([]assignment.Cursor, maxCursors+1), nil)), "malformed_total"},
		{"prefixes cut short", encoded(t, &pb.Request{Seq: 1, Prefixes: make([]byte, 31)}), "malformed_total"},
		{"truncated", good[:len(good)-1], "failed_streams_total"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := p2ptest.Pair(t)
			reg := prometheus.NewRegistry()
			serve(t, b, &memory{}, ServerConfig{Registerer: reg})
			st := raw(t, a, b.ID())
			_, _ = st.Write(c.in) // may be reset before all of it is written
			_ = st.CloseWrite()
			if _, err := io.Copy(io.Discard, st); err == nil {
				t.Error("stream was closed, want a reset")
			}
			if got := frametest.Count(t, reg, "p2pnode_fetch_"+c.counter); got != 1 {
				t.Errorf("%s is %v", c.counter, got)
			}
			if _, complete, err := NewClient(a, ClientConfig{}).Since(t.Context(), b.ID(), nil, nil); err != nil || !complete {
				t.Errorf("next fetch: complete %v, err %v", complete, err)
			}
		})
	}
}

// A peer that does not read its pages, and one that does not ask, hold their
// places only until the deadline.
func TestServerEndsSlowStreams(t *testing.T) {
	a, b := p2ptest.Pair(t)
	reg := prometheus.NewRegistry()
	serve(t, b, &memory{}, ServerConfig{Timeout: 30 * time.Millisecond, Registerer: reg})
	for range DefaultLimits.StreamsPerPeer + 1 {
		if _, err := raw(t, a, b.ID()).Write([]byte{200}); err != nil {
			t.Fatal(err)
		}
	}
	p2ptest.Eventually(t, wait, func() bool {
		return frametest.Count(t, reg, "p2pnode_fetch_refused_streams_total") == 1 &&
			frametest.Count(t, reg, "p2pnode_fetch_failed_streams_total") == float64(DefaultLimits.StreamsPerPeer)
	}, "one refused, the others ended")
}

func TestVectors(t *testing.T) {
	_, id := testKey(t, 1)
	frametest.Check(t, []frametest.Vector{
		{Name: "request", Bytes: encoded(t, requestToProto(3, []assignment.Cursor{{Supernode: id, Epoch: 5, Seq: 7}}, nil))},
		{Name: "request-prefixes", Bytes: encoded(t, requestToProto(1, nil, &content.Prefixes{1, 31: 128}))},
		{Name: "request-everything", Bytes: encoded(t, requestToProto(1, nil, nil))},
		{Name: "page", Bytes: encoded(t, pageToProto(3, sign(t, 1, 2, 20), true))},
		{Name: "page-empty", Bytes: encoded(t, pageToProto(1, nil, false))},
	})
}

func FuzzRequest(f *testing.F) {
	for _, v := range frametest.Read(f) {
		f.Add(v.Bytes)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Request
		if frame.NewReader(bytes.NewReader(raw), maxRequest).Read(&m) != nil {
			return
		}
		cursors, want, err := requestFromProto(&m)
		if err != nil {
			return
		}
		again, same, err := requestFromProto(requestToProto(m.GetSeq(), cursors, want))
		if err != nil || !reflect.DeepEqual(cursors, again) || !content.SamePrefixes(want, same) {
			t.Fatalf("err %v, decoded\n%+v\nthen\n%+v", err, cursors, again)
		}
	})
}

// FuzzPage: of whatever a source sends, cursors move forwards alone and lie behind
// the entries that were taken, and a page that says there are more moves one.
func FuzzPage(f *testing.F) {
	_, id := testKey(f, 1)
	one, two := sign(f, 1, 3, 20), sign(f, 2, 1, 0)
	for _, pages := range [][]*pb.Page{
		{pageToProto(1, one[:2], true), pageToProto(2, slices.Concat(one[2:], two), false)},
		{pageToProto(1, one, true), pageToProto(2, one, true)},
		{pageToProto(1, nil, true)},
		{pageToProto(1, nil, false)},
		{pageToProto(3, one, false)},
		{pageToProto(1, []assignment.Signed{{Raw: []byte{0xff}, Supernode: id, Sig: []byte{1}}}, false)},
	} {
		var raw []byte
		for _, p := range pages {
			raw = append(raw, encoded(f, p)...)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q := query{
			in: frame.NewReader(bytes.NewReader(raw), maxPage), out: frame.NewWriter(io.Discard, maxRequest),
			cursors: []assignment.Cursor{{Supernode: id, Epoch: 5, Seq: 1}},
		}
		for {
			before, taken := slices.Clone(q.cursors), len(q.entries)
			more, err := q.page()
			if err != nil {
				if more || len(q.entries) != taken || !errors.Is(err, frame.ErrMalformed) && !errors.Is(err, frame.ErrTooLarge) && !errors.Is(err, ErrNoProgress) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%d entries, more: %v, beside %v", len(q.entries)-taken, more, err)
				}
				return
			}
			checkCursors(t, before, q.cursors, q.entries[taken:])
			if more && slices.Equal(before, q.cursors) {
				t.Fatal("a page that moved nothing says that there are more")
			}
			if !more {
				return
			}
		}
	})
}

// checkCursors checks where a page moved the cursors.
func checkCursors(t *testing.T, before, after []assignment.Cursor, entries []assignment.Signed) {
	t.Helper()
	if len(after) > maxCursors || len(after) < len(before) {
		t.Fatalf("%d cursors, were %d", len(after), len(before))
	}
	at := make(map[peer.ID]assignment.Cursor)
	for i, c := range after {
		if _, twice := at[c.Supernode]; twice || i < len(before) && (c.Supernode != before[i].Supernode || c.Compare(before[i]) < 0) {
			t.Fatalf("cursors %v, were %v", after, before)
		}
		at[c.Supernode] = c
	}
	for _, e := range entries {
		c, err := e.Cursor()
		if behind, known := at[c.Supernode]; err != nil || !known || c.Compare(behind) > 0 {
			t.Fatalf("took %v, %v, with the cursors %v", c, err, after)
		}
	}
}
