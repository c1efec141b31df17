package locate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// fakeRouter is a DHT that knows what it is told.
type fakeRouter struct {
	providers []peer.ID
	delay     time.Duration // before each provider
	hang      bool          // the search never ends by itself
	fail      int           // so many announcements fail
	slow      time.Duration // of an announcement

	mu sync.Mutex // guards the following
	counts
}

type counts struct {
	finds     int
	cancelled int
	announced []time.Time
	byKey     map[cid.Cid]int
	running   int
	most      int
}

func (r *fakeRouter) FindProvidersAsync(ctx context.Context, _ cid.Cid, count int) <-chan peer.AddrInfo {
	r.mu.Lock()
	r.finds++
	r.mu.Unlock()
	out := make(chan peer.AddrInfo)
	go func() {
		defer close(out)
		for i, p := range r.providers {
			if i == count {
				return
			}
			select {
			case <-time.After(r.delay):
			case <-ctx.Done():
			}
			select {
			case out <- peer.AddrInfo{ID: p}:
			case <-ctx.Done():
				r.gone()
				return
			}
		}
		if r.hang {
			<-ctx.Done()
			r.gone()
		}
	}()
	return out
}

func (r *fakeRouter) gone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancelled++
}

func (r *fakeRouter) Provide(ctx context.Context, key cid.Cid, announce bool) error {
	r.mu.Lock()
	r.running++
	r.most = max(r.most, r.running)
	r.mu.Unlock()
	select {
	case <-time.After(r.slow):
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.announced = append(r.announced, time.Now())
	if r.byKey == nil {
		r.byKey = make(map[cid.Cid]int)
	}
	r.byKey[key]++
	if !announce {
		return errors.New("not told to announce")
	}
	if r.fail > 0 {
		r.fail--
		return errors.New("no peers in table")
	}
	return nil
}

func TestFind(t *testing.T) {
	nine := make([]peer.ID, 0, 12)
	for i := range 12 {
		nine = append(nine, id(fmt.Sprint(i)))
	}
	for _, c := range []struct {
		name   string
		router *fakeRouter
		want   int
		took   time.Duration
	}{
		{"found", &fakeRouter{providers: ids("a", "b")}, 2, 0},
		{"none", &fakeRouter{}, 0, 0},
		{"oneself is left out", &fakeRouter{providers: ids("self", "a")}, 1, 0},
		{"twice", &fakeRouter{providers: ids("a", "a", "b")}, 2, 0},
		{"more than wanted", &fakeRouter{providers: nine}, 8, 0},
		{"walk hangs after the first", &fakeRouter{providers: ids("a"), delay: time.Second, hang: true}, 1, time.Second + settleTime},
		{"walk hangs with none", &fakeRouter{hang: true}, 0, findTimeout},
		{"second comes too late", &fakeRouter{providers: ids("a", "b"), delay: time.Second}, 1, time.Second + settleTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewProviders(ProvidersConfig{Router: c.router, Self: id("self")})
				began := time.Now()
				got := p.Find(t.Context(), taskNamed(1))
				if len(got) != c.want || time.Since(began) != c.took {
					t.Errorf("%d providers after %s, want %d after %s", len(got), time.Since(began), c.want, c.took)
				}
			})
		})
	}
}

func TestFindIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRouter{providers: ids("a"), delay: time.Second}
		p := NewProviders(ProvidersConfig{Router: r})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := p.Find(t.Context(), taskNamed(1)); len(got) != 1 {
					t.Errorf("found %v", got)
				}
			})
		}
		// One that does not wait to the end takes nothing from the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if got := p.Find(ctx, taskNamed(1)); got != nil {
			t.Errorf("found %v after its context had ended", got)
		}
		wg.Wait()
		if r.seen().finds != 1 || r.seen().cancelled != 0 {
			t.Errorf("%d searches, %d cancelled; want one", r.seen().finds, r.seen().cancelled)
		}
		p.Find(t.Context(), taskNamed(2))
		if r.seen().finds != 2 {
			t.Error("another task was not searched for")
		}
	})
}

func TestFindIsCached(t *testing.T) {
	for _, c := range []struct {
		name      string
		providers []peer.ID
		ttl       time.Duration
	}{{"found", ids("a"), positiveTTL}, {"none", nil, negativeTTL}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &fakeRouter{providers: c.providers}
				p := NewProviders(ProvidersConfig{Router: r})
				p.Find(t.Context(), taskNamed(1))
				pass(c.ttl - 1)
				if got := p.Find(t.Context(), taskNamed(1)); len(got) != len(c.providers) || r.seen().finds != 1 {
					t.Errorf("found %v in %d searches within %s", got, r.seen().finds, c.ttl)
				}
				pass(1)
				if p.Find(t.Context(), taskNamed(1)); r.seen().finds != 2 {
					t.Errorf("%d searches after %s, want 2", r.seen().finds, c.ttl)
				}
			})
		})
	}
}

// The last caller that leaves ends the search, and what it would have found is
// not known: the next one searches again.
func TestAbandonedFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRouter{hang: true}
		p := NewProviders(ProvidersConfig{Router: r})
		var wg sync.WaitGroup
		for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				p.Find(ctx, taskNamed(1))
				synctest.Wait()
			})
		}
		pass(1500 * time.Millisecond)
		if r.seen().cancelled != 0 {
			t.Error("search ended while somebody waited")
		}
		wg.Wait()
		synctest.Wait()
		if r.seen().cancelled != 1 || r.seen().finds != 1 {
			t.Errorf("%d of %d searches cancelled, want one of one", r.seen().cancelled, r.seen().finds)
		}
		r.hang, r.providers = false, ids("a")
		if got := p.Find(t.Context(), taskNamed(1)); len(got) != 1 {
			t.Errorf("found %v: an abandoned search was cached", got)
		}
	})
}

func TestNoRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewProviders(ProvidersConfig{})
		p.Add(taskNamed(1), Duty)
		if got := p.Find(t.Context(), taskNamed(1)); got != nil {
			t.Errorf("found %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Run(ctx); err != nil || ctx.Err() == nil {
			t.Errorf("Run: %v before its context ended", err)
		}
	})
}

// pass lets virtual time pass, and all that is to happen then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// seen is a copy of what the router has counted.
func (r *fakeRouter) seen() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.announced = slices.Clone(c.announced)
	c.byKey = maps.Clone(c.byKey)
	return c
}

// running runs p until the returned function is called.
func running(t *testing.T, p *Providers) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRouter{}
		p := NewProviders(ProvidersConfig{Router: r})
		defer running(t, p)()
		pass(time.Minute)
		added := time.Now()
		p.Add(taskNamed(1), Duty)
		p.Add(taskNamed(1), Duty)
		synctest.Wait()
		if len(r.seen().announced) != 1 || !r.seen().announced[0].Equal(added) || r.seen().byKey[taskNamed(1).CID()] != 1 {
			t.Fatalf("announced %v by the time it was added", r.seen().announced)
		}
		for n := 2; n < 5; n++ {
			pass(22 * time.Minute)
			if len(r.seen().announced) < n {
				t.Fatalf("announced %d times, want %d", len(r.seen().announced), n)
			}
			if gap := r.seen().announced[n-1].Sub(r.seen().announced[n-2]); gap < 18*time.Minute || gap > 22*time.Minute {
				t.Errorf("again after %s", gap)
			}
		}
		p.Remove(taskNamed(1), Duty)
		p.Remove(taskNamed(2), Duty)
		n := len(r.seen().announced)
		pass(time.Hour)
		if len(r.seen().announced) != n {
			t.Error("announced after it was removed")
		}
	})
}

func TestAnnounceRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRouter{fail: 10}
		p := NewProviders(ProvidersConfig{Router: r})
		defer running(t, p)()
		p.Add(taskNamed(1), Duty)
		pass(19 * time.Minute)
		if len(r.seen().announced) != 11 {
			t.Fatalf("announced %d times, want 10 failures and a success", len(r.seen().announced))
		}
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300} {
			want *= time.Second
			if gap := r.seen().announced[i+1].Sub(r.seen().announced[i]); gap < want*9/10 || gap > want*11/10 {
				t.Errorf("retry %d after %s, want %s ±10 %%", i+1, gap, want)
			}
		}
	})
}

func TestAnnounceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRouter{slow: time.Second}
		p := NewProviders(ProvidersConfig{Router: r})
		stop := running(t, p)
		const tasks = 80
		for n := range tasks {
			p.Add(taskNamed(n), Duty)
		}
		pass(500 * time.Millisecond)
		p.Remove(taskNamed(0), Duty) // while it is being announced, or waits
		pass(tasks / provideWorkers * time.Second)
		if r.seen().most != provideWorkers || len(r.seen().announced) < tasks-1 {
			t.Errorf("%d at once, %d announced; want %d and %d", r.seen().most, len(r.seen().announced), provideWorkers, tasks)
		}
		pass(30 * time.Minute)
		if n := r.seen().byKey[taskNamed(0).CID()]; n > 1 {
			t.Errorf("removed task announced %d times", n)
		}
		// The end waits for what is running, and cuts it short.
		p.Add(taskNamed(1000), Duty)
		synctest.Wait()
		began := time.Now()
		stop()
		if r.seen().running != 0 || time.Since(began) != 0 {
			t.Errorf("%d still running %s after the end", r.seen().running, time.Since(began))
		}
	})
}

func TestAddIsBounded(t *testing.T) {
	p := NewProviders(ProvidersConfig{})
	for n := range maxProvided {
		var task content.TaskID
		task[0], task[1], task[2] = byte(n), byte(n>>8), byte(n>>16)
		if !p.Add(task, Duty) {
			t.Fatalf("task %d refused", n)
		}
	}
	if p.Add(taskNamed(1), Duty) {
		t.Error("no bound")
	}
	p.Remove(content.TaskID{}, Duty)
	if !p.Add(taskNamed(1), Duty) {
		t.Error("no room after Remove")
	}
}

// A seed that loses its duty stops announcing what it holds in part, and goes on
// with what it holds whole.
func TestReasons(t *testing.T) {
	p := NewProviders(ProvidersConfig{Router: &fakeRouter{}})
	part, whole, both := taskNamed(1), taskNamed(2), taskNamed(3)
	p.Add(part, Duty)
	p.Add(whole, Whole)
	p.Add(both, Duty)
	p.Add(both, Whole)
	for _, task := range []content.TaskID{part, whole, both} {
		p.Remove(task, Duty)
	}
	if p.added[part] != nil || p.added[whole] == nil || p.added[both] == nil || len(p.due) != 2 {
		t.Errorf("announced after the end of the duty: part %t, whole %t, both %t", p.added[part] != nil, p.added[whole] != nil, p.added[both] != nil)
	}
	p.Remove(whole, Duty|Whole)
	if p.added[whole] != nil {
		t.Error("what has no reason is announced still")
	}
}
