package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Bounds of /v1/prefetch and /v1/import.
const (
	// MaxURLs is how many URLs one request to /v1/prefetch may name.
	MaxURLs = 10_000
	// maxPrefetches run at a time, of all requests together.
	maxPrefetches = 8
	// maxImports run at a time; more are refused.
	maxImports = 4
	// maxPrefetchBody bounds the JSON of a request.
	maxPrefetchBody = 16 << 20
	// progressEvery is the least time between two progress events of a URL.
	progressEvery = 500 * time.Millisecond
	// bodyTimeout is how long an import's body may bring nothing.
	bodyTimeout = time.Minute
)

// PrefetchRequest is one URL of a request to /v1/prefetch.
type PrefetchRequest struct {
	URL string
	// Header is what a private file's origin wants to see: Authorization and
	// Cookie.
	Header http.Header
	// Off and Len are the part that is wanted. A negative Off counts from the
	// file's end; a negative Len reaches to it.
	Off, Len int64
	// Seeds asks the elected seeds to hold it; else this node does.
	Seeds bool
	// Pin keeps it from being evicted here; not with Seeds.
	Pin bool
}

// ImportRequest is a request to /v1/import.
type ImportRequest struct {
	URL, Digest, ETag, LastModified string
	// Size is that of Body.
	Size int64
	// Pin keeps the file from being evicted.
	Pin bool
	// Body fails soon after the call's context has ended.
	Body io.Reader
}

// Transfer says in bytes where what is held now was before: held already, at a
// peer, at the origin, in the body of an import.
type Transfer struct{ Local, Peer, Origin, Imported int64 }

// Transfers brings files in.
type Transfers interface {
	// Prefetch returns when the part of the file is held. progress is called
	// with the bytes that are there and their sum, one call at a time.
	Prefetch(ctx context.Context, r PrefetchRequest, progress func(done, total int64)) (Transfer, error)
	// Import returns when the body is held as the file of its URL. progress is
	// called with the bytes that were read and their sum, one call at a time.
	Import(ctx context.Context, r ImportRequest, progress func(done, total int64)) (Transfer, error)
	// Unpin ends the pins of the part of the file, and returns how many bytes
	// were pinned. Seeds and Pin mean nothing.
	Unpin(r PrefetchRequest) (int64, error)
}

// Event is one line of the answers of /v1/prefetch and /v1/import. Each URL
// gets one result, and progress before it, at most twice a second.
type Event struct {
	// Event is "progress" or "result".
	Event string `json:"event"`
	// URL is as it was given.
	URL string `json:"url"`
	// Done and Total are bytes, of progress; Total is 0 while it is not known.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Bytes says, of a result, where they came from.
	Bytes *EventBytes `json:"bytes,omitempty"`
	// Seconds that it took, of a result.
	Seconds float64 `json:"seconds,omitempty"`
	// Error says why it failed; a result without one is done.
	Error string `json:"error,omitempty"`
}

// EventBytes is a Transfer.
type EventBytes struct {
	Local    int64 `json:"local"`
	Peer     int64 `json:"peer"`
	Origin   int64 `json:"origin"`
	Imported int64 `json:"imported"`
}

// events writes events as lines of JSON. When the client is gone it ends the
// work. Safe for concurrent use.
type events struct {
	cancel context.CancelFunc
	rc     *http.ResponseController
	failed int // the status of an answer whose first event is a failure

	mu sync.Mutex
	// mu guards the following.
	w     http.ResponseWriter
	begun bool
}

func (e *events) send(ev Event) {
	line, err := json.Marshal(ev)
	if err != nil {
		panic("admin: " + err.Error()) // it has only strings and numbers
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a test's writer has none
	if !e.begun {
		e.begun = true
		e.w.Header().Set("Content-Type", "application/x-ndjson")
		status := http.StatusOK
		if ev.Error != "" && e.failed != 0 {
			status = e.failed
		}
		e.w.WriteHeader(status)
	}
	if _, err = e.w.Write(append(line, '\n')); err == nil {
		err = e.rc.Flush()
	}
	if err != nil {
		e.cancel()
	}
}

// run does one URL's work and tells of it.
func (e *events) run(url string, work func(progress func(done, total int64)) (Transfer, error)) {
	started := time.Now()
	var told time.Time
	ev := Event{Event: "progress", URL: url}
	got, err := work(func(done, total int64) {
		ev.Done, ev.Total = done, total
		if now := time.Now(); now.Sub(told) >= progressEvery {
			told = now
			e.send(ev)
		}
	})
	bytes := EventBytes(got)
	ev.Event, ev.Bytes, ev.Seconds = "result", &bytes, time.Since(started).Seconds()
	if err != nil {
		ev.Error = err.Error()
	}
	e.send(ev)
}

// stream prepares an answer that may take any time. The context that it returns
// ends when the client leaves or cannot be written to.
func stream(w http.ResponseWriter, r *http.Request, failed int) (context.Context, *events) {
	ctx, cancel := context.WithCancel(r.Context())
	return ctx, &events{w: w, cancel: cancel, rc: http.NewResponseController(w), failed: failed}
}

// prefetchBody is the JSON of a request to /v1/prefetch; /v1/unpin has its first
// two fields.
type prefetchBody struct {
	URLs  []string `json:"urls"`
	Range string   `json:"range"`
	Where string   `json:"where"`
	Pin   bool     `json:"pin"`
	// Header is shown to the origins of all the URLs.
	Header map[string]string `json:"header"`
}

// header returns the fields in the form of net/http.
func (b prefetchBody) header() http.Header {
	h := make(http.Header, len(b.Header))
	for name, value := range b.Header {
		h.Set(name, value)
	}
	return h
}

// prefetch serves POST /v1/prefetch.
func (a *api) prefetch(w http.ResponseWriter, r *http.Request) {
	body, status, err := readPrefetch(w, r)
	if err != nil {
		writeError(w, status, err.Error())
		return
	}
	off, n, err := parsePart(body.Range)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, out := stream(w, r, 0)
	defer out.cancel()
	_ = out.rc.SetReadDeadline(time.Time{}) // all is read; what is left is to see the client leave
	var running sync.WaitGroup
	defer running.Wait()
	for _, url := range body.URLs {
		select {
		case a.prefetches <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-a.prefetches }()
			out.run(url, func(progress func(done, total int64)) (Transfer, error) {
				return a.transfers.Prefetch(ctx, PrefetchRequest{URL: url, Header: body.header(), Off: off, Len: n, Seeds: body.Where == "seeds", Pin: body.Pin}, progress)
			})
		})
	}
}

func readPrefetch(w http.ResponseWriter, r *http.Request) (body prefetchBody, status int, err error) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPrefetchBody))
	dec.DisallowUnknownFields()
	err = dec.Decode(&body)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return body, http.StatusRequestEntityTooLarge, fmt.Errorf("the request has more than %d bytes", tooLarge.Limit)
	case err != nil:
		return body, http.StatusBadRequest, fmt.Errorf(`cannot read the request (%w): send {"urls": ["https://…"], "range": "0-99", "where": "here" or "seeds", "pin": true}`, err)
	case len(body.URLs) == 0 || len(body.URLs) > MaxURLs:
		return body, http.StatusBadRequest, fmt.Errorf("%d URLs: name 1 to %d", len(body.URLs), MaxURLs)
	case body.Where != "" && body.Where != "here" && body.Where != "seeds":
		return body, http.StatusBadRequest, fmt.Errorf("where %q: write here or seeds", body.Where)
	case body.Pin && body.Where == "seeds":
		return body, http.StatusBadRequest, errors.New("pin and seeds together: a node pins what it holds itself, prefetch with pin there")
	}
	return body, 0, nil
}

// parsePart reads A-B, A- or -N, all in bytes, B included, as PrefetchRequest
// has it; an empty string is the whole file.
func parsePart(s string) (off, n int64, err error) {
	if s == "" {
		return 0, -1, nil
	}
	first, last, _ := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(first, 10, 62)
	b, errB := strconv.ParseUint(last, 10, 62)
	switch {
	case first == "" && errB == nil && b > 0:
		return -int64(b), -1, nil
	case errA == nil && last == "" && strings.HasSuffix(s, "-"):
		return int64(a), -1, nil
	case errA == nil && errB == nil && a <= b:
		r := content.Span(int64(a), int64(b)+1)
		return r.Off, r.Len, nil
	}
	return 0, 0, fmt.Errorf("range %q: write A-B, A- or -N in bytes, with A not after B", s)
}

// importFile serves POST /v1/import.
func (a *api) importFile(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for name, values := range q {
		if len(values) > 1 || name != "url" && name != "digest" && name != "etag" && name != "last_modified" && name != "pin" {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("parameter %q: name url, digest, etag, last_modified and pin, each once at most", name))
			return
		}
	}
	if q.Get("url") == "" {
		writeError(w, http.StatusBadRequest, "no url: say whose file the body is, by ?url=https://…")
		return
	}
	if pin := q.Get("pin"); pin != "" && pin != "true" {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("pin %q: write true, or leave it out", pin))
		return
	}
	if r.ContentLength < 0 {
		writeError(w, http.StatusLengthRequired, "no Content-Length: send the whole file as the body, with its length")
		return
	}
	select {
	case a.imports <- struct{}{}:
		defer func() { <-a.imports }()
	default:
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%d imports run already: come again", maxImports))
		return
	}
	ctx, out := stream(w, r, http.StatusUnprocessableEntity)
	defer out.cancel()
	_ = out.rc.EnableFullDuplex() // progress is told while the body comes
	body := newImportBody(ctx, r.Body, out.rc, a.bodyTimeout)
	defer body.stop()
	out.run(q.Get("url"), func(progress func(done, total int64)) (Transfer, error) {
		return a.transfers.Import(ctx, ImportRequest{
			URL: q.Get("url"), Digest: q.Get("digest"), ETag: q.Get("etag"), LastModified: q.Get("last_modified"),
			Pin: q.Get("pin") != "", Size: r.ContentLength, Body: body,
		}, progress)
	})
	if body.begun {
		// A connection that closes while the client still sends takes the result
		// from it: a client that has read it goes away by itself.
		_, _ = io.Copy(io.Discard, body)
	}
}

// importBody is a body that fails when nothing comes for a time, or the context
// ends.
type importBody struct {
	body    io.Reader
	rc      *http.ResponseController
	timeout time.Duration
	stop    func() bool
	begun   bool // something of it was asked for

	mu    sync.Mutex
	ended bool // guarded by mu
}

func newImportBody(ctx context.Context, body io.Reader, rc *http.ResponseController, timeout time.Duration) *importBody {
	b := &importBody{body: body, rc: rc, timeout: timeout}
	b.stop = context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ended = true
		_ = rc.SetReadDeadline(time.Unix(1, 0)) // wakes a Read that waits
	})
	return b
}

// Read implements io.Reader.
func (b *importBody) Read(p []byte) (int, error) {
	b.begun = true
	b.limit(time.Now().Add(b.timeout))
	n, err := b.body.Read(p)
	if err != nil {
		b.limit(time.Time{}) // the server goes on reading, to see the client leave
	}
	return n, err
}

func (b *importBody) limit(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		_ = b.rc.SetReadDeadline(t) // a test's writer has none
	}
}
