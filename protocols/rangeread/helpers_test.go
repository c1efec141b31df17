package rangeread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// memory is a Handler that serves one complete file from memory.
type memory struct {
	meta      content.Meta
	data      []byte
	task      content.TaskID
	seals     []content.Seal
	outboards [][]byte
	served    atomic.Int64
	// tamper, where set, changes bytes as they leave.
	tamper func(p []byte, off int64)
	// silent, where set, is ClientConfig.Silent.
	silent func(peer.ID)
	// before, where set, runs before the header.
	before func(ctx context.Context, req Request, a *Answer) error
}

func newMemory(t testing.TB, size int64, key crypto.PrivKey, signer peer.ID) *memory {
	t.Helper()
	m := &memory{data: p2ptest.Bytes(7, int(size)), task: content.TaskID{1, 2, 3}}
	gen, _ := content.NewGeneration(`"x"`, "", size)
	m.meta = content.Meta{Size: size, Generation: gen, ETag: `"x"`}
	for i := range m.meta.Layout().Blocks() {
		b := m.meta.Layout().Block(i)
		ob, root := content.Outboard(m.data[b.Off:b.End()])
		seal, err := content.SealBlock(key, signer, m.name(i), root)
		if err != nil {
			t.Fatal(err)
		}
		m.seals = append(m.seals, seal)
		m.outboards = append(m.outboards, ob)
	}
	return m
}

func (m *memory) name(i int64) content.BlockName {
	return content.BlockName{Task: m.task, Generation: m.meta.Generation, FileSize: m.meta.Size, Index: i}
}

// trusted is a ClientConfig.Trusted that knows the seals' signer.
func (m *memory) trusted(id peer.ID) bool { return id == m.seals[0].Signer }

func (m *memory) read(p []byte, off int64) error {
	copy(p, m.data[off:])
	if m.tamper != nil {
		m.tamper(p, off)
	}
	return nil
}

func (m *memory) Serve(ctx context.Context, _ peer.ID, req Request, a *Answer) error {
	m.served.Add(1)
	if m.before != nil {
		if err := m.before(ctx, req, a); err != nil {
			return err
		}
	}
	r, err := a.Header(Header{Meta: m.meta, Source: SourceStore})
	if err != nil {
		return err
	}
	first, end := content.BlockSpan(r)
	for i := first; i < end; i++ {
		if err := a.Complete(i, r.End(), m.seals[i], m.outboards[i], m.read); err != nil {
			return err
		}
	}
	return nil
}

// ends are the two ends of a connection between real hosts.
type ends struct {
	client *Client
	server *Server
	ch, sh host.Host
	source peer.ID
	// stop ends the server and waits for it.
	stop func()
}

// serve runs a server with h, and a client on another host that is connected to
// it and trusts signer and the source. Silence is 10 s unless configured.
func serve(t testing.TB, h Handler, signer peer.ID, configure ...func(*ClientConfig)) *ends {
	t.Helper()
	hosts := p2ptest.Hosts(t, 2)
	e := &ends{ch: hosts[0], sh: hosts[1], source: hosts[1].ID()}
	cfg := ClientConfig{
		Host: e.ch, Silence: 10 * time.Second, Registerer: prometheus.NewRegistry(),
		Trusted: func(id peer.ID) bool { return id == signer || id == e.source },
	}
	for _, f := range configure {
		f(&cfg)
	}
	e.client = NewClient(cfg)
	e.server = NewServer(ServerConfig{Host: e.sh, Handler: h, Registerer: prometheus.NewRegistry()})
	e.stop = runs(t, e.server.Run)
	runs(t, e.client.Run)
	p2ptest.Connect(t, e.ch, e.sh)
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		ps, _ := e.ch.Peerstore().SupportsProtocols(e.source, ProtocolID)
		return len(ps) > 0
	}, "identify tells the protocol")
	return e
}

// runs runs f until the test ends or stop is called, and waits for its end.
func runs(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = f(ctx)
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// idle returns how many streams to a peer are idle, pools to how many peers
// there are streams or reads.
func (c *Client) idle(id peer.ID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[id]; p != nil {
		return len(p.idle)
	}
	return 0
}

func (c *Client) pools() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.peers)
}

// request is one for a range of the file in m.
func (m *memory) request(off, n int64) Request {
	return Request{Task: m.task, Generation: m.meta.Generation, Range: content.Range{Off: off, Len: n}}
}

// result is what one read yielded.
type result struct {
	header Header
	off    int64 // of the first byte
	data   []byte
	pieces []Piece // without their data
}

// readAll reads a range to its end, and checks that the pieces follow one
// another.
func readAll(c *Client, from peer.ID, req Request) (result, error) {
	b, err := c.Open(context.Background(), from, req)
	if err != nil {
		return result{off: -1}, err
	}
	defer func() { _ = b.Close() }()
	return drain(b)
}

func drain(b *Body) (result, error) {
	r := result{header: b.Header, off: -1}
	for {
		p, err := b.Next(nil)
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return r, err
		}
		if r.off < 0 {
			r.off = p.Off
		}
		if want := r.off + int64(len(r.data)); p.Off != want {
			return r, fmt.Errorf("piece at %d, want %d", p.Off, want)
		}
		r.data = append(r.data, p.Data...)
		p.Data, p.Slice = nil, slices.Clone(p.Slice)
		r.pieces = append(r.pieces, p)
	}
}

// mustRead reads a range and checks it against the file.
func mustRead(t testing.TB, c *Client, from peer.ID, m *memory, req Request) result {
	t.Helper()
	r, err := readAll(c, from, req)
	if err != nil {
		t.Fatalf("read %v: %v", req.Range, err)
	}
	asked := req.Range.Intersect(content.Range{Len: m.meta.Size})
	got := content.Range{Off: max(r.off, 0), Len: int64(len(r.data))}
	if !got.Contains(asked) || !Widen(asked, m.meta.Size).Contains(got) || !bytes.Equal(r.data, m.data[got.Off:got.End()]) {
		t.Fatalf("read %v of %d bytes: wrong bytes, or not those: %v", req.Range, m.meta.Size, got)
	}
	return r
}

// handler is a Handler by its function.
type handler func(ctx context.Context, req Request, a *Answer) error

func (h handler) Serve(ctx context.Context, _ peer.ID, req Request, a *Answer) error {
	return h(ctx, req, a)
}
