package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// untold is an origin that sends its file in chunks, without its length and
// without ranges: the first part at once, the rest when it is let.
type untold struct {
	url   string
	data  []byte
	first int
	rest  chan struct{} // closed: the rest too
	cut   atomic.Bool   // breaks off in place of the rest
	gets  atomic.Int64
	sent  atomic.Int64
}

func newUntold(t testing.TB, data []byte, first int) *untold {
	t.Helper()
	o := &untold{data: data, first: first, rest: make(chan struct{})}
	srv := httptest.NewServer(o)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	o.url = srv.URL + "/file"
	return o
}

// ServeHTTP implements http.Handler.
func (o *untold) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"untold"`)
	w.Header().Set("Content-Type", "text/untold")
	if r.Method != http.MethodGet {
		return
	}
	o.gets.Add(1)
	send := func(p []byte) {
		n, _ := w.Write(p)
		o.sent.Add(int64(n))
		_ = http.NewResponseController(w).Flush()
	}
	send(o.data[:o.first])
	select {
	case <-o.rest:
	case <-r.Context().Done():
		return
	}
	if o.cut.Load() {
		panic(http.ErrAbortHandler)
	}
	send(o.data[o.first:])
}

// answer is what a client got.
type answer struct {
	resp *http.Response
	body []byte
	err  error
}

// ask asks a node for a URL in the background; came is told of the bytes.
func ask(t testing.TB, n *node.Node, method, url, rng string, came *atomic.Int64) <-chan answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.Info().Proxy+"/url/"+url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	out := make(chan answer, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			out <- answer{err: err}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		c := &counter{}
		buf := make([]byte, 32<<10)
		var body []byte
		for err == nil {
			var k int
			k, err = resp.Body.Read(buf)
			body = append(body, buf[:k]...)
			_, _ = c.Write(buf[:k])
			if came != nil {
				came.Add(int64(k))
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		out <- answer{resp, body, err}
	}()
	return out
}

// TestUnsized: a file whose origin does not tell its length is read from it once,
// for all readers of all nodes, who get it while it comes; then its length is
// known, and it is as any other.
func TestUnsized(t *testing.T) {
	data := p2ptest.Bytes(8, 3*content.BlockSize+100_001)
	const first = content.BlockSize + 5*content.LeafSize + 7
	origin := newUntold(t, data, first)
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	head := <-ask(t, r, http.MethodHead, origin.url, "", nil)
	if head.err != nil || head.resp.StatusCode != http.StatusOK || head.resp.ContentLength != -1 || head.resp.Header.Get("Etag") != `"untold"` {
		t.Fatalf("HEAD: %+v", head)
	}
	var answers []<-chan answer
	var came [6]atomic.Int64
	for i := range came {
		answers = append(answers, ask(t, []*node.Node{s, r}[i%2], http.MethodGet, origin.url, "", &came[i]))
	}
	part := ask(t, r, http.MethodGet, origin.url, "bytes=5-14", nil) // waits: it needs the size
	p2ptest.Eventually(t, 20*time.Second, func() bool {
		for i := range came {
			if came[i].Load() < first/content.LeafSize*content.LeafSize {
				return false
			}
		}
		return true
	}, "all readers have what the origin has sent")
	close(origin.rest)
	for i, c := range answers {
		a := <-c
		if a.err != nil || a.resp.StatusCode != http.StatusOK || a.resp.ContentLength != -1 || !bytes.Equal(a.body, data) {
			t.Fatalf("reader %d: %v, %d bytes, %+v", i, a.err, len(a.body), a.resp)
		}
		if got := a.resp.Header.Get("P2pnode-Source"); got != []string{"origin", "peer"}[i%2] {
			t.Errorf("reader %d: source %q", i, got)
		}
	}
	if a := <-part; a.err != nil || a.resp.StatusCode != http.StatusPartialContent || !bytes.Equal(a.body, data[5:15]) {
		t.Errorf("a part: %+v", a)
	}
	before := origin.gets.Load()
	for _, n := range []*node.Node{s, r, r} {
		a := <-ask(t, n, http.MethodGet, origin.url, "", nil)
		if a.err != nil || a.resp.ContentLength != int64(len(data)) || !bytes.Equal(a.body, data) {
			t.Fatalf("afterwards: %v, %d bytes of %d", a.err, len(a.body), a.resp.ContentLength)
		}
	}
	tail := <-ask(t, r, http.MethodGet, origin.url, "bytes=-9", nil)
	want := fmt.Sprintf("bytes %d-%d/%d", len(data)-9, len(data)-1, len(data))
	if tail.err != nil || tail.resp.Header.Get("Content-Range") != want || !bytes.Equal(tail.body, data[len(data)-9:]) {
		t.Errorf("its end: %+v", tail)
	}
	if n := origin.gets.Load(); n != before {
		t.Errorf("%d requests to the origin for what is held", n-before)
	}
	// One for the first byte, since HEAD told nothing, and one for all of it.
	if n := origin.sent.Load(); before > 2 || n > int64(len(data)+first) {
		t.Errorf("the origin was asked %d times and sent %d bytes, of a file of %d", before, n, len(data))
	}
}

// TestUnsizedBreaksOff: a body that breaks off is no whole one, at no node.
func TestUnsizedBreaksOff(t *testing.T) {
	data := p2ptest.Bytes(8, content.BlockSize)
	origin := newUntold(t, data, content.BlockSize/2)
	origin.cut.Store(true)
	close(origin.rest)
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	for _, n := range []*node.Node{s, r} {
		a := <-ask(t, n, http.MethodGet, origin.url, "", nil)
		if a.err == nil && a.resp.StatusCode < 500 {
			t.Errorf("status %d, %d bytes, and no error", a.resp.StatusCode, len(a.body))
		}
	}
}
