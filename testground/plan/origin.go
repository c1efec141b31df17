package plan

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// originTime is the files' Last-Modified.
var originTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Origin is an HTTP server that has every File of the run and counts what it
// sends. Its methods are safe for concurrent use.
type Origin struct {
	// URL is http://host:port.
	URL string

	srv   *http.Server
	seed  uint64
	size  func(index int) int64
	fault string
	log   *slog.Logger
	live  atomic.Int64

	mu sync.Mutex
	// mu guards the following, by file.
	sent     map[int][]span
	requests int
}

// span is a run of bytes that was sent.
type span struct{ off, end int64 }

// startOrigin serves on a listener until Close. size returns a file's size, or
// 0 for one that is not there.
func startOrigin(l net.Listener, url string, seed uint64, size func(int) int64, fault string, log *slog.Logger) *Origin {
	o := &Origin{URL: url, seed: seed, size: size, fault: fault, log: log, sent: make(map[int][]span)}
	o.srv = &http.Server{Handler: o, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = o.srv.Serve(l) }() // ends with Close
	return o
}

// Close stops the origin at once.
func (o *Origin) Close() { _ = o.srv.Close() }

// ServeHTTP implements http.Handler.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := strings.CutPrefix(r.URL.Path, "/file/")
	index, err := strconv.Atoi(text)
	if !ok || err != nil || o.size(index) == 0 {
		http.NotFound(w, r)
		return
	}
	if o.fault == "refuse" {
		http.Error(w, "this origin refuses, as the run asked it to", http.StatusServiceUnavailable)
		return
	}
	f := File{o.seed, index, o.size(index)}
	w.Header().Set("ETag", f.ETag())
	w.Header().Set("Content-Type", "application/octet-stream")
	o.mu.Lock()
	o.requests++
	o.mu.Unlock()
	body := &sentReader{origin: o, file: f}
	begun := time.Now()
	http.ServeContent(w, r, "", originTime, body)
	body.record()
	o.log.Debug("origin request", "method", r.Method, "path", r.URL.Path, "range", r.Header.Get("Range"), "from", r.RemoteAddr,
		"read_to", body.at, "took", time.Since(begun))
}

// sentReader is a file as http.ServeContent reads it. It notes each run that was
// read, which is what was sent but for the last piece of a cut connection.
type sentReader struct {
	origin  *Origin
	file    File
	at      int64
	begun   int64
	content io.Reader
}

// Seek implements io.Seeker.
func (s *sentReader) Seek(off int64, whence int) (int64, error) {
	s.record()
	switch whence {
	case io.SeekStart:
		s.at = off
	case io.SeekCurrent:
		s.at += off
	case io.SeekEnd:
		s.at = s.file.Size + off
	default:
		return 0, errors.New("seek: unknown whence")
	}
	s.begun, s.content = s.at, nil
	return s.at, nil
}

// Read implements io.Reader.
func (s *sentReader) Read(b []byte) (int, error) {
	if s.content == nil {
		s.content = s.file.Reader(s.at, s.file.Size-s.at)
	}
	n, err := s.content.Read(b)
	if s.origin.fault == "corrupt" && n > 0 && s.at <= s.file.Size/2 && s.file.Size/2 < s.at+int64(n) {
		b[s.file.Size/2-s.at] ^= 1
	}
	s.at += int64(n)
	s.origin.live.Add(int64(n))
	return n, err
}

// record counts what was read since the last seek.
func (s *sentReader) record() {
	if s.at > s.begun && s.content != nil {
		s.origin.mu.Lock()
		s.origin.sent[s.file.Index] = append(s.origin.sent[s.file.Index], span{s.begun, s.at})
		s.origin.mu.Unlock()
	}
	s.begun = s.at
}

// Live returns the bytes sent so far, running responses included.
func (o *Origin) Live() int64 { return o.live.Load() }

// Tally is what an origin has sent.
type Tally struct {
	Requests int
	// Bytes of all files; Unique counts each byte once, and MaxCopies is how
	// often the one that was sent most was sent.
	Bytes, Unique int64
	MaxCopies     int
}

// Tally returns what was sent so far; responses that run are not in it.
func (o *Origin) Tally() Tally {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := Tally{Requests: o.requests}
	for _, spans := range o.sent {
		type edge struct {
			at   int64
			step int
		}
		var edges []edge
		for _, s := range spans {
			t.Bytes += s.end - s.off
			edges = append(edges, edge{s.off, 1}, edge{s.end, -1})
		}
		slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.step, b.step)) })
		copies, last := 0, int64(0)
		for _, e := range edges {
			if copies > 0 {
				t.Unique += e.at - last
			}
			copies, last = copies+e.step, e.at
			t.MaxCopies = max(t.MaxCopies, copies)
		}
	}
	return t
}

// listen returns a listener on a free port of an address.
func listen(ctx context.Context, ip string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(ip, "0"))
}
