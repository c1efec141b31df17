package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ask sends a request from an address to the handler.
func ask(h *Handler, from string, header http.Header) *http.Response {
	r := httptest.NewRequest("GET", "http://origin.test/file", nil)
	r.RemoteAddr = from
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// TestUsers: clients elsewhere need a name and a password, on every face; these
// go no further.
func TestUsers(t *testing.T) {
	var checks atomic.Int64
	now := time.Unix(1_800_000_000, 0)
	swarm := newFakeSwarm(10)
	h := New(Config{Opener: swarm, Now: func() time.Time { return now }, Access: Access{Users: func(name, password string) bool {
		checks.Add(1)
		return name == "ann" && password == "se:cret"
	}}})
	good := header("Proxy-Authorization", "Basic YW5uOnNlOmNyZXQ=")
	for i, c := range []struct {
		from   string
		header http.Header
		status int
	}{
		{"127.0.0.1:9", nil, 200},
		{"192.0.2.1:9", nil, 407},
		{"192.0.2.1:9", header("Proxy-Authorization", "Basic YW5uOndyb25n"), 407},
		{"192.0.2.1:9", header("Proxy-Authorization", "Bearer x"), 407},
		{"192.0.2.1:9", header("Authorization", "Basic YW5uOnNlOmNyZXQ="), 407},
		{"192.0.2.1:9", header("Proxy-Authorization", "Basic YW5uOnNlOmNyZXQ=", "Proxy-Authorization", "x"), 407},
		{"192.0.2.1:9", good, 200},
		{"[2001:db8::1]:9", good, 200},
	} {
		res := ask(h, c.from, c.header)
		if res.StatusCode != c.status {
			t.Errorf("%d: %s, want %d", i, res.Status, c.status)
		}
		if c.status == 407 {
			wantHeader(t, res.Header, "Proxy-Authenticate", `Basic realm="p2pnode", charset="UTF-8"`)
		}
	}
	if n := checks.Load(); n != 2 {
		t.Errorf("%d checks, want one of the wrong password and one of the right", n)
	}
	for range 3 {
		now = now.Add(loginMemory - time.Second)
		if ask(h, "192.0.2.1:9", good); checks.Load() != 2 {
			t.Error("a yes is not remembered from its last use")
		}
	}
	now = now.Add(loginMemory)
	if ask(h, "192.0.2.1:9", good); checks.Load() != 3 {
		t.Error("a yes is remembered for longer than it should")
	}
	for _, target := range []string{"/url/http://origin.test/file", "/other"} {
		r := httptest.NewRequest("GET", target, nil)
		r.RemoteAddr = "192.0.2.1:9"
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 407 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	r := httptest.NewRequest("CONNECT", "origin.test:443", nil)
	r.RequestURI, r.RemoteAddr = "origin.test:443", "192.0.2.1:9"
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 407 {
		t.Errorf("CONNECT: %d", w.Code)
	}
}

// TestRate: a client has a bucket, and an IPv6 network is one client.
func TestRate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	h := New(Config{Opener: newFakeSwarm(10), Now: func() time.Time { return now }, Access: Access{Rate: 2, Burst: 3}})
	want := func(from string, status int) {
		t.Helper()
		res := ask(h, from, nil)
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", from, res.Status, status)
		}
		if status == 429 {
			wantHeader(t, res.Header, "Retry-After", "1")
		}
	}
	for range 3 {
		want("192.0.2.1:9", 200)
		want("[2001:db8::1]:9", 200)
	}
	want("192.0.2.1:10", 429)
	want("[2001:db8::2]:9", 429)
	want("192.0.2.2:9", 200)
	now = now.Add(time.Second)
	want("192.0.2.1:9", 200)
	want("192.0.2.1:9", 200)
	want("192.0.2.1:9", 429)
}

// TestMaxRequests: those that find no place wait, and give up with their client.
func TestMaxRequests(t *testing.T) {
	entered, release := make(chan struct{}, 8), make(chan struct{})
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "x")
	})
	n := startNode(t, Config{Access: Access{MaxRequests: 1, MaxWaiting: 1}})
	results := make(chan string, 8)
	get := func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, "GET", origin.URL, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		res, err := n.client.Do(req)
		if err != nil {
			results <- "error"
			return
		}
		_ = res.Body.Close()
		results <- fmt.Sprint(res.StatusCode)
	}
	waiting := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			s := n.handler.gate.share
			s.mu.Lock()
			queued := s.queued
			s.mu.Unlock()
			if queued == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d wait, want %d", queued, want)
			}
			<-time.After(time.Millisecond)
		}
	}
	go get(t.Context())
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	go get(ctx)
	waiting(1)
	get(t.Context())
	if got := <-results; got != "503" {
		t.Errorf("a third: %s", got)
	}
	cancel()
	if got := <-results; got != "error" {
		t.Errorf("a client that went away: %s", got)
	}
	waiting(0)
	go get(t.Context())
	waiting(1)
	close(release)
	for range 2 {
		if got := <-results; got != "200" {
			t.Errorf("%s", got)
		}
	}
}

// TestUploadDeadline: an upload has its deadlines, which its connection does
// not keep.
func TestUploadDeadline(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	n := startNode(t, Config{})
	res, body, err := n.do(t, "POST", origin.URL, nil, io.LimitReader(endless{}, 1<<20))
	if err != nil || string(body) != "1048576 <nil>" {
		t.Fatalf("%s %q, %v", res.Status, body, err)
	}
	// The deadline of the body does not outlive it: the connection serves on.
	for range 3 {
		if _, body, err = n.do(t, "POST", origin.URL, nil, io.LimitReader(endless{}, 10)); err != nil || string(body) != "10 <nil>" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestWrongLogins: an address that keeps sending wrong passwords is soon refused
// without a check, which costs; others are not.
func TestWrongLogins(t *testing.T) {
	now, checks := time.Unix(1_800_000_000, 0), 0
	h := New(Config{Opener: newFakeSwarm(10), Now: func() time.Time { return now }, Access: Access{
		Users: func(_, password string) bool { checks++; return password == "right" },
	}})
	login := func(from, password string) int {
		r := httptest.NewRequest(http.MethodGet, "http://origin.test/", http.NoBody)
		r.SetBasicAuth("ann", password)
		return ask(h, from, http.Header{"Proxy-Authorization": r.Header["Authorization"]}).StatusCode
	}
	for range 100 {
		login("192.0.2.1:9", "wrong")
	}
	if checks != wrongBurst {
		t.Errorf("%d checks of one address, want %d", checks, wrongBurst)
	}
	if s := login("192.0.2.1:9", "right"); s != http.StatusTooManyRequests {
		t.Errorf("guessing goes on: %d", s)
	}
	if s := login("192.0.2.2:9", "right"); s == http.StatusTooManyRequests || s == http.StatusProxyAuthRequired {
		t.Errorf("another address: %d", s)
	}
	now = now.Add(wrongEvery)
	if s := login("192.0.2.1:9", "right"); s == http.StatusTooManyRequests || s == http.StatusProxyAuthRequired {
		t.Errorf("later: %d", s)
	}
}

// TestLoginsTakeTurns: who sends wrong passwords from many addresses holds up others
// by a check an address, and who goes away does not wait for his.
func TestLoginsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Access{Users: func(_, password string) bool {
			time.Sleep(time.Second)
			return password == "right"
		}}, time.Now)
		const strangers = 10
		var guessing sync.WaitGroup
		for i := range strangers {
			for range 2 * wrongBurst {
				guessing.Go(func() {
					if err := g.login(t.Context(), fmt.Sprint("192.0.2.", i), "ann", "wrong"); err == nil {
						t.Error("a wrong password is good")
					}
				})
			}
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		start := time.Now()
		if err := g.login(ctx, "198.51.100.1", "ann", "right"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second/2 {
			t.Errorf("who goes away: %v after %v", err, time.Since(start))
		}
		for range 4 { // one check, and the same from then on
			if err := g.login(t.Context(), "198.51.100.2", "ann", "right"); err != nil {
				t.Error(err)
			}
		}
		if waited := time.Since(start); waited > (strangers+1)*time.Second {
			t.Errorf("a login takes %v", waited)
		}
		guessing.Wait()
		if g.checks.free != 1 || len(g.checks.clients) != 0 || g.checks.queued != 0 {
			t.Errorf("at the end %d free, %d clients, %d queued", g.checks.free, len(g.checks.clients), g.checks.queued)
		}
	})
}

// TestLoginLetsInTheSame: once a login was good, all go on that wait with the same
// credentials, however many others guess, and come back to guess again.
func TestLoginLetsInTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Access{Users: func(_, password string) bool {
			time.Sleep(time.Second / 2)
			return password == "right"
		}}, time.Now)
		const strangers = 10
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i := range strangers {
			running.Go(func() {
				for ctx.Err() == nil {
					_ = g.login(ctx, fmt.Sprint("192.0.2.", i), "ann", "wrong")
					time.Sleep(time.Millisecond)
				}
			})
		}
		synctest.Wait()
		var logins sync.WaitGroup
		ends := make(chan time.Time, 4)
		for i := range cap(ends) {
			logins.Go(func() { // two each of two addresses
				if err := g.login(t.Context(), fmt.Sprint("198.51.100.", i/2), "ann", "right"); err != nil {
					t.Error(err)
				}
				ends <- time.Now()
			})
		}
		start := time.Now()
		logins.Wait()
		first := <-ends
		for range cap(ends) - 1 {
			if d := (<-ends).Sub(first); d > time.Second/2 {
				t.Errorf("the same credentials wait for %v more", d)
			}
		}
		if d := first.Sub(start); d > (strangers+1)*time.Second/2 {
			t.Errorf("the first login takes %v", d)
		}
		stop()
		running.Wait()
		if len(g.pending) != 0 || g.checks.free != 1 || g.checks.queued != 0 {
			t.Errorf("at the end %d pending, %d free, %d queued", len(g.pending), g.checks.free, g.checks.queued)
		}
	})
}

// TestLoginQueue: one address does not fill the queue of logins, neither at once nor
// once it has been wrong too often.
func TestLoginQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 4
		g := newGate(Access{MaxWaiting: 16 * each, Users: func(_, password string) bool {
			time.Sleep(time.Second)
			return password == "right"
		}}, time.Now)
		var guessing sync.WaitGroup
		var refused atomic.Int64
		guess := func(n int) {
			for range n {
				guessing.Go(func() {
					if err := g.login(t.Context(), "192.0.2.1", "ann", "wrong"); errors.Is(err, errTooFew) {
						refused.Add(1)
					} else if !errors.Is(err, errLogin) {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
		}
		queued := func() int {
			g.checks.mu.Lock()
			defer g.checks.mu.Unlock()
			return g.checks.queued
		}
		guess(100)
		if n := queued(); n != each || refused.Load() != 100-1-each {
			t.Errorf("%d of one address wait, %d are refused, want %d to wait", n, refused.Load(), each)
		}
		start := time.Now()
		if err := g.login(t.Context(), "198.51.100.1", "bob", "right"); err != nil || time.Since(start) > 3*time.Second {
			t.Errorf("another address: %v after %v", err, time.Since(start))
		}
		guessing.Wait()
		for !g.guesses("192.0.2.1") {
			guess(1)
			guessing.Wait()
		}
		guessing.Go(func() { _ = g.login(t.Context(), "198.51.100.1", "eve", "wrong") })
		synctest.Wait() // it has the place
		before := refused.Load()
		if guess(100); queued() != 0 || refused.Load() != before+100 {
			t.Errorf("who was wrong too often: %d wait, %d are refused", queued(), refused.Load()-before)
		}
		guessing.Wait()
	})
}
