package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
	"github.com/p2pnode/p2pnode/protocols/report/pb"
)

const wait = 20 * time.Second

// sink is a Sink that keeps the books, with a fail switch.
type sink struct {
	mu sync.Mutex
	// mu guards the following.
	fail    int
	reports int
	demand  map[content.TaskID]int64
	held    map[content.TaskID]Held
	dropped []content.TaskID
}

func (s *sink) Report(_ peer.ID, r Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return errors.New("sink fails")
	}
	s.reports++
	if s.held == nil {
		s.held, s.demand = map[content.TaskID]Held{}, map[content.TaskID]int64{}
	}
	for _, h := range r.Held {
		s.held[h.Task] = h
	}
	for _, d := range r.Demand {
		s.demand[d.Task] += d.Bytes
	}
	for _, task := range r.Dropped {
		delete(s.held, task)
		s.dropped = append(s.dropped, task)
	}
	return nil
}

// is asks the books under their lock.
func (s *sink) is(f func() bool) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f()
	}
}

func background(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func serve(t *testing.T, h host.Host, s Sink, cfg ServerConfig) (stop func()) {
	t.Helper()
	stop = background(t, NewServer(h, s, cfg).Run)
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(h.Mux().Protocols(), Protocol) }, "server up")
	return stop
}

func send(t *testing.T, s *Sender, to peer.ID) (stop func()) {
	return background(t, func(ctx context.Context) error { return s.Run(ctx, to) })
}

var quick = SenderConfig{Pace: time.Millisecond}

func TestReportsArrive(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var books sink
	serve(t, b, &books, ServerConfig{})
	s := NewSender(a, quick)
	for n := range 3000 { // more than one report takes
		s.Enqueue(Held{Task: task(n), URL: fmt.Sprintf("https://example.org/%d", n), Size: 1 << 20, Present: []byte{1}})
		s.Read(Demand{Task: task(n), Bytes: int64(n)})
	}
	s.Enqueue(Held{Task: task(1), URL: string(make([]byte, frame.MaxURL+1))}) // refused, costs nobody else
	stop := send(t, s, b.ID())
	p2ptest.Eventually(t, wait, books.is(func() bool { return len(books.held) == 2999 }), "all tasks but the bad one")
	books.is(func() bool {
		if books.reports < 3 {
			t.Errorf("%d reports of more than 1024 tasks", books.reports)
		}
		if h := books.held[task(2999)]; h.URL != "https://example.org/2999" || !h.Has(0) || books.demand[h.Task] != 2999 {
			t.Errorf("last task is %+v", h)
		}
		return true
	})()
	s.Drop(task(7))
	p2ptest.Eventually(t, wait, books.is(func() bool { return slices.Equal(books.dropped, []content.TaskID{task(7)}) }), "dropped")
	stop()
	// What is queued meanwhile goes out with the next Run.
	s.Enqueue(Held{Task: task(7), Size: -1})
	send(t, s, b.ID())
	p2ptest.Eventually(t, wait, books.is(func() bool { return len(books.held) == 2999 }), "held again")
}

func TestEnqueueWithoutARun(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := NewSender(p2ptest.Hosts(t, 1)[0], SenderConfig{Registerer: reg})
	for n := range MaxQueue + 5 { // must not block
		s.Enqueue(Held{Task: task(n)})
	}
	if q, l := frametest.Count(t, reg, "p2pnode_report_queued_tasks"), frametest.Count(t, reg, "p2pnode_report_lost_tasks_total"); q != MaxQueue || l != 5 {
		t.Errorf("%v queued, %v lost", q, l)
	}
}

// An acknowledgement is lost after the report was taken: the same report comes
// again, and its demand counts once.
func TestLostAcknowledgement(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var books sink
	regA, regB := prometheus.NewRegistry(), prometheus.NewRegistry()
	server := NewServer(b, &books, ServerConfig{Registerer: regB})
	lost := false
	background(t, func(ctx context.Context) error {
		return server.service.Serve(ctx, func(ctx context.Context, st network.Stream) error {
			if lost {
				return server.handle(ctx, st)
			}
			lost = true
			var m pb.Report
			if err := frame.NewReader(st, maxReport).Read(&m); err != nil {
				return err
			}
			if err := server.take(st.Conn().RemotePeer(), &m); err != nil {
				return err
			}
			return errors.New("lost")
		})
	})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
	cfg := quick
	cfg.Registerer = regA
	s := NewSender(a, cfg)
	s.Read(Demand{Task: task(1), Bytes: 100})
	send(t, s, b.ID())
	p2ptest.Eventually(t, wait, func() bool { return frametest.Count(t, regA, "p2pnode_report_acknowledged_total") == 1 }, "acknowledged")
	s.Read(Demand{Task: task(1), Bytes: 10})
	p2ptest.Eventually(t, wait, func() bool { return frametest.Count(t, regA, "p2pnode_report_acknowledged_total") == 2 }, "acknowledged")
	books.is(func() bool {
		if books.demand[task(1)] != 110 || books.reports != 2 {
			t.Errorf("demand %d of %d reports, want 110 of 2", books.demand[task(1)], books.reports)
		}
		return true
	})()
	if r, s := frametest.Count(t, regB, "p2pnode_report_repeated_total"), frametest.Count(t, regA, "p2pnode_report_resent_total"); r != 1 || s != 1 {
		t.Errorf("%v repeated, %v resent", r, s)
	}
}

func TestSinkErrorIsResent(t *testing.T) {
	a, b := p2ptest.Pair(t)
	books := sink{fail: 2}
	serve(t, b, &books, ServerConfig{})
	s := NewSender(a, quick)
	s.Read(Demand{Task: task(1), Bytes: 100})
	send(t, s, b.ID())
	p2ptest.Eventually(t, wait, books.is(func() bool { return books.demand[task(1)] == 100 && books.reports == 1 }), "taken once")
}

func TestSilentServerIsGivenUp(t *testing.T) {
	a, b := p2ptest.Pair(t)
	streams := make(chan network.Stream, 16)
	b.SetStreamHandler(Protocol, func(st network.Stream) { streams <- st })
	s := NewSender(a, SenderConfig{Timeout: 30 * time.Millisecond})
	s.Enqueue(Held{Task: task(1)})
	stop := send(t, s, b.ID())
	var first, again pb.Report
	for _, m := range []*pb.Report{&first, &again} {
		var st network.Stream
		select {
		case st = <-streams:
		case <-time.After(wait):
			t.Fatal("no stream")
		}
		if err := frame.NewReader(st, maxReport).Read(m); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, st); err == nil {
			t.Error("stream was closed, want a reset")
		}
	}
	if first.GetSeq() != 1 || first.GetSession() != again.GetSession() || again.GetSeq() != 1 || len(again.GetHeld()) != 1 {
		t.Errorf("first %v, then %v", &first, &again)
	}
	stop()
}

func TestReconnectAfterRestartOfTheServer(t *testing.T) {
	a, b := p2ptest.Pair(t)
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	var before, after sink
	stop := serve(t, b, &before, ServerConfig{})
	s := NewSender(a, quick)
	s.Enqueue(Held{Task: task(1)})
	send(t, s, b.ID())
	p2ptest.Eventually(t, wait, before.is(func() bool { return len(before.held) == 1 }), "first report")
	stop()
	key, addrs := b.Peerstore().PrivKey(b.ID()), b.Addrs()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s.Enqueue(Held{Task: task(2)})
	again, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrs(addrs...), libp2p.DisableMetrics())
	if err != nil {
		t.Skipf("listen on the same port again: %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
	serve(t, again, &after, ServerConfig{})
	p2ptest.Eventually(t, wait, after.is(func() bool { return len(after.held) == 1 }), "second report")
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

func TestServerResetsBadStreams(t *testing.T) {
	id := task(1)
	good := encoded(t, &pb.Report{Session: 1, Seq: 1, Dropped: [][]byte{id[:]}})
	for _, c := range []struct {
		name    string
		in      []byte
		counter string
	}{
		{"oversized", encoded(t, &pb.Report{Dropped: [][]byte{make([]byte, maxReport)}}), "oversized_total"},
		{"garbage", []byte{3, 0xff, 0xff, 0xff}, "malformed_total"},
		{"a rule broken", encoded(t, &pb.Report{Session: 1}), "malformed_total"},
		{"truncated", good[:len(good)-1], "failed_streams_total"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := p2ptest.Pair(t)
			var books sink
			reg := prometheus.NewRegistry()
			serve(t, b, &books, ServerConfig{Registerer: reg})
			st := raw(t, a, b.ID())
			_, _ = st.Write(c.in) // may be reset before all of it is written
			_ = st.CloseWrite()
			if _, err := io.Copy(io.Discard, st); err == nil {
				t.Error("stream was closed, want a reset")
			}
			if got := frametest.Count(t, reg, "p2pnode_report_"+c.counter); got != 1 {
				t.Errorf("%s is %v", c.counter, got)
			}
			// The server lives.
			st = raw(t, a, b.ID())
			var ack pb.Ack
			if _, err := st.Write(good); err != nil {
				t.Fatal(err)
			}
			if err := frame.NewReader(st, maxAck).Read(&ack); err != nil || ack.GetSeq() != 1 {
				t.Errorf("next stream: %v, err %v", &ack, err)
			}
		})
	}
}

func TestServerEndsIdleStreams(t *testing.T) {
	a, b := p2ptest.Pair(t)
	serve(t, b, &sink{}, ServerConfig{Idle: 30 * time.Millisecond})
	st := raw(t, a, b.ID())
	if _, err := st.Write([]byte{200}); err != nil { // the first byte of a length
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, st); err == nil {
		t.Error("stream was closed, want a reset")
	}
}

func TestStreamsOfAPeerAreLimited(t *testing.T) {
	a, b := p2ptest.Pair(t)
	reg := prometheus.NewRegistry()
	serve(t, b, &sink{}, ServerConfig{Registerer: reg})
	for range DefaultLimits.StreamsPerPeer + 3 {
		if _, err := raw(t, a, b.ID()).Write([]byte{200}); err != nil {
			t.Fatal(err)
		}
	}
	p2ptest.Eventually(t, wait, func() bool { return frametest.Count(t, reg, "p2pnode_report_refused_streams_total") == 3 }, "three refused")
}

// floodedSink counts the reports of each peer.
type floodedSink struct {
	mu sync.Mutex
	// mu guards the following.
	reports map[peer.ID]int
}

func (s *floodedSink) Report(from peer.ID, _ Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[from]++
	return nil
}

func (s *floodedSink) of(p peer.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports[p]
}

// flood reports on one stream after another, in each a quarter of what may come
// at once, until ctx ends.
func flood(ctx context.Context, t *testing.T, h host.Host, to peer.ID) {
	for seq := uint64(1); ctx.Err() == nil; {
		st, err := h.NewStream(ctx, to, Protocol)
		if err != nil {
			continue // one too many, until the last one is gone
		}
		stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
		in := frame.NewReader(st, maxAck)
		id := task(1)
		for range maxBurst / 4 {
			if _, err := st.Write(encoded(t, &pb.Report{Session: 1, Seq: seq, Dropped: [][]byte{id[:]}})); err != nil {
				break
			}
			if err := in.Read(new(pb.Ack)); err != nil {
				break
			}
			seq++
		}
		stop()
		_ = st.Reset()
	}
}

// A flood of reports is slowed down, whatever the number of streams it comes on,
// and another peer's go through beside it.
func TestFloodOfReports(t *testing.T) {
	hosts := p2ptest.Hosts(t, 4)
	server, honest := hosts[0], hosts[3]
	s := floodedSink{reports: make(map[peer.ID]int)}
	serve(t, server, &s, ServerConfig{})
	start := time.Now()
	for _, h := range hosts[1:3] {
		p2ptest.Connect(t, h, server)
		background(t, func(ctx context.Context) error {
			flood(ctx, t, h, server.ID())
			return nil
		})
	}
	flooded := func() bool { return s.of(hosts[1].ID()) >= maxBurst+5 && s.of(hosts[2].ID()) >= maxBurst+5 }
	p2ptest.Eventually(t, wait, flooded, "the flood has come")
	p2ptest.Connect(t, honest, server)
	sender := NewSender(honest, quick)
	send(t, sender, server.ID())
	for n := range 10 {
		sender.Enqueue(Held{Task: task(n)})
		p2ptest.Eventually(t, wait, func() bool { return s.of(honest.ID()) > n }, "another peer's report")
	}
	for _, h := range hosts[1:3] {
		got, took := s.of(h.ID()), time.Since(start)
		if most := maxBurst + int(maxRate*took.Seconds()) + 1; got > most {
			t.Errorf("%d reports of a flood were taken in %v, want %d at most", got, took, most)
		}
	}
}

// A seed that reports 100,000 tasks after a restart is not slowed down.
func TestFullReportIsNoFlood(t *testing.T) {
	s := NewSender(p2ptest.Hosts(t, 1)[0], SenderConfig{})
	url := "https://registry.example.org/" + strings.Repeat("x", 121)
	reports := 0
	for n := range 100_000 {
		s.Enqueue(Held{Task: task(n), URL: url, Generation: content.Generation{1}, Size: 8 << 20, Present: []byte{255}})
		if n%4000 != 3999 { // about as many are queued at once
			continue
		}
		for m, _, _ := s.next(); m != nil; m, _, _ = s.next() {
			s.acknowledge()
			reports++
		}
	}
	if reports > maxBurst {
		t.Errorf("%d reports, want %d at most", reports, maxBurst)
	}
}

// A large report gets the time that it needs on a slow link, a small one is sent
// again soon.
func TestLargeReportsGetMoreTime(t *testing.T) {
	a, _ := p2ptest.Pair(t)
	s := NewSender(a, SenderConfig{})
	for size, want := range map[int]time.Duration{0: 2 * time.Second, 64 << 10: 6 * time.Second} {
		m := &pb.Report{Dropped: [][]byte{make([]byte, size)}}
		if got := s.patience(m); got < want || got > want+10*time.Millisecond {
			t.Errorf("%d bytes get %s, want %s", size, got, want)
		}
	}
}
