package seed

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// TestWhoMayFollow: who waits for a peer lets those follow who score lower, and
// those of whose site it is the one that reads; who reads through another of
// its own site lets nobody.
func TestWhoMayFollow(t *testing.T) {
	for _, tc := range []struct {
		through, site, higher, follows bool
	}{
		{follows: true},
		{higher: true},
		{site: true, follows: true},
		{site: true, higher: true, follows: true},
		{through: true},
		{through: true, site: true},
	} {
		t.Run(fmt.Sprintf("%+v", tc), func(t *testing.T) {
			hosts := p2ptest.Hosts(t, 3)
			if scoresBelow(t, hosts[0], hosts[1], 1) != tc.higher {
				hosts[0], hosts[1] = hosts[1], hosts[0]
			}
			w := newWaiter(t, hosts[0], hosts[1], func(job *Job) {
				ask := job.AskPeer
				if tc.through {
					ask = job.AskSite
				}
				ask(hosts[2].ID())
			})
			answer := make(chan rangeread.Status, 1)
			go func() {
				body, err := w.reader.client.Open(t.Context(), w.source.id(), rangeread.Request{
					Task: testTask(t).ID, Range: w.want, Origin: &rangeread.Origin{URL: testURL, Size: 2 * mib}, Site: tc.site,
				})
				if err == nil { // its header came
					_, err = body.Next(nil)
					_ = body.Close()
				}
				answer <- rangeread.StatusOf(err)
			}()
			status := rangeread.StatusNotFound
			if tc.follows {
				p2ptest.Eventually(t, soon, func() bool { return followers(w.source.m) == 2 }, "the reader follows")
				status = rangeread.StatusOK
				w.gate.open(always)
			}
			if s := <-answer; s != status {
				t.Errorf("got %s, want %s", s, status)
			}
			w.gate.open(always)
			if err := <-w.done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWhoMayFollowTheOwner: who has become the owner and asks the one that reads for
// its site first lets all follow but those who ask for that one, who would wait for
// themselves.
func TestWhoMayFollowTheOwner(t *testing.T) {
	for _, tc := range []struct {
		name                string
		named, path, itself bool
		want                rangeread.Status
	}{
		{"a peer", true, false, false, rangeread.StatusOK},
		{"for the one that is asked", true, true, false, rangeread.StatusNotFound},
		{"the one that is asked", true, false, true, rangeread.StatusOK},
		{"nobody of the site is asked", false, true, false, rangeread.StatusOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts := p2ptest.Hosts(t, 3)
			reader, other := hosts[1].ID(), hosts[2].ID()
			if tc.itself {
				other = reader
			}
			w := newWaiter(t, hosts[0], hosts[1], func(job *Job) {
				if tc.named {
					job.AskHeld(other)
				} else {
					job.AskHeld("")
				}
			})
			path := []peer.ID{reader}
			if tc.path {
				path = []peer.ID{other, reader}
			}
			answer := make(chan rangeread.Status, 1)
			go func() {
				body, err := w.reader.client.Open(t.Context(), w.source.id(), rangeread.Request{
					Task: testTask(t).ID, Range: w.want, Path: path, Origin: &rangeread.Origin{URL: testURL, Size: 2 * mib},
				})
				if err == nil { // its header came
					_, err = body.Next(nil)
					_ = body.Close()
				}
				answer <- rangeread.StatusOf(err)
			}()
			if tc.want == rangeread.StatusOK {
				p2ptest.Eventually(t, soon, func() bool { return followers(w.source.m) == 2 }, "the reader follows")
				w.gate.open(always)
			}
			select {
			case s := <-answer:
				if s != tc.want {
					t.Errorf("got %s, want %s", s, tc.want)
				}
			case <-time.After(soon):
				t.Errorf("it waits, want %s", tc.want)
			}
			w.gate.open(always)
			if err := <-w.done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// waiter is a node whose client waits for the second block of a file, and another
// node that may want to follow it.
type waiter struct {
	source, reader *node
	gate           *gate // open, the block comes
	want           content.Range
	done           chan error // what the client has got
}

// newWaiter returns once the fill of the block waits, having said by ask whom it
// asks.
func newWaiter(t *testing.T, source, reader host.Host, ask func(*Job)) *waiter {
	t.Helper()
	origin, g := newFakeOrigin(2*mib), newGate(0)
	waiting := make(chan struct{})
	w := &waiter{gate: g, want: content.Range{Off: mib, Len: mib}, done: make(chan error, 1)}
	w.source = newNode(t, source, func(*node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			if job.Pos() == 0 {
				return origin.Fill(ctx, job)
			}
			ask(job)
			close(waiting)
			if err := g.step(ctx, 0); err != nil {
				return err
			}
			return origin.Fill(ctx, job)
		})
	}, nil)
	w.reader = newNode(t, reader, func(*node) Filler { return fillFunc(nil) }, nil)
	connectAll(t, w.source, w.reader)
	mustRead(t, w.source.m, origin.data, content.Range{Len: mib})
	go func() {
		got, err := readRange(t.Context(), t, w.source.m, w.want)
		w.done <- sameBytes(got, err, origin.data, w.want)
	}()
	<-waiting
	return w
}
