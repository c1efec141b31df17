package proxy

import (
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// maxInterim bounds the interim answers that are passed on of one request, and
// maxHeaderBytes what they have together; the others are dropped.
const maxInterim = 8

// finalOnly keeps interim answers (RFC 9110 section 15.2) from
// httputil.ReverseProxy, which asks for them by the context. What they may come to
// is then net/http's to bound.
type finalOnly struct {
	base   http.RoundTripper
	client *http.Request
}

// RoundTrip implements http.RoundTripper.
func (f finalOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	return f.base.RoundTrip(r.WithContext(f.client.Context()))
}

// wantsInterim reports whether interim answers are passed on, as a proxy has to
// (RFC 9110 section 15.2). They are not on the gateway and the mirror, where a client
// talks to this node, and they would be its own; nor to HTTP/1.0, which knows none;
// nor to a client that Expects one, which has it of net/http as its body is read:
// that is written by the transport's goroutine, beside whatever else is.
func wantsInterim(r *http.Request, f face) bool {
	return f == faceForward && r.ProtoAtLeast(1, 1) && len(r.Header.Values("Expect")) == 0
}

// passInterim passes interim answers on to the client, while the base waits for the
// final one.
//
// Rejected: to let httputil.ReverseProxy write them. It does so in the goroutine that
// reads the origin's connection, which over HTTP/2 other clients wait for as well.
type passInterim struct {
	base   http.RoundTripper
	client *http.Request
	w      *response
}

// RoundTrip implements http.RoundTripper.
func (p passInterim) RoundTrip(r *http.Request) (*http.Response, error) {
	q := &interimQueue{w: p.w, room: maxHeaderBytes}
	trace := &httptrace.ClientTrace{Got1xxResponse: q.add}
	defer q.end()
	return p.base.RoundTrip(r.WithContext(httptrace.WithClientTrace(p.client.Context(), trace)))
}

// interimQueue has what is to be passed on of one request. The goroutine that writes
// it runs from the first until end.
type interimQueue struct {
	w       *response
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	answers     chan interimAnswer // nil until the first
	taken, room int
	ended       bool
}

type interimAnswer struct {
	status int
	header http.Header
}

// add takes an answer, or drops it. It does not block.
func (q *interimQueue) add(status int, header textproto.MIMEHeader) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := sizeOf(http.Header(header))
	if q.ended || q.taken == maxInterim || size > q.room {
		return nil
	}
	if q.answers == nil {
		answers := make(chan interimAnswer, maxInterim)
		q.answers = answers
		q.running.Go(func() {
			for a := range answers {
				q.w.interim(a.status, a.header)
			}
		})
	}
	q.taken++
	q.room -= size
	q.answers <- interimAnswer{status, http.Header(header)} // there is room for all
	return nil
}

// end waits until all is written; what comes later is dropped.
func (q *interimQueue) end() {
	q.mu.Lock()
	q.ended = true
	if q.answers != nil {
		close(q.answers)
	}
	q.mu.Unlock()
	q.running.Wait()
}

// hopByHop are the fields of one connection (RFC 9110 section 7.6.1), and what a
// proxy says for itself, as httputil.ReverseProxy drops them from final answers.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// interim sends an interim answer, with the fields that a final one would have but
// Via: the version in which it came is not told. It takes over the header.
func (w *response) interim(status int, header http.Header) {
	for _, line := range header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			header.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		delete(header, name)
	}
	h := w.Header()
	final := maps.Clone(h)
	clear(h)
	maps.Copy(h, header)
	_ = w.rc.SetWriteDeadline(time.Now().Add(clientStall)) // not every writer can
	w.ResponseWriter.WriteHeader(status)
	_ = w.rc.SetWriteDeadline(time.Time{}) // the final answer may be long in coming
	clear(h)
	maps.Copy(h, final)
}
