package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

const wait = 10 * time.Second

// sink records what it hears, as lines.
type sink struct {
	mu sync.Mutex
	// mu guards the following.
	events []string
	last   Beat
}

func (s *sink) Beat(_ peer.ID, b Beat) Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("beat %d", b.Seq))
	s.last = b
	return Ack{Cursor: Cursor{5, b.Seq}, MapHash: [32]byte{byte(b.Seq)}}
}

func (s *sink) Gone(_ peer.ID, goodbye bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("gone %v", goodbye))
}

func (s *sink) heard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *sink) has(event string) func() bool {
	return func() bool { return slices.Contains(s.heard(), event) }
}

// background runs f until the test's end, or until stop, which waits for it.
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
	return background(t, NewServer(h, s, cfg).Run)
}

// send runs s and returns the acknowledgements that it gets.
func send(t *testing.T, s *Sender, to peer.ID) (acks chan Ack, stop func()) {
	acks = make(chan Ack, 1024)
	stop = background(t, func(ctx context.Context) error {
		return s.Run(ctx, to, func() Beat { b := fullBeat(); b.Session, b.Seq = 0, 0; return b }, func(a Ack) { acks <- a })
	})
	return acks, stop
}

// receive takes from a channel, within bounds.
func receive[T any](t *testing.T, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(wait):
		t.Fatal("nothing received")
		panic("not reached")
	}
}

func TestBeatsAreAcknowledged(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var s sink
	serve(t, b, &s, ServerConfig{})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
	begun := time.Now()
	acks, stop := send(t, NewSender(a, SenderConfig{Interval: 10 * time.Millisecond}), b.ID())
	for want := range uint64(5) {
		ack := receive(t, acks)
		if ack.Seq != want+1 || ack.Cursor != (Cursor{5, want + 1}) || ack.MapHash[0] != byte(want+1) {
			t.Errorf("acknowledgement %+v, want of beat %d", ack, want+1)
		}
		if now := time.Now(); ack.RTT <= 0 || ack.RTT > now.Sub(begun) || ack.Time.Before(begun.Add(-time.Millisecond)) || ack.Time.After(now) {
			t.Errorf("answered after %v at %v, begun at %v, now %v", ack.RTT, ack.Time, begun, now)
		}
	}
	got := s.last
	if want := fullBeat(); got.Site != want.Site || got.Load != want.Load || got.Session == 0 || len(got.Addrs) != 1 {
		t.Errorf("heard %+v", got)
	}
	start := time.Now()
	stop()
	if took := time.Since(start); took > goodbyeTimeout {
		t.Errorf("stopping took %v", took)
	}
	events := s.heard()
	if last := events[len(events)-1]; last != "gone true" || slices.Contains(events, "gone false") {
		t.Errorf("heard %v", events)
	}
}

func TestNudge(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var s sink
	serve(t, b, &s, ServerConfig{})
	sender := NewSender(a, SenderConfig{Interval: 2 * time.Minute}) // gap 4.8 s
	sender.Nudge()                                                  // without a Run: nothing
	sender.interval = 10 * time.Second
	acks, _ := send(t, sender, b.ID())
	receive(t, acks)
	start := time.Now()
	for range 100 {
		sender.Nudge()
	}
	if ack := receive(t, acks); ack.Seq != 2 {
		t.Errorf("acknowledgement %d", ack.Seq)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("nudged beat took %v", took)
	}
	select {
	case ack := <-acks:
		t.Errorf("a second beat %d for nudges that came together", ack.Seq)
	case <-time.After(600 * time.Millisecond):
	}
}

func TestReconnectAfterRestartOfTheServer(t *testing.T) {
	a, b := p2ptest.Pair(t)
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	var before, after sink
	stop := serve(t, b, &before, ServerConfig{})
	acks, _ := send(t, NewSender(a, SenderConfig{Interval: 20 * time.Millisecond}), b.ID())
	receive(t, acks)
	stop()
	if events := before.heard(); events[len(events)-1] != "gone false" {
		t.Errorf("a server that stops was heard to say %v", events)
	}
	key, addrs := b.Peerstore().PrivKey(b.ID()), b.Addrs()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for len(acks) > 0 {
		<-acks
	}
	again, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrs(addrs...), libp2p.DisableMetrics())
	if err != nil {
		t.Skipf("listen on the same port again: %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
	serve(t, again, &after, ServerConfig{})
	ack := receive(t, acks)
	if ack.Seq < 2 || !after.has(fmt.Sprintf("beat %d", ack.Seq))() || after.has("beat 1")() {
		t.Errorf("acknowledgement %d; the new server heard %v", ack.Seq, after.heard())
	}
}

// raw opens a stream of the protocol that the test speaks itself.
func raw(t *testing.T, from host.Host, to peer.ID) network.Stream {
	t.Helper()
	st, err := from.NewStream(t.Context(), to, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	return st
}

func beatOn(t *testing.T, st network.Stream, seq uint64) error {
	t.Helper()
	if err := frame.NewWriter(st, maxBeat).Write(&pb.Beat{Session: 1, Seq: seq}); err != nil {
		return err
	}
	return frame.NewReader(st, maxAck).Read(&pb.Ack{})
}

func TestServerResetsBadStreams(t *testing.T) {
	long := encoded(t, &pb.Beat{Session: 1, Seq: 1, Site: string(make([]byte, maxBeat))})
	good := encoded(t, &pb.Beat{Session: 1, Seq: 1})
	for _, c := range []struct {
		name    string
		in      []byte
		counter string
	}{
		{"oversized", long, "oversized_total"},
		{"garbage", []byte{3, 0xff, 0xff, 0xff}, "malformed_total"},
		{"a rule broken", encoded(t, &pb.Beat{Session: 1}), "malformed_total"},
		{"number repeated", slices.Concat(good, good), "malformed_total"},
		{"truncated", good[:len(good)-1], "failed_streams_total"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := p2ptest.Pair(t)
			var s sink
			reg := prometheus.NewRegistry()
			serve(t, b, &s, ServerConfig{Registerer: reg})
			p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
			st := raw(t, a, b.ID())
			_, _ = st.Write(c.in) // may be reset before all of it is written
			_ = st.CloseWrite()
			if _, err := io.Copy(io.Discard, st); err == nil {
				t.Error("stream was closed, want a reset")
			}
			if got := frametest.Count(t, reg, "p2pnode_heartbeat_"+c.counter); got != 1 {
				t.Errorf("%s is %v", c.counter, got)
			}
			// The server lives.
			if err := beatOn(t, raw(t, a, b.ID()), 1); err != nil {
				t.Errorf("next stream: %v", err)
			}
		})
	}
}

func TestLostPeerIsGoneOnce(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var s sink
	serve(t, b, &s, ServerConfig{Idle: 50 * time.Millisecond})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
	if err := beatOn(t, raw(t, a, b.ID()), 1); err != nil {
		t.Fatal(err)
	}
	// A stream without a beat is nobody's.
	silent := raw(t, a, b.ID())
	if _, err := silent.Write([]byte{9}); err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, wait, s.has("gone false"), "the idle stream ends")
	_, _ = io.Copy(io.Discard, silent)
	if want := []string{"beat 1", "gone false"}; !slices.Equal(s.heard(), want) {
		t.Errorf("heard %v, want %v", s.heard(), want)
	}
}

// A peer that has connected anew, before the server has noticed that the old
// connection is dead, must not be taken for gone.
func TestNewStreamTakesOver(t *testing.T) {
	a, b := p2ptest.Pair(t)
	var s sink
	serve(t, b, &s, ServerConfig{})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
	first := raw(t, a, b.ID())
	if err := beatOn(t, first, 1); err != nil {
		t.Fatal(err)
	}
	second := raw(t, a, b.ID())
	if err := beatOn(t, second, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("old stream: err %v, want a reset", err)
	}
	if err := beatOn(t, second, 3); err != nil {
		t.Fatal(err)
	}
	_ = second.Reset()
	p2ptest.Eventually(t, wait, s.has("gone false"), "the last stream ends")
	if want := []string{"beat 1", "beat 2", "beat 3", "gone false"}; !slices.Equal(s.heard(), want) {
		t.Errorf("heard %v, want %v", s.heard(), want)
	}
}

// whoSink records who said what.
type whoSink struct{ sink }

func (s *whoSink) Beat(from peer.ID, b Beat) Ack {
	s.note(fmt.Sprintf("%s beat %d", from, b.Seq))
	return Ack{}
}

func (s *whoSink) Gone(from peer.ID, goodbye bool) { s.note(fmt.Sprintf("%s gone %v", from, goodbye)) }

func (s *whoSink) note(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
}

// TestSessionOfAnother: a peer that beats with the session of another, and says
// goodbye in it, speaks for itself: the connection says who beats. The other's
// stream goes on.
func TestSessionOfAnother(t *testing.T) {
	hosts := p2ptest.Hosts(t, 3)
	server, honest, thief := hosts[0], hosts[1], hosts[2]
	var s whoSink
	serve(t, server, &s, ServerConfig{})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(server.Mux().Protocols(), Protocol) }, "server up")
	p2ptest.Connect(t, honest, server)
	p2ptest.Connect(t, thief, server)
	own, stolen := raw(t, honest, server.ID()), raw(t, thief, server.ID())
	for _, err := range []error{beatOn(t, own, 1), beatOn(t, stolen, 2), frame.NewWriter(stolen, maxBeat).Write(&pb.Beat{Session: 1, Seq: 3, Goodbye: true})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p2ptest.Eventually(t, wait, s.has(fmt.Sprintf("%s gone true", thief.ID())), "the thief has said goodbye")
	if err := beatOn(t, own, 2); err != nil {
		t.Errorf("the other's stream: %v", err)
	}
	want := []string{
		fmt.Sprintf("%s beat 1", honest.ID()), fmt.Sprintf("%s beat 2", thief.ID()), fmt.Sprintf("%s gone true", thief.ID()), fmt.Sprintf("%s beat 2", honest.ID()),
	}
	if got := s.heard(); !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
}

// slowSink holds the first beat until it is let go.
type slowSink struct {
	sink
	entered, letGo chan struct{}
}

func (s *slowSink) Beat(from peer.ID, b Beat) Ack {
	if b.Seq == 1 {
		close(s.entered)
		<-s.letGo
	}
	return s.sink.Beat(from, b)
}

// While the sink still has a beat of the old stream, it must not get one of the
// new.
func TestSinkHearsAPeerOnce(t *testing.T) {
	a, b := p2ptest.Pair(t)
	s := slowSink{entered: make(chan struct{}), letGo: make(chan struct{})}
	serve(t, b, &s, ServerConfig{})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(b.Mux().Protocols(), Protocol) }, "server up")
	first := raw(t, a, b.ID())
	if err := frame.NewWriter(first, maxBeat).Write(&pb.Beat{Session: 1, Seq: 1}); err != nil {
		t.Fatal(err)
	}
	<-s.entered
	second := raw(t, a, b.ID())
	done := make(chan error, 1)
	go func() { done <- beatOn(t, second, 2) }()
	if _, err := io.Copy(io.Discard, first); err == nil { // the second has come
		t.Error("stream was closed, want a reset")
	}
	if got := s.heard(); len(got) != 0 {
		t.Errorf("heard %v beside a beat in progress", got)
	}
	close(s.letGo)
	if err := receive(t, done); err != nil {
		t.Fatal(err)
	}
	if want := []string{"beat 1", "beat 2"}; !slices.Equal(s.heard(), want) {
		t.Errorf("heard %v, want %v", s.heard(), want)
	}
}

// A supernode that takes beats and never answers: the sender gives up the
// stream after its timeout, and ends at once when told to.
func TestSilentServer(t *testing.T) {
	a, b := p2ptest.Pair(t)
	streams := make(chan network.Stream, 16)
	b.SetStreamHandler(Protocol, func(st network.Stream) { streams <- st })
	reg := prometheus.NewRegistry()
	_, stop := send(t, NewSender(a, SenderConfig{Timeout: 200 * time.Millisecond, Registerer: reg}), b.ID())
	first := receive(t, streams)
	if _, err := io.Copy(io.Discard, first); err == nil {
		t.Error("stream was closed, want a reset")
	}
	second := receive(t, streams)
	if got := frametest.Count(t, reg, "p2pnode_heartbeat_failed_streams_total"); got < 1 {
		t.Errorf("%v failures counted", got)
	}
	start := time.Now()
	stop()
	if took := time.Since(start); took > goodbyeTimeout+100*time.Millisecond {
		t.Errorf("stopping took %v", took)
	}
	_ = second.SetReadDeadline(time.Now().Add(wait))
	in := frame.NewReader(second, maxBeat)
	for _, want := range []bool{false, true} {
		var m pb.Beat
		if err := in.Read(&m); err != nil || m.GetGoodbye() != want {
			t.Errorf("goodbye %v, want %v; err %v", m.GetGoodbye(), want, err)
		}
	}
}

func TestSenderRefusesBadAcks(t *testing.T) {
	hash := make([]byte, 32)
	for name, ack := range map[string]*pb.Ack{
		"of another beat": {Seq: 2, MapHash: hash},
		"without a hash":  {Seq: 1},
		"oversized":       {Seq: 1, MapHash: hash, Revoked: [][]byte{make([]byte, maxAck)}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := p2ptest.Pair(t)
			results := make(chan error, 16)
			b.SetStreamHandler(Protocol, func(st network.Stream) {
				_ = frame.NewReader(st, maxBeat).Read(&pb.Beat{})
				_ = frame.NewWriter(st, 1<<20).Write(ack)
				_, err := io.Copy(io.Discard, st)
				results <- err
			})
			acks, stop := send(t, NewSender(a, SenderConfig{}), b.ID())
			if err := receive(t, results); err == nil {
				t.Error("stream was closed, want a reset")
			}
			stop()
			if len(acks) != 0 {
				t.Errorf("took %+v", <-acks)
			}
		})
	}
}

// A flood of beats is slowed down, stream by stream, and another peer's are
// answered beside it.
func TestFloodOfBeats(t *testing.T) {
	hosts := p2ptest.Hosts(t, 4)
	server := hosts[0]
	var s countingSink
	serve(t, server, &s, ServerConfig{})
	p2ptest.Eventually(t, wait, func() bool { return slices.Contains(server.Mux().Protocols(), Protocol) }, "server up")
	start := time.Now()
	for _, h := range hosts[1:3] {
		p2ptest.Connect(t, h, server)
		st := raw(t, h, server.ID())
		background(t, func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
			go func() { _, _ = io.Copy(io.Discard, st) }()
			for seq := uint64(1); ctx.Err() == nil; seq++ {
				if _, err := st.Write(encoded(t, &pb.Beat{Session: 1, Seq: seq})); err != nil {
					return nil // it was reset at the end
				}
			}
			return nil
		})
	}
	p2ptest.Eventually(t, wait, func() bool { return s.beats.Load() > 2*maxRate }, "the flood has come")
	p2ptest.Connect(t, hosts[3], server)
	acks, _ := send(t, NewSender(hosts[3], SenderConfig{Interval: 20 * time.Millisecond}), server.ID())
	for range 20 {
		receive(t, acks)
	}
	took := time.Since(start)
	if most := int64(2*maxRate*(1+took.Seconds())) + 200; s.beats.Load() > most {
		t.Errorf("%d beats were taken in %v, want %d at most", s.beats.Load(), took, most)
	}
}

// countingSink counts the beats that it hears.
type countingSink struct{ beats atomic.Int64 }

func (s *countingSink) Beat(peer.ID, Beat) Ack {
	s.beats.Add(1)
	return Ack{Cursor: Cursor{5, 1}}
}
func (s *countingSink) Gone(peer.ID, bool) {}
