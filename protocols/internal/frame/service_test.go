package frame

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

// newHost has the real resource manager, so that service and memory count.
func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func pair(t *testing.T, limits Limits) (client, server *Service, reg *prometheus.Registry) {
	t.Helper()
	a, b := newHost(t), newHost(t)
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
	reg = prometheus.NewRegistry()
	service := func(h host.Host, reg *prometheus.Registry) *Service {
		return &Service{
			Host: h, Protocol: "/test/1.0.0", Name: "test", Memory: 1 << 10, Limits: limits,
			Metrics: NewMetrics(reg, "test"), Logger: slog.New(slog.DiscardHandler),
		}
	}
	return service(a, prometheus.NewRegistry()), service(b, reg), reg
}

// serve runs the server until the test's end or until stop, which waits.
func serve(t *testing.T, s *Service, handle func(context.Context, network.Stream) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, handle) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

// open opens a stream and writes to it, so that the server sees it, retrying
// until the server serves.
func open(t *testing.T, c *Service, to peer.ID) network.Stream {
	t.Helper()
	for {
		st, err := c.Open(t.Context(), to)
		if err == nil {
			_, err = st.Write([]byte{1})
		}
		if err == nil {
			return st
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestServeClosesOnSuccessAndResetsOnError(t *testing.T) {
	c, s, reg := pair(t, Limits{Streams: 8, StreamsPerPeer: 8})
	results := make(chan error, 1)
	serve(t, s, func(_ context.Context, st network.Stream) error {
		_, _ = io.ReadFull(st, make([]byte, 1))
		return <-results
	})
	st := open(t, c, s.Host.ID())
	results <- nil
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after success: err %v, want EOF", err)
	}
	st = open(t, c, s.Host.ID())
	results <- Malformed("test")
	if _, err := st.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after an error: err %v, want a reset", err)
	}
	if got := frametest.Count(t, reg, "p2pnode_test_malformed_total"); got != 1 {
		t.Errorf("%v malformed", got)
	}
}

func TestServeRefusesStreamsOverAPeersLimit(t *testing.T) {
	c, s, reg := pair(t, Limits{Streams: 8, StreamsPerPeer: 2})
	entered := make(chan struct{}, 8)
	leave := make(chan struct{})
	serve(t, s, func(_ context.Context, st network.Stream) error {
		entered <- struct{}{}
		<-leave
		return nil
	})
	for range 2 {
		open(t, c, s.Host.ID())
		<-entered
	}
	third := open(t, c, s.Host.ID())
	_ = third.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("third stream: err %v, want a reset", err)
	}
	if got := frametest.Count(t, reg, "p2pnode_test_refused_streams_total"); got != 1 {
		t.Errorf("%v refused", got)
	}
	close(leave)
	// A place that is given up can be taken again.
	for {
		st := open(t, c, s.Host.ID())
		if _, err := st.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			break
		}
	}
}

func TestServeEndsHandlers(t *testing.T) {
	c, s, reg := pair(t, Limits{Streams: 8, StreamsPerPeer: 8})
	entered, ended := make(chan struct{}), make(chan struct{})
	stop := serve(t, s, func(_ context.Context, st network.Stream) error {
		close(entered)
		defer close(ended)
		_, err := io.Copy(io.Discard, st)
		return err
	})
	open(t, c, s.Host.ID())
	<-entered
	stop()
	select {
	case <-ended:
	default:
		t.Error("Serve returned before its handler")
	}
	if got := frametest.Count(t, reg, "p2pnode_test_failed_streams_total"); got != 0 {
		t.Errorf("%v failures counted for the server's own end", got)
	}
	st, err := c.Open(t.Context(), s.Host.ID())
	if err == nil {
		_, _ = st.Write([]byte{1})
		_, err = st.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("a stopped server still answers")
	}
}

func TestStreamsCountForTheService(t *testing.T) {
	c, s, _ := pair(t, Limits{Streams: 8, StreamsPerPeer: 8})
	entered := make(chan struct{})
	serve(t, s, func(_ context.Context, st network.Stream) error {
		close(entered)
		_, err := io.Copy(io.Discard, st)
		return err
	})
	open(t, c, s.Host.ID())
	<-entered
	for who, h := range map[string]host.Host{"client": c.Host, "server": s.Host} {
		err := h.Network().ResourceManager().ViewService("test", func(scope network.ServiceScope) error {
			if st := scope.Stat(); st.NumStreamsInbound+st.NumStreamsOutbound != 1 || st.Memory < 1<<10 {
				t.Errorf("%s: service has %+v", who, st)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A stream that fails to open must not cost the peer five minutes of the
// swarm's backoff.
func TestOpenClearsDialBackoff(t *testing.T) {
	c, s, _ := pair(t, Limits{Streams: 8, StreamsPerPeer: 8})
	to, addrs := s.Host.ID(), s.Host.Addrs()
	if err := s.Host.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Open(t.Context(), to); err == nil {
			t.Fatal("opened a stream to a closed host")
		}
	}
	key := s.Host.Peerstore().PrivKey(to)
	again, err := libp2p.New(libp2p.ListenAddrs(addrs...), libp2p.Identity(key), libp2p.DisableMetrics())
	if err != nil {
		t.Skipf("listen on the same port again: %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
	s.Host = again
	serve(t, s, func(context.Context, network.Stream) error { return nil })
	c.Host.Peerstore().AddAddrs(to, addrs, peerstore.PermanentAddrTTL)
	start := time.Now()
	open(t, c, to)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestInterruptible(t *testing.T) {
	c, s, _ := pair(t, Limits{Streams: 8, StreamsPerPeer: 8})
	serve(t, s, func(_ context.Context, st network.Stream) error {
		_, err := io.Copy(io.Discard, st) // never answers
		return err
	})
	st := open(t, c, s.Host.ID())
	read := func() error {
		_, err := st.Read(make([]byte, 1))
		return err
	}
	if err := Interruptible(t.Context(), st, 20*time.Millisecond, read); err == nil {
		t.Error("no error after the deadline")
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	go func() {
		<-waiting
		cancel()
	}()
	err := Interruptible(ctx, st, time.Minute, func() error {
		close(waiting)
		return read()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	// The stream can still be used.
	if err := st.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := st.Write([]byte{1}); err != nil {
		t.Error(err)
	}
}

func TestRetryPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRetry()
		pause := func() time.Duration {
			start := time.Now()
			if err := r.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		if p := pause(); p < firstPause/2 || p > firstPause*3/2 {
			t.Errorf("first pause %v", p)
		}
		seen := map[time.Duration]bool{}
		for range 30 {
			p := pause()
			if p > MaxPause {
				t.Errorf("pause %v", p)
			}
			seen[p] = true
		}
		if len(seen) < 20 {
			t.Errorf("%d different pauses of 30: no jitter", len(seen))
		}
		r.Reset()
		if p := pause(); p > firstPause*3/2 {
			t.Errorf("pause %v after Reset", p)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("err %v", err)
		}
	})
}

// The time that a try took is part of the pause after it: a peer that does not
// answer is not waited for twice.
func TestRetryCountsTheTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRetry()
		wait := func() time.Duration {
			start := time.Now()
			if err := r.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		for range 10 {
			wait()
		}
		if p := wait(); p <= firstPause*3/2 {
			t.Errorf("pause %v after ten tries that failed at once", p)
		}
		time.Sleep(2 * MaxPause)
		if p := wait(); p < firstPause/2 || p > firstPause*3/2 {
			t.Errorf("pause %v after a try longer than it, want that of a first one", p)
		}
	})
}
