package seed

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// ring makes n nodes of which each asks the next for everything, and then the
// origin.
func ring(t *testing.T, n int, origin Filler) []*node {
	hosts := p2ptest.Hosts(t, n)
	nodes := make([]*node, n)
	for i := range nodes {
		next := hosts[(i+1)%n].ID()
		nodes[i] = newNode(t, hosts[i], func(n *node) Filler {
			return peerFiller{n: n, origin: origin, from: func(*Job) []peer.ID { return []peer.ID{next} }}
		}, nil)
	}
	connectAll(t, nodes...)
	return nodes
}

// barrier lets n goroutines pass at once.
type barrier struct {
	wg sync.WaitGroup
}

func (b *barrier) meet() { b.wg.Done(); b.wg.Wait() }

// TestTwoAskOneAnother: two nodes that ask one another for the same block at the
// same time: one of them reads the origin, the other follows it. So too when
// they do not know the file yet.
func TestTwoAskOneAnother(t *testing.T) {
	const blocks = 10
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known %v", known), func(t *testing.T) {
			for round := range 4 {
				origin := newFakeOrigin(blocks * mib)
				nodes := ring(t, 2, origin)
				if known {
					for _, n := range nodes {
						open(t, n.m, content.Range{})
					}
				}
				var readers []func() error
				for i := range int64(blocks) {
					var b barrier
					b.wg.Add(2)
					for _, n := range nodes {
						readers = append(readers, func() error {
							ctx, cancel := context.WithTimeout(t.Context(), soon)
							defer cancel()
							b.meet()
							want := content.Range{Off: i * mib, Len: mib}
							got, err := readRange(ctx, t, n.m, want)
							return sameBytes(got, err, origin.data, want)
						})
					}
				}
				if err := parallel(readers...); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if n := origin.maxCopies(); n != 1 {
					t.Errorf("round %d: a block was read %d times", round, n)
				}
			}
		})
	}
}

// TestManyInACircle: three and four nodes that follow one another in a circle
// get out of it.
func TestManyInACircle(t *testing.T) {
	for _, n := range []int{3, 4} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d nodes, known %v", n, known), func(t *testing.T) {
				origin := newFakeOrigin(2 * mib)
				nodes := ring(t, n, origin)
				if known {
					for _, n := range nodes {
						open(t, n.m, content.Range{})
					}
				}
				var b barrier
				b.wg.Add(n)
				var readers []func() error
				for _, n := range nodes {
					readers = append(readers, func() error {
						ctx, cancel := context.WithTimeout(t.Context(), soon)
						defer cancel()
						b.meet()
						got, err := readRange(ctx, t, n.m, content.Range{Len: 2 * mib})
						return sameBytes(got, err, origin.data, content.Range{Len: 2 * mib})
					})
				}
				if err := parallel(readers...); err != nil {
					t.Fatal(err)
				}
				if most := origin.maxCopies(); most >= n {
					t.Errorf("a block was read %d times by %d nodes: nobody followed", most, n)
				}
			})
		}
	}
}

// TestNobodyFollowsInACircle: in a circle of peers, whatever their order, at
// least one refuses the one that follows it, and at least one does not.
func TestNobodyFollowsInACircle(t *testing.T) {
	var managers []*Manager
	for range 4 {
		managers = append(managers, newManager(t, fillFunc(nil), nil))
	}
	for stripe := range int64(3) {
		for _, circle := range permutations(managers) {
			cut := 0
			for i, at := range circle {
				if at.below(testTask(t).ID, stripe, circle[(i+1)%4].cfg.Self) {
					cut++
				}
			}
			if cut == 0 || cut == 4 {
				t.Errorf("%d of 4 in a circle refuse", cut)
			}
		}
	}
}

func permutations[T any](s []T) [][]T {
	if len(s) < 2 {
		return [][]T{s}
	}
	var out [][]T
	for i := range s {
		rest := slices.Delete(slices.Clone(s), i, i+1)
		for _, p := range permutations(rest) {
			out = append(out, append([]T{s[i]}, p...))
		}
	}
	return out
}

// TestSlowOriginIsAskedOnce: peers that go by way of others wait for a slow
// origin, which is asked by its owner alone.
func TestSlowOriginIsAskedOnce(t *testing.T) {
	origin := newFakeOrigin(mib)
	origin.before = func(ctx context.Context, _ *Job) error {
		select {
		case <-time.After(300 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	hosts := p2ptest.Hosts(t, 3)
	var nodes []*node
	for i := range hosts {
		nodes = append(nodes, newNode(t, hosts[i], func(n *node) Filler {
			if i == 0 {
				return origin
			}
			return peerFiller{n: n, from: func(*Job) []peer.ID {
				order := []peer.ID{hosts[1].ID(), hosts[0].ID()} // by way of node 1, else the owner
				return slices.DeleteFunc(order, func(p peer.ID) bool { return p == n.id() })
			}}
		}, nil))
	}
	connectAll(t, nodes...)
	var readers []func() error
	for _, n := range nodes {
		readers = append(readers, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			got, err := readRange(ctx, t, n.m, content.Range{Len: mib})
			return sameBytes(got, err, origin.data, content.Range{Len: mib})
		})
	}
	if err := parallel(readers...); err != nil {
		t.Fatal(err)
	}
	if n := origin.fills.Load(); n != 1 {
		t.Errorf("the origin was asked %d times, want 1", n)
	}
}

// TestHeadAsksWhileItIsAsked: an owner that is about to ask the head what the
// file is does not send the head away, who knows that and wants a block.
func TestHeadAsksWhileItIsAsked(t *testing.T) {
	origin := newFakeOrigin(2 * mib)
	hosts := p2ptest.Hosts(t, 2)
	if !scoresBelow(t, hosts[0], hosts[1], 0) { // the owner is the one that refuses
		slices.Reverse(hosts)
	}
	g := newGate(0)
	var owner, head *node
	owner = newNode(t, hosts[0], func(n *node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			if _, known := job.Meta(); known {
				return origin.Fill(ctx, job)
			}
			job.AskPeer(head.id())
			if err := g.step(ctx, 0); err != nil {
				return err
			}
			return peerFiller{n: n, from: func(*Job) []peer.ID { return []peer.ID{head.id()} }}.Fill(ctx, job)
		})
	}, nil)
	var asked atomic.Bool
	head = newNode(t, hosts[1], func(n *node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			if job.Pos() < mib {
				return origin.Fill(ctx, job)
			}
			asked.Store(true)
			meta, _ := job.Meta()
			job.Expect = meta.Generation
			return peerFiller{n: n, from: func(*Job) []peer.ID { return []peer.ID{owner.id()} }}.Fill(ctx, job)
		})
	}, nil)
	connectAll(t, owner, head)
	mustRead(t, head.m, origin.data, content.Range{Len: 1})
	read := func(n *node, block int64) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			want := content.Range{Off: block * mib, Len: mib}
			got, err := readRange(ctx, t, n.m, want)
			return sameBytes(got, err, origin.data, want)
		}
	}
	done := make(chan error, 2)
	go func() { done <- read(owner, 0)() }()
	// Were the head's request first the owner would ask for it, and could not ask it.
	p2ptest.Eventually(t, soon, func() bool { return followers(owner.m) == 1 }, "the owner is about to ask what the file is")
	go func() { done <- read(head, 1)() }()
	p2ptest.Eventually(t, soon, func() bool { return asked.Load() && followers(owner.m) == 2 }, "both wait for what the file is")
	g.open(always)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n := origin.maxCopies(); n != 1 {
		t.Errorf("a block was read %d times", n)
	}
}

// TestWaitsOnTheDead: a node that waits for a peer sends those away who may not
// wait with it; but those who have found that peer dead it tells to come again,
// since it will fetch for them in a moment; and so all where it has become the
// owner. What the origin refused it says to all: they would come again for nothing,
// and ask the origin in the end.
func TestWaitsOnTheDead(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known %v", known), func(t *testing.T) {
			hosts := p2ptest.Hosts(t, 3)
			dead, origin := hosts[2].ID(), newFakeOrigin(2*mib)
			want, size := content.Range{Len: mib}, int64(-1)
			if known {
				want.Off, size = mib, 2*mib
			}
			if !scoresBelow(t, hosts[0], hosts[1], want.Off/mib) {
				hosts[0], hosts[1] = hosts[1], hosts[0]
			}
			g := newGate(0)
			waiting, refuse, refused := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var owner atomic.Bool
			next := newNode(t, hosts[0], func(*node) Filler {
				return fillFunc(func(ctx context.Context, job *Job) error {
					if known && job.Pos() == 0 {
						return origin.Fill(ctx, job)
					}
					job.AskPeer(dead)
					close(waiting)
					<-refuse
					job.Refused(&OriginError{Status: http.StatusServiceUnavailable})
					job.AskPeer(dead)
					close(refused)
					if err := g.step(ctx, 0); err != nil {
						return err
					}
					return origin.Fill(ctx, job)
				})
			}, func(c *Config) {
				c.Owns = func(_ content.TaskID, stripe int64, skip []peer.ID) bool {
					return owner.Load() && stripe == want.Off/mib && len(skip) == 0
				}
			})
			reader := newNode(t, hosts[1], func(*node) Filler { return fillFunc(nil) }, nil)
			connectAll(t, next, reader)
			if known {
				mustRead(t, next.m, origin.data, content.Range{Len: mib})
			}
			done := make(chan error, 1)
			go func() {
				got, err := readRange(t.Context(), t, next.m, want)
				done <- sameBytes(got, err, origin.data, want)
			}()
			<-waiting
			path := []peer.ID{reader.id()}
			ask := func(skip ...peer.ID) rangeread.Status {
				body, err := reader.client.Open(t.Context(), next.id(), rangeread.Request{
					Task: testTask(t).ID, Range: want, Origin: &rangeread.Origin{URL: testURL, Size: size},
					Path: path, Skip: skip,
				})
				if err == nil { // the file is known: its header came
					_, err = body.Next(nil)
					_ = body.Close()
				}
				return rangeread.StatusOf(err)
			}
			if s := ask(); s != rangeread.StatusNotFound {
				t.Errorf("one who may not wait got %s", s)
			}
			if s := ask(dead); s != rangeread.StatusBusy {
				t.Errorf("one who knows that the source is dead got %s", s)
			}
			owner.Store(true) // the map has changed meanwhile
			if s := ask(); s != rangeread.StatusBusy {
				t.Errorf("one who asks the owner got %s", s)
			}
			path = append(path, dead)
			if s := ask(); s != rangeread.StatusNotFound {
				t.Errorf("one for whom the owner waits got %s", s)
			}
			path = path[:1]
			close(refuse) // the origin has, and a peer is asked for what it holds
			<-refused
			if s := ask(); s != rangeread.StatusOriginError {
				t.Errorf("one who asks the owner that the origin has refused got %s", s)
			}
			g.open(always)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}
