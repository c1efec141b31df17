package locate

import (
	"fmt"
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	clk := &clock{start}
	random := 0.5 // no jitter
	m := New(Config{Self: id("x"), Now: clk.Now, Random: func() float64 { return random }})
	p := id("p")
	openFor := func(want time.Duration) {
		t.Helper()
		m.Failure(p)
		m.Failure(p) // under way when it failed: the same event
		clk.now = clk.now.Add(want - 1)
		if !m.health.broken(p, clk.now.UnixNano()) {
			t.Errorf("closed before %s", want)
		}
		clk.now = clk.now.Add(1)
		if m.health.broken(p, clk.now.UnixNano()) {
			t.Errorf("open after %s", want)
		}
	}
	for _, s := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		openFor(s * time.Second)
	}
	random = 0
	openFor(48 * time.Second)
	random = 1
	openFor(72 * time.Second)
	random = 0.5
	m.Failure(p)
	m.Success(p, 0)
	if m.health.broken(p, clk.now.UnixNano()) {
		t.Error("open after a success")
	}
	openFor(time.Second)
	m.Failure(id("q"))
	if m.health.broken(p, clk.now.UnixNano()) || !m.health.broken(id("q"), clk.now.UnixNano()) {
		t.Error("one peer's failure is another's")
	}
}

// TestBan: wrong bytes keep a peer behind the others for a time that grows, which
// no success ends; a day without any is forgiven.
func TestBan(t *testing.T) {
	clk := &clock{start}
	m := New(Config{Self: id("x"), Now: clk.Now, Random: func() float64 { return 0.5 }})
	p := id("p")
	bannedFor := func(want time.Duration) {
		t.Helper()
		if !m.Wrong(p) || m.Wrong(p) {
			t.Errorf("a ban is not told once")
		}
		clk.now = clk.now.Add(want - 1)
		m.Success(p, time.Millisecond)
		if !m.health.broken(p, clk.now.UnixNano()) || m.Probe(p) {
			t.Errorf("a success ends a ban of %s", want)
		}
		clk.now = clk.now.Add(1)
		if m.health.broken(p, clk.now.UnixNano()) {
			t.Errorf("banned after %s", want)
		}
		if !m.Doubtful(p) || !m.Probe(p) {
			t.Error("after a ban a peer is trusted before it is tried")
		}
		if m.Success(p, time.Millisecond); m.Doubtful(p) {
			t.Error("in doubt after a success")
		}
	}
	for _, s := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600} {
		bannedFor(s * time.Second)
	}
	clk.now = clk.now.Add(forgetWrong + 1)
	bannedFor(10 * time.Second)
}

func TestBreakerIsProbedByOne(t *testing.T) {
	clk := &clock{start}
	m := New(Config{Self: id("x"), Now: clk.Now, Random: func() float64 { return 0.5 }})
	p := id("p")
	is := func(doubtful, probe bool, when string) {
		t.Helper()
		if got := m.Doubtful(p); got != doubtful {
			t.Errorf("%s: doubtful %t, want %t", when, got, doubtful)
		}
		if got := m.Probe(p); got != probe {
			t.Errorf("%s: probe %t, want %t", when, got, probe)
		}
	}
	is(false, false, "never failed")
	m.Failure(p)
	is(true, false, "open")
	clk.now = clk.now.Add(time.Second)
	is(true, true, "the first to try again")
	is(true, false, "while another tries")
	m.Failure(p)
	clk.now = clk.now.Add(2*time.Second - 1)
	is(true, false, "open for twice as long after the try failed")
	clk.now = clk.now.Add(1)
	is(true, true, "the second try")
	clk.now = clk.now.Add(probeTime)
	is(true, true, "the one who tried said nothing")
	m.Success(p, 0)
	is(false, false, "closed")
}

func TestFirstByteIsAveraged(t *testing.T) {
	m := New(Config{Self: id("x"), Now: (&clock{start}).Now})
	p := id("p")
	for _, step := range []struct{ sample, want time.Duration }{
		{100 * time.Millisecond, 100 * time.Millisecond}, {0, 100 * time.Millisecond},
		{200 * time.Millisecond, 120 * time.Millisecond}, {20 * time.Millisecond, 100 * time.Millisecond},
	} {
		m.Success(p, step.sample)
		if got := m.Peers(); len(got) != 1 || got[0].Peer != p || got[0].FirstByte != step.want {
			t.Fatalf("after %s: %v, want %s", step.sample, got, step.want)
		}
	}
	m.Failure(p)
	if got := m.Peers()[0]; got.Failures != 1 || !got.OpenUntil.After(start) {
		t.Errorf("after a failure: %+v", got)
	}
}

func TestHealthIsBounded(t *testing.T) {
	clk := &clock{start}
	m := New(Config{Self: id("x"), Now: clk.Now})
	m.Failure(id("first"))
	for i := range maxHealthPeers {
		m.Success(id(fmt.Sprint(i)), time.Second)
	}
	if n := len(m.Peers()); n != maxHealthPeers {
		t.Errorf("%d peers, want %d", n, maxHealthPeers)
	}
	if m.health.broken(id("first"), clk.now.UnixNano()) || len(*m.health.open.Load()) != 0 {
		t.Error("a forgotten peer's breaker is still open")
	}
	for i := range 100 {
		m.Failure(id(fmt.Sprint(i)))
	}
	clk.now = clk.now.Add(time.Hour)
	m.Failure(id("last"))
	if n := len(*m.health.open.Load()); n != 1 {
		t.Errorf("%d breakers kept, want the open one alone", n)
	}
}

func TestBreakerStates(t *testing.T) {
	clk := &clock{start}
	m := New(Config{Self: id("x"), Now: clk.Now, Random: func() float64 { return 0.5 }})
	state := func() string { return m.Peers()[0].Breaker(clk.now) }
	m.Success(id("a"), time.Millisecond)
	if got := state(); got != "closed" {
		t.Errorf("after a success: %s", got)
	}
	m.Failure(id("a"))
	if got := state(); got != "open" {
		t.Errorf("after a failure: %s", got)
	}
	clk.now = clk.now.Add(time.Second)
	if got := state(); got != "half-open" {
		t.Errorf("after the backoff: %s", got)
	}
	if !m.Probe(id("a")) || state() != "probing" {
		t.Errorf("while it is tried: %s", state())
	}
	m.Success(id("a"), 0)
	if got := state(); got != "closed" {
		t.Errorf("when it is back: %s", got)
	}
}
