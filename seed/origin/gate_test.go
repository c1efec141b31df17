package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

// task is a request for the metadata of one of many files of the origin.
func task(i int) Request {
	return Request{URL: fmt.Sprintf("http://origin.test/%d", i), Task: content.TaskID{byte(i), byte(i >> 8), 1}}
}

// An origin that says when to come again is not asked before: first for the
// task it said it of, and when it says it of several for all.
func TestRetryAfterIsHonoured(t *testing.T) {
	for name, tc := range map[string]struct {
		status, after string
		wait          time.Duration
	}{
		"429 in seconds":     {"429 Slow Down", "30", 30 * time.Second},
		"503 in seconds":     {"503 Busy", "90", 90 * time.Second},
		"503 until a date":   {"503 Busy", "Sat, 01 Jan 2000 00:00:40 GMT", 40 * time.Second}, // a bubble's time begins in 2000
		"429 for a long day": {"429 Slow Down", "86400", 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var busy atomic.Bool
				busy.Store(true)
				o := &memory{size: mib}
				o.reply = func(conn net.Conn, h hit) bool {
					if busy.Load() && h.URL.Path != "/9" {
						o.say(conn, tc.status+"\nRetry-After: "+tc.after+"\nContent-Length: 0\n\n")
						return true
					}
					return o.good(conn, h)
				}
				c := o.client(t, Config{})
				start := time.Now()
				_, err := c.Head(t.Context(), task(1))
				b := spent(t, err, ReasonRetryAfter)
				var status *StatusError
				if b.RetryAfter < tc.wait || b.RetryAfter > tc.wait*11/10+1 || !errors.As(err, &status) || !strings.HasPrefix(tc.status, fmt.Sprint(status.Status)) {
					t.Errorf("got %v after %v, want the status and %v, or up to a tenth more", err, b.RetryAfter, tc.wait)
				}
				for range 5 {
					c.Head(t.Context(), task(1))
					read(t, t.Context(), c, task(1))
				}
				if n := len(o.seen(nil)); n != 1 || time.Since(start) > 0 {
					t.Fatalf("%d requests in %v, want one", n, time.Since(start))
				}
				if _, err := c.Head(t.Context(), task(9)); err != nil {
					t.Errorf("another task: %v", err)
				}
				c.Head(t.Context(), task(2))
				c.Head(t.Context(), task(3))
				_, err = c.Head(t.Context(), task(9))
				spent(t, err, ReasonRetryAfter)
				if n := len(o.seen(nil)); n != 4 {
					t.Errorf("%d requests, want three that were told to wait and a good one", n)
				}
				busy.Store(false)
				time.Sleep(tc.wait - 1)
				if _, err := c.Head(t.Context(), task(1)); err == nil {
					t.Error("asked before it was time")
				}
				time.Sleep(tc.wait/10 + 2)
				for _, i := range []int{1, 2, 3, 9} {
					if _, err := c.Head(t.Context(), task(i)); err != nil {
						t.Errorf("task %d, when it is time: %v", i, err)
					}
				}
			})
		})
	}
}

// Hold-offs differ, so that not everybody comes back at once.
func TestRetryAfterIsSpread(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 10 {
		seen[Limits{}.withDefaults().hold(time.Minute)] = true
	}
	if len(seen) < 5 {
		t.Errorf("ten waits of %d lengths", len(seen))
	}
}

// An origin gets a bounded number of requests at once; the others wait in line,
// and leave it when their context ends.
func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		o := &memory{size: 500 * mib}
		o.reply = func(conn net.Conn, h hit) bool {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			h.rng.Len = min(h.rng.Len, 1000)
			return o.good(conn, h)
		}
		c := o.client(t, Config{})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var ended []int64
		for i := range int64(200) {
			wg.Go(func() {
				r := at(i, 1)
				r.Range.Len = 1000
				if _, err := read(t, t.Context(), c, r); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ended = append(ended, i)
			})
			synctest.Wait() // they come in order
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, at(300, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("out of patience in line: %v", err)
		}
		start := time.Now()
		wg.Wait()
		if d := time.Since(start); most.Load() != 64 || d > 4*time.Second {
			t.Errorf("%d at once, all within %v; want 64, within 4 s", most.Load(), d)
		}
		if n := o.dialled(); n > 64 {
			t.Errorf("%d connections for 64 requests at once", n)
		}
		for i, block := range ended {
			if int64(i/64) != block/64 {
				t.Errorf("reader %d was served as number %d", block, i)
			}
		}
		if n := len(o.seen(nil)); n != 200 {
			t.Errorf("%d requests; who left the line is not to be asked for", n)
		}
	})
}

// An origin that nobody can connect to is tried by a few, then by one at a time.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		o := &memory{size: mib}
		o.refuse = func(ctx context.Context) error {
			if !down.Load() {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
			return refusing(ctx)
		}
		reg := prometheus.NewRegistry()
		c := o.client(t, Config{Registerer: reg, Limits: Limits{Attempts: 1}})
		for i := range 5 {
			if _, err := c.Head(t.Context(), task(i)); !errors.Is(err, ErrUnreachable) || i < 4 && errors.As(err, new(*BudgetError)) {
				t.Fatalf("read %d: %v", i, err)
			}
		}
		crowd := func() {
			t.Helper()
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if _, err := c.Head(t.Context(), task(i)); !errors.Is(err, ErrUnreachable) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if d := time.Since(start); d > 100*time.Millisecond {
				t.Errorf("took %v", d)
			}
		}
		crowd()
		_, err := c.Head(t.Context(), task(7))
		if b := spent(t, err, ReasonUnreachable); b.RetryAfter > 7*time.Second || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v; want the reason, and a trial within 7 s", err)
		}
		if n := o.dialled(); n != 5 {
			t.Fatalf("%d dials, want 5", n)
		}
		if v := gathered(t, reg)["p2pnode_origin_breakers_open"]; v != 1 {
			t.Errorf("%v breakers are open", v)
		}
		if _, err := c.Head(t.Context(), Request{URL: "http://elsewhere.test/"}); errors.As(err, new(*BudgetError)) {
			t.Errorf("another origin: %v", err)
		}
		before := o.dialled()
		for range 600 { // ten minutes
			time.Sleep(time.Second)
			crowd()
		}
		// 5, 10, 20, 40 s, then every minute, each up to a quarter less.
		if n := o.dialled() - before; n < 9 || n > 20 {
			t.Errorf("%d trials in ten minutes", n)
		}
		down.Store(false)
		time.Sleep(maxBreak * 5 / 4)
		if _, err := c.Head(t.Context(), task(1)); err != nil {
			t.Errorf("the trial: %v", err)
		}
		if _, err := c.Head(t.Context(), task(2)); err != nil {
			t.Errorf("after the trial: %v", err)
		}
		if v := gathered(t, reg); v["p2pnode_origin_breakers_open"] != 0 || v["p2pnode_origin_breaker_openings_total"] != 1 || v["p2pnode_origin_refused_total unreachable"] == 0 {
			t.Errorf("metrics: %v", v)
		}
	})
}

// Readers without patience do not keep a breaker from opening where connections
// hang, and a trial that is given up lets the next one try.
func TestBreakerOfHangingOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		o := &memory{size: mib}
		o.refuse = func(ctx context.Context) error {
			if down.Load() {
				<-ctx.Done()
			}
			return context.Cause(ctx)
		}
		c := o.client(t, Config{})
		for i := range 8 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := c.Head(ctx, task(i))
			cancel()
			if i >= 5 {
				spent(t, err, ReasonUnreachable)
			}
		}
		if n := o.dialled(); n != 5 {
			t.Errorf("%d dials, want 5", n)
		}
		time.Sleep(7 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond) // too short to say anything
		c.Head(ctx, task(1))
		cancel()
		down.Store(false)
		if _, err := c.Head(t.Context(), task(2)); err != nil {
			t.Errorf("after a trial that was given up: %v", err)
		}
	})
}

// Failed connections that are far apart are no reason to give up an origin.
func TestBreakerForgets(t *testing.T) {
	l := Limits{}.withDefaults()
	var b breaker
	now := time.Unix(0, 0)
	for range 100 {
		now = now.Add(l.Period/4 + 1) // five of them take more than a Period
		if b.failed(now, l, errConnect) {
			t.Fatal("it opened")
		}
	}
	for range l.BreakAfter {
		b.failed(now, l, errConnect)
	}
	if !b.open {
		t.Error("it did not open")
	}
}

func TestOriginOf(t *testing.T) {
	for in, want := range map[string]string{
		"http://A.example/x":          "http://a.example:80",
		"http://a.example:80/":        "http://a.example:80",
		"https://a.example/y?z":       "https://a.example:443",
		"https://a.example:8443":      "https://a.example:8443",
		"http://[2001:DB8::1]/":       "http://[2001:db8::1]:80",
		"https://user@a.example:443/": "https://a.example:443",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := originOf(u); got != want {
			t.Errorf("origin of %s is %s, want %s", in, got, want)
		}
	}
}

// gathered returns the values of counters and gauges that are not 0, by name
// and labels.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); v != 0 {
				got[name] = v
			}
		}
	}
	return got
}
