package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestShare: places go to the client that has the fewest, in the order in which
// its requests came.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(2, 4, 4)
		var order []string
		ask := func(client, name string) {
			go func() {
				if err := s.take(t.Context(), client); err != nil {
					t.Error(err)
				}
				order = append(order, name)
			}()
			synctest.Wait()
		}
		ask("greedy", "g1")
		ask("greedy", "g2")
		ask("greedy", "g3")
		ask("greedy", "g4")
		ask("other", "o1")
		ask("other", "o2")
		if err := s.take(t.Context(), "third"); !errors.Is(err, errBusy) {
			t.Errorf("a fifth waits: %v", err)
		}
		leave := func(client string) {
			s.leave(client)
			synctest.Wait()
		}
		leave("greedy") // greedy 1, other 0
		leave("greedy") // greedy 0, other 1
		leave("other")
		leave("greedy")
		if want := []string{"g1", "g2", "o1", "g3", "o2", "g4"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		leave("greedy")
		leave("other")
		if s.free != 2 || len(s.clients) != 0 || s.queued != 0 {
			t.Errorf("at the end %d free, %d clients, %d queued", s.free, len(s.clients), s.queued)
		}
	})
}

// TestShareTurns: of clients that have as many, the one is next whose last turn is
// longest ago, however early the others queued.
func TestShareTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(1, 10, 10)
		var order []string
		if err := s.take(t.Context(), "d"); err != nil {
			t.Error(err)
		}
		for _, client := range []string{"a", "a", "a", "b", "b", "c"} {
			go func() {
				if err := s.take(t.Context(), client); err != nil {
					t.Error(err)
				}
				order = append(order, client)
				s.leave(client)
			}()
			synctest.Wait()
		}
		s.leave("d")
		synctest.Wait()
		if want := []string{"a", "b", "c", "a", "b", "a"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
	})
}

// TestShareComesBack: who has one request at a time, and comes back with the next as
// soon as it is done, does not go before who has had a turn and waits for another.
func TestShareComesBack(t *testing.T) {
	for _, places := range []int{1, 2} {
		t.Run(fmt.Sprint(places), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShare(places, 20, 20)
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				serve := func(client string) {
					if s.take(ctx, client) == nil {
						time.Sleep(time.Second)
						s.leave(client)
					}
				}
				const others = 4
				for i := range others {
					running.Go(func() {
						for ctx.Err() == nil {
							serve(fmt.Sprint("other", i))
						}
					})
				}
				time.Sleep(10 * time.Second)
				start := time.Now()
				var served atomic.Int64
				for range 2 {
					running.Go(func() {
						if serve("a"); ctx.Err() == nil {
							served.Add(1)
						}
					})
					synctest.Wait()
				}
				for served.Load() < 2 && time.Since(start) < time.Minute {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				if waited := time.Since(start); served.Load() < 2 || waited > 2*(others+1)*time.Second {
					t.Errorf("%d of 2 are served after %v", served.Load(), waited)
				}
				stop()
				running.Wait()
			})
		})
	}
}

// TestShareGivesUp: who goes away while he waits leaves nothing behind.
func TestShareGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(1, 10, 10)
		if err := s.take(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.take(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if s.queued != 0 || len(s.clients) != 1 {
			t.Errorf("%d queued, %d clients", s.queued, len(s.clients))
		}
		s.leave("a")
		if err := s.take(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	})
}
