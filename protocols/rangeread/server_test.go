package rangeread

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

// open opens a stream by hand.
func (e *ends) open(t testing.TB) network.Stream {
	t.Helper()
	s, err := e.ch.NewStream(context.Background(), e.source, ProtocolID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return s
}

// A malformed, oversized or truncated request resets its stream and counts;
// others are served meanwhile and after.
func TestMalformedRequests(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 1000, key, id)
	e := serve(t, m, id)
	req := m.request(0, 1)
	good, err := req.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	long := m.request(0, 1)
	for range MaxPath + 1 {
		long.Path = append(long.Path, id)
	}
	path, err := long.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	grant := m.request(0, 1)
	grant.Grant = make([]byte, maxGrant+1)
	granted, err := grant.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	sized := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	bad := map[string][]byte{
		"oversized":       binary.AppendUvarint(nil, maxRequest+1),
		"endless length":  bytes.Repeat([]byte{0xff}, 11),
		"no message":      sized([]byte{0xff, 0xff}),
		"empty":           sized(nil),
		"short task":      sized([]byte{1<<3 | 2, 1, 7}),
		"short task ID":   sized(append(bytes.Clone(good), 1<<3|2, 1, 7)),
		"odd generation":  sized(append(bytes.Clone(good), 2<<3|2, 1, 7)),
		"large offset":    sized(append(bytes.Clone(good), 3<<3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)),
		"bad peer":        sized(append(bytes.Clone(good), 6<<3|2, 1, 7)),
		"long path":       sized(path),
		"long grant":      sized(granted),
		"origin, no URL":  sized(append(bytes.Clone(good), 9<<3|2, 0)),
		"cut in a field":  sized(good[:len(good)-1]),
		"group that ends": sized(append(bytes.Clone(good), 1<<3|4)),
	}
	for name, b := range bad {
		s := e.open(t)
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 1)); n > 0 || !errors.Is(err, network.ErrReset) {
			t.Errorf("%s: %d bytes, error %v", name, n, err)
		}
		mustRead(t, e.client, e.source, m, req)
	}
	s := e.open(t) // truncated
	if _, err := s.Write(sized(good)[:10]); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 1)); n > 0 || !errors.Is(err, network.ErrReset) {
		t.Errorf("truncated: %d bytes, error %v", n, err)
	}
	if got, want := e.count(t, "malformed_total"), float64(len(bad)+1); got != want {
		t.Errorf("%v requests counted as malformed, want %v", got, want)
	}
	if n := m.served.Load(); n != int64(len(bad)) {
		t.Errorf("the handler saw %d requests, want %d", n, len(bad))
	}
	// A request in two pieces, closed orderly.
	s = e.open(t)
	for _, b := range [][]byte{sized(good)[:20], sized(good)[20:]} {
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || !bytes.Equal(b, record(t, m, id, req)) {
		t.Errorf("in two pieces: %d bytes, error %v", len(b), err)
	}
}

func (e *ends) count(t testing.TB, what string) float64 {
	t.Helper()
	return frametest.Count(t, e.server.cfg.Registerer.(prometheus.Gatherer), "p2pnode_rangeread_server_"+what)
}

// A peer with too many streams is refused more; those it has go on.
func TestTooManyStreams(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 1000, key, id)
	e := serve(t, m, id)
	req := m.request(0, 1)
	b, err := req.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b = append(binary.AppendUvarint(nil, uint64(len(b))), b...)
	answer := record(t, m, id, req)
	ask := func(s network.Stream) error {
		if _, err := s.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(s, make([]byte, len(answer)))
		return err
	}
	var streams []network.Stream
	for range maxStreams {
		s := e.open(t)
		if err := ask(s); err != nil {
			t.Fatalf("stream %d: %v", len(streams), err)
		}
		streams = append(streams, s)
	}
	if err := ask(e.open(t)); !errors.Is(err, network.ErrReset) {
		t.Errorf("one stream too many: %v", err)
	}
	if n := e.count(t, "refused_streams_total"); n != 1 {
		t.Errorf("%v streams counted as refused", n)
	}
	if err := ask(streams[0]); err != nil {
		t.Errorf("a stream that was there: %v", err)
	}
	_ = streams[0].Close()
	p2ptest.Eventually(t, 10*time.Second, func() bool { return ask(e.open(t)) == nil }, "a place becomes free")
}

// blocker is a handler that counts who is in it, and holds them until opened.
type blocker struct {
	m           *memory
	open        chan struct{}
	in, most    atomic.Int64
	withoutWait bool
}

func (b *blocker) Serve(ctx context.Context, from peer.ID, req Request, a *Answer) error {
	n := b.in.Add(1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	defer b.in.Add(-1)
	if b.withoutWait {
		<-b.open
	} else if err := a.Wait(ctx, WaitQueue, b.open); err != nil {
		return err
	}
	return b.m.Serve(ctx, from, req, a)
}

// More reads than run at once between two peers queue at the reader; a peer
// whose readers do not keep to it is told BUSY.
func TestQueue(t *testing.T) {
	key, id := p2ptest.Key(t)
	b := &blocker{m: newMemory(t, 1000, key, id), open: make(chan struct{})}
	e := serve(t, b, id)
	errs := make(chan error)
	read := func(c *Client) {
		r, err := readAll(c, e.source, b.m.request(0, 1))
		if err == nil && len(r.data) != 1000 {
			err = errors.New("short")
		}
		errs <- err
	}
	const all = 3*MaxReads + 1
	for range all {
		go read(e.client)
	}
	p2ptest.Eventually(t, 20*time.Second, func() bool { return b.in.Load() == MaxReads }, "all places are taken")
	// One that queues can be cancelled.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	if _, err := e.client.Open(ctx, e.source, b.m.request(0, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("in the queue: %v", err)
	}
	cancel()
	// Another client of the same peer knows nothing of these.
	other := NewClient(ClientConfig{Host: e.ch, Trusted: b.m.trusted, Silence: 10 * time.Second})
	runs(t, other.Run)
	var answer *Error
	if _, err := readAll(other, e.source, b.m.request(0, 1)); !errors.As(err, &answer) || answer.Status != StatusBusy || answer.RetryAfter <= 0 {
		t.Errorf("one read too many: %v", err)
	}
	close(b.open)
	for range all {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := b.most.Load(); n != MaxReads {
		t.Errorf("%d reads ran at once, want %d", n, MaxReads)
	}
	if _, err := readAll(other, e.source, b.m.request(0, 1)); err != nil {
		t.Errorf("later: %v", err)
	}
}

// Streams that a restarted server knows nothing of are replaced without a word.
func TestStaleStreams(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 1000, key, id)
	e := serve(t, m, id)
	var wg sync.WaitGroup
	b := &blocker{m: m, open: make(chan struct{})}
	e.server.cfg.Handler = b
	for range 10 {
		wg.Go(func() { mustRead(t, e.client, e.source, m, m.request(0, 1)) })
	}
	p2ptest.Eventually(t, 20*time.Second, func() bool { return b.in.Load() == 10 }, "ten streams are in use")
	close(b.open)
	wg.Wait()
	e.stop()
	again := NewServer(ServerConfig{Host: e.sh, Handler: m})
	runs(t, again.Run)
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		return slices.Contains(e.sh.Mux().Protocols(), ProtocolID)
	}, "the protocol is served again")
	for range 3 {
		mustRead(t, e.client, e.source, m, m.request(0, 1))
	}
	if n := frametest.Count(t, e.client.cfg.Registerer.(prometheus.Gatherer), "p2pnode_rangeread_client_stale_streams_total"); n != 10 {
		t.Errorf("%v stale streams counted, want 10", n)
	}
}

// The server's end comes after that of its handlers, and resets what is open.
func TestServerEnd(t *testing.T) {
	key, id := p2ptest.Key(t)
	b := &blocker{m: newMemory(t, content.BlockSize, key, id), open: make(chan struct{}), withoutWait: true}
	e := serve(t, b, id)
	failed := make(chan error, 1)
	go func() {
		_, err := readAll(e.client, e.source, b.m.request(0, 1))
		failed <- err
	}()
	p2ptest.Eventually(t, 20*time.Second, func() bool { return b.in.Load() == 1 }, "a read runs")
	stopped := make(chan struct{})
	go func() { e.stop(); close(stopped) }()
	if err := <-failed; err == nil || StatusOf(err) != StatusInternal {
		t.Errorf("a read that the server's end cut off: %v", err)
	}
	select {
	case <-stopped:
		t.Error("Run returned before its handler")
	default:
	}
	close(b.open)
	<-stopped
	if n := b.in.Load(); n != 0 {
		t.Errorf("%d handlers left", n)
	}
}

// A read that is left before its end resets its stream, and only that.
func TestCloseEarly(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 8<<20, key, id)
	e := serve(t, m, id)
	for range 3 {
		b, err := e.client.Open(context.Background(), e.source, m.request(0, m.meta.Size))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Next(nil); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		_ = b.Close()
		if e.client.pools() != 0 {
			t.Fatal("the stream of a read that was left is kept")
		}
		mustRead(t, e.client, e.source, m, m.request(3, 5))
		e.client.closeIdle(time.Now().Add(time.Hour))
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		e.server.mu.Lock()
		defer e.server.mu.Unlock()
		return len(e.server.streams) == 0 && len(e.server.peers) == 0
	}, "the server forgets the streams")
}
