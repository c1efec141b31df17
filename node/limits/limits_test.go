package limits

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// handler serves until it is released.
type handler chan struct{}

func (h handler) Serve(context.Context, peer.ID, rangeread.Request, *rangeread.Answer) error {
	<-h
	return nil
}

func ask(l *Limiter, from peer.ID, req rangeread.Request) error {
	return l.Serve(context.Background(), from, req, nil)
}

// busy reports whether an answer is BUSY, with a hint.
func busy(err error) bool {
	var e *rangeread.Error
	return errors.As(err, &e) && e.Status == rangeread.StatusBusy && e.RetryAfter > 0
}

// What is over the bound is answered at once, while all that was taken on still
// runs; and there is room again when that has ended.
func TestOverloadIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := make(handler)
		l := New(h, nowhere)
		if err := l.Set(Limits{Reads: 3}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 3)
		for _, from := range []peer.ID{"a", "c", "d"} {
			go func() { done <- ask(l, from, rangeread.Request{}) }()
		}
		synctest.Wait()
		start := time.Now()
		for range 100 {
			if err := ask(l, "b", rangeread.Request{}); !busy(err) {
				t.Fatalf("over the bound: %v", err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("refused after %v", d)
		}
		close(h)
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := ask(l, "b", rangeread.Request{}); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
}

// crowd serves honest peers at once, all others when it is released.
type crowd struct {
	handler
	honest peer.ID
}

func (c crowd) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	if from == c.honest {
		return nil
	}
	return c.handler.Serve(ctx, from, req, a)
}

// Slow readers ask for all that a peer can have, again and again, and there are
// as many of them as would take every place: another peer is served meanwhile,
// also one that reads much at once. One slow reader by itself has all that it asks
// for.
func TestSlowReadersLeavePlaces(t *testing.T) {
	const slow, most = 100, rangeread.MaxReads
	synctest.Test(t, func(t *testing.T) {
		h := make(handler)
		l := New(crowd{h, "honest"}, nowhere)
		taken := func(from peer.ID) (n int) {
			refused := make(chan error, most)
			for range most {
				go func() { refused <- ask(l, from, rangeread.Request{}) }()
			}
			synctest.Wait()
			for range len(refused) {
				if err := <-refused; !busy(err) {
					t.Fatal(err)
				}
				n++
			}
			return most - n
		}
		if n := taken("0"); n != most {
			t.Errorf("of one slow peer %d reads are taken, want %d", n, most)
		}
		for i := range slow {
			taken(peer.ID(strconv.Itoa(i + 1)))
		}
		for i := range slow { // whoever has places tries for more
			if n := taken(peer.ID(strconv.Itoa(i + 1))); n != 0 {
				t.Errorf("slow reader %d got %d more", i+1, n)
			}
		}
		for range 100 {
			if err := ask(l, "honest", rangeread.Request{}); err != nil {
				t.Fatalf("beside slow readers: %v", err)
			}
		}
		if n := taken("gateway"); n < 2 {
			t.Errorf("another that waits got %d reads taken, want some", n)
		}
		close(h)
		synctest.Wait()
		if l.active != 0 || len(l.held) != 0 {
			t.Errorf("%d reads are still counted, of %d peers", l.active, len(l.held))
		}
	})
}

// A slow peer that is alone has all places but those for who comes next, and who
// comes gets one at once; from then on the two share.
func TestLonePeer(t *testing.T) {
	for _, c := range []struct{ reads, want, next int }{
		{1, 1, 0}, {2, 1, 1}, {3, 2, 1}, {8, 7, 1}, {16, 14, 1}, {64, 56, 1}, {100, 64, 1}, {2048, 64, 64},
	} {
		t.Run(strconv.Itoa(c.reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := make(handler)
				l := New(h, nowhere)
				if err := l.Set(Limits{Reads: c.reads}); err != nil {
					t.Fatal(err)
				}
				taken := func(from peer.ID) int {
					for range rangeread.MaxReads - l.held[from] {
						go func() { _ = ask(l, from, rangeread.Request{}) }()
					}
					synctest.Wait()
					return l.held[from]
				}
				if n := taken("lone"); n != c.want {
					t.Errorf("a lone peer has %d of %d places, want %d", n, c.reads, c.want)
				}
				if n := taken("next"); n != c.next {
					t.Errorf("the next has %d of %d places, want %d", n, c.reads, c.next)
				}
				if n := taken("lone"); n != c.want {
					t.Errorf("beside the next the first has %d of %d places, want the %d of before", n, c.reads, c.want)
				}
				close(h)
				synctest.Wait()
			})
		})
	}
}

// One peer's flood is refused, others are served meanwhile, and it is served
// again at its rate.
func TestPeerRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := make(handler)
		close(h)
		l := New(h, nowhere)
		if err := l.Set(Limits{PeerReads: 10, PeerTasks: 6}); err != nil {
			t.Fatal(err)
		}
		count := func(from peer.ID, n int, req func(i int) rangeread.Request) (ok int) {
			for i := range n {
				if err := ask(l, from, req(i)); err == nil {
					ok++
				} else if !busy(err) {
					t.Fatal(err)
				}
			}
			return ok
		}
		plain := func(int) rangeread.Request { return rangeread.Request{} }
		if n := count("flood", 1000, plain); n != 10 {
			t.Errorf("%d of a flood are served, want 10", n)
		}
		if n := count("other", 5, plain); n != 5 {
			t.Errorf("%d of another peer are served, want 5", n)
		}
		time.Sleep(time.Second)
		if n := count("flood", 1000, plain); n != 10 {
			t.Errorf("%d are served a second later, want 10", n)
		}
		named := func(i int) rangeread.Request {
			return rangeread.Request{Task: content.TaskID{byte(i)}, Origin: &rangeread.Origin{}}
		}
		if n := count("names", 8, named); n != 6 {
			t.Errorf("%d files are looked at, want 6", n)
		}
		time.Sleep(time.Second)
		if n := count("names", 3, named); n != 3 {
			t.Errorf("%d of the same files are looked at again, want 3", n)
		}
	})
}

func TestChange(t *testing.T) {
	l := New(make(handler), nowhere)
	got, err := l.Change([]byte(`{"reads": 7}`))
	want := Default()
	want.Reads = 7
	if err != nil || got != any(want) || l.Limits() != want {
		t.Errorf("changed to %+v, %v", got, err)
	}
	for _, bad := range []string{`{"reads": -1}`, `{"peer_reads_per_second": 1e10}`, `{"reads": "x"}`, `[`} {
		if _, err := l.Change([]byte(bad)); err == nil || l.Limits() != want {
			t.Errorf("%s: %v, now %+v", bad, err, l.Limits())
		}
	}
}

// FuzzChange: whatever is asked for, the limits in force can be.
func FuzzChange(f *testing.F) {
	f.Add([]byte(`{"reads": 7, "peer_reads_per_second": 0.5}`))
	f.Add([]byte(`{"peer_tasks_per_minute": 1e300}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := New(make(handler), nowhere)
		if _, err := l.Change(text); err != nil && l.Limits() != Default() {
			t.Errorf("%q is refused, and changes the limits: %v", text, err)
		}
		if err := l.Limits().Validate(); err != nil {
			t.Error(err)
		}
	})
}
