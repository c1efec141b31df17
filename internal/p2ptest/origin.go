package p2ptest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// chunk is the size of an origin's writes: what a rate limit, a stall and a cut
// are precise to.
const chunk = 16 << 10

// Object is one file of an Origin. Its exported fields are not changed after
// Origin.Put.
type Object struct {
	Data         []byte
	ETag         string      // with its quotes; "" sends none
	LastModified time.Time   // zero sends none
	ContentType  string      // "" is application/octet-stream
	Header       http.Header // further response headers, nil for none
	NoRanges     bool        // ignores Range, sends no Accept-Ranges
	NoLength     bool        // sends the body chunked, without Content-Length
	NoHead       bool        // answers HEAD with 403, as signed URLs do
}

// Fault is what an Origin does wrong to one request. The zero value does
// nothing.
type Fault struct {
	Status       int           // answered instead of the file, 0 for none
	Header       http.Header   // sent along with Status
	Delay        time.Duration // before the first byte of the response head
	CutAfter     int64         // aborts the connection after so many bytes of body, 0 for never
	IgnoreRange  bool          // 200 with the whole file
	ContentRange string        // sent instead of the right Content-Range
}

// Hit is one request that an Origin got.
type Hit struct {
	Method string
	Header http.Header
	Status int
	Off    int64 // of the first body byte in the file
	Sent   int64 // body bytes of the file handed to the connection so far
	Done   bool  // the handler has returned
}

// Origin is an HTTP server on a loopback port of its own, for this process and
// for others. It counts, by path, the requests and how often it sent each byte.
// All methods are safe for concurrent use.
type Origin struct {
	// URL is http://127.0.0.1:port, without a slash at the end.
	URL string

	srv  *httptest.Server
	stop context.CancelFunc // ends the contexts of all requests, present and to come

	// mu guards the following
	mu      sync.Mutex
	objects map[string]Object
	hits    map[string][]*Hit
	fault   func(*http.Request) Fault
	delay   time.Duration
	limit   *rate.Limiter
	stalled chan struct{} // closed on Resume; nil while not stalled
}

// NewOrigin starts an origin that ends with the test.
func NewOrigin(t testing.TB) *Origin {
	t.Helper()
	return newOrigin(t, nil)
}

// NewOriginOn starts an origin on a listener, such as one in another network
// namespace; its URL is http://ADDRESS.
func NewOriginOn(t testing.TB, l net.Listener) *Origin {
	t.Helper()
	return newOrigin(t, l)
}

func newOrigin(t testing.TB, l net.Listener) *Origin {
	t.Helper()
	o := &Origin{objects: map[string]Object{}, hits: map[string][]*Hit{}}
	o.srv = httptest.NewUnstartedServer(http.HandlerFunc(o.serve))
	if l != nil {
		_ = o.srv.Listener.Close()
		o.srv.Listener = l
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	o.srv.Start()
	o.URL = o.srv.URL
	t.Cleanup(o.Close)
	return o
}

// Close stops the origin: running responses are cut, further connections are
// refused. It may be called twice.
func (o *Origin) Close() {
	// First, for clients ask again on a new connection when a kept one is cut
	// before the response: that request must not be waited for.
	o.stop()
	o.srv.CloseClientConnections()
	o.srv.Close()
}

// Add serves data under path (which begins with a slash) with a strong ETag
// made of its hash and a fixed Last-Modified, and returns its URL.
func (o *Origin) Add(path string, data []byte) string {
	return o.Put(path, Object{
		Data:         data,
		ETag:         fmt.Sprintf(`"%x"`, sha256.Sum256(data)),
		LastModified: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	})
}

// Put serves obj under path, in place of what was there, and returns its URL.
func (o *Origin) Put(path string, obj Object) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.objects[path] = obj
	return o.URL + path
}

// Remove makes path answer 404.
func (o *Origin) Remove(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.objects, path)
}

// SetFault asks f of every request from now on; nil ends that. f runs in the
// handlers, concurrently.
func (o *Origin) SetFault(f func(*http.Request) Fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = f
}

// SetFirstByteDelay delays the head of every response from now on.
func (o *Origin) SetFirstByteDelay(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delay = d
}

// SetRate limits all bodies together to bytes a second; 0 is no limit.
func (o *Origin) SetRate(bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limit = nil
	if bytes > 0 {
		o.limit = rate.NewLimiter(rate.Limit(bytes), chunk)
	}
}

// Stall holds every response, running ones in mid-body, until Resume: their
// connections stay open and nothing flows.
func (o *Origin) Stall() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stalled == nil {
		o.stalled = make(chan struct{})
	}
}

// Resume ends Stall.
func (o *Origin) Resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stalled != nil {
		close(o.stalled)
		o.stalled = nil
	}
}

func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	hit := &Hit{Method: r.Method, Header: r.Header.Clone()}
	o.mu.Lock()
	o.hits[r.URL.Path] = append(o.hits[r.URL.Path], hit)
	obj, ok := o.objects[r.URL.Path]
	fault, delay := o.fault, o.delay
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		hit.Done = true
		o.mu.Unlock()
	}()

	var f Fault
	if fault != nil {
		f = fault(r)
	}
	if o.pause(r.Context(), delay+f.Delay) != nil || o.pace(r.Context(), 0) != nil {
		panic(http.ErrAbortHandler)
	}
	reply := obj.reply(r, f, ok)
	o.mu.Lock()
	hit.Status, hit.Off = reply.status, reply.off
	o.mu.Unlock()
	header := w.Header()
	for k, v := range reply.header {
		header[k] = v
	}
	if !obj.NoLength || len(reply.body) == 0 {
		header.Set("Content-Length", strconv.Itoa(len(reply.body)))
	}
	w.WriteHeader(reply.status)
	if r.Method == http.MethodHead {
		return
	}
	o.send(w, r, reply, hit, f.CutAfter)
}

// send writes the body piece by piece. It panics with http.ErrAbortHandler,
// which net/http turns into a cut connection, where the body ends early.
func (o *Origin) send(w http.ResponseWriter, r *http.Request, reply reply, hit *Hit, cut int64) {
	for body := reply.body; len(body) > 0; {
		n := min(len(body), chunk)
		if cut > 0 {
			o.mu.Lock()
			left := cut - hit.Sent
			o.mu.Unlock()
			if left <= 0 {
				_ = http.NewResponseController(w).Flush() // what was counted is sent
				panic(http.ErrAbortHandler)
			}
			n = int(min(int64(n), left))
		}
		if o.pace(r.Context(), n) != nil {
			panic(http.ErrAbortHandler)
		}
		if reply.file {
			o.mu.Lock()
			hit.Sent += int64(n)
			o.mu.Unlock()
		}
		if _, err := w.Write(body[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
		body = body[n:]
		if o.slow() {
			_ = http.NewResponseController(w).Flush() // a reader follows a slow body as it comes
		}
	}
}

func (o *Origin) slow() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.limit != nil || o.stalled != nil
}

// pause waits for d, or until ctx ends.
func (o *Origin) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pace waits until n more bytes may flow.
func (o *Origin) pace(ctx context.Context, n int) error {
	o.mu.Lock()
	limit, stalled := o.limit, o.stalled
	o.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if limit != nil {
		return limit.WaitN(ctx, n)
	}
	return ctx.Err()
}
