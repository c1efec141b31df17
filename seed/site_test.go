package seed

import (
	"context"
	"fmt"
	"testing"
	"time"

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
			origin, g := newFakeOrigin(2*mib), newGate(0)
			waiting := make(chan struct{})
			source := newNode(t, hosts[0], func(*node) Filler {
				return fillFunc(func(ctx context.Context, job *Job) error {
					if job.Pos() == 0 {
						return origin.Fill(ctx, job)
					}
					ask := job.AskPeer
					if tc.through {
						ask = job.AskSite
					}
					ask(hosts[2].ID())
					close(waiting)
					if err := g.step(ctx, 0); err != nil {
						return err
					}
					return origin.Fill(ctx, job)
				})
			}, nil)
			reader := newNode(t, hosts[1], func(*node) Filler { return fillFunc(nil) }, nil)
			connectAll(t, source, reader)
			mustRead(t, source.m, origin.data, content.Range{Len: mib})
			want := content.Range{Off: mib, Len: mib}
			done := make(chan error, 2)
			go func() {
				got, err := readRange(t.Context(), t, source.m, want)
				done <- sameBytes(got, err, origin.data, want)
			}()
			<-waiting
			answer := make(chan rangeread.Status, 1)
			go func() {
				body, err := reader.client.Open(t.Context(), source.id(), rangeread.Request{
					Task: testTask(t).ID, Range: want, Origin: &rangeread.Origin{URL: testURL, Size: 2 * mib}, Site: tc.site,
				})
				if err == nil { // its header came
					_, err = body.Next(nil)
					_ = body.Close()
				}
				answer <- rangeread.StatusOf(err)
			}()
			status := rangeread.StatusNotFound
			if tc.follows {
				p2ptest.Eventually(t, soon, func() bool { return followers(source.m) == 2 }, "the reader follows")
				status = rangeread.StatusOK
				g.open(always)
			}
			if s := <-answer; s != status {
				t.Errorf("got %s, want %s", s, status)
			}
			g.open(always)
			if err := <-done; err != nil {
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
			origin, g := newFakeOrigin(2*mib), newGate(0)
			waiting := make(chan struct{})
			source := newNode(t, hosts[0], func(*node) Filler {
				return fillFunc(func(ctx context.Context, job *Job) error {
					if job.Pos() == 0 {
						return origin.Fill(ctx, job)
					}
					if tc.named {
						job.AskHeld(other)
					} else {
						job.AskHeld("")
					}
					close(waiting)
					if err := g.step(ctx, 0); err != nil {
						return err
					}
					return origin.Fill(ctx, job)
				})
			}, nil)
			client := newNode(t, hosts[1], func(*node) Filler { return fillFunc(nil) }, nil)
			connectAll(t, source, client)
			mustRead(t, source.m, origin.data, content.Range{Len: mib})
			want := content.Range{Off: mib, Len: mib}
			done := make(chan error, 1)
			go func() {
				got, err := readRange(t.Context(), t, source.m, want)
				done <- sameBytes(got, err, origin.data, want)
			}()
			<-waiting
			path := []peer.ID{reader}
			if tc.path {
				path = []peer.ID{other, reader}
			}
			answer := make(chan rangeread.Status, 1)
			go func() {
				body, err := client.client.Open(t.Context(), source.id(), rangeread.Request{
					Task: testTask(t).ID, Range: want, Path: path, Origin: &rangeread.Origin{URL: testURL, Size: 2 * mib},
				})
				if err == nil { // its header came
					_, err = body.Next(nil)
					_ = body.Close()
				}
				answer <- rangeread.StatusOf(err)
			}()
			if tc.want == rangeread.StatusOK {
				p2ptest.Eventually(t, soon, func() bool { return followers(source.m) == 2 }, "the reader follows")
				g.open(always)
			}
			select {
			case s := <-answer:
				if s != tc.want {
					t.Errorf("got %s, want %s", s, tc.want)
				}
			case <-time.After(soon):
				t.Errorf("it waits, want %s", tc.want)
			}
			g.open(always)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}
