package node_test

import (
	"bytes"
	"context"
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

// stepper is an origin of one file that sends as many bytes of its first block as
// it is let.
type stepper struct {
	url  string
	data []byte
	next chan int // bytes to send; closed, all
	gets atomic.Int64
}

func newStepper(t testing.TB, data []byte) *stepper {
	t.Helper()
	s := &stepper{data: data, next: make(chan int)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	s.url = srv.URL + "/file"
	return s
}

// ServeHTTP implements http.Handler.
func (s *stepper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`)
	if r.Method != http.MethodGet {
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(s.data))
		return
	}
	s.gets.Add(1)
	first, last := 0, len(s.data)-1
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n == 2 {
		last = min(last, len(s.data)-1)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(s.data)))
	}
	body := s.data[first : last+1]
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(http.StatusPartialContent)
	for len(body) > 0 {
		n := len(body)
		if first < content.BlockSize {
			select {
			case step, more := <-s.next:
				if more {
					n = min(n, step)
				}
			case <-r.Context().Done():
				return
			}
		}
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		body = body[n:]
		_ = http.NewResponseController(w).Flush()
	}
}

// TestPace: a client two hops from a slow origin has every byte but those of the
// leaf that is arriving, before the origin sends another: what is on its way is
// not kept back, in no buffer, and the bytes are verified all the same.
func TestPace(t *testing.T) {
	origin := newStepper(t, p2ptest.Bytes(3, content.BlockSize+100_000))
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	var got counter
	done := make(chan error, 1)
	go func() { done <- got.read(t.Context(), r.Info().Proxy+"/url/"+origin.url, origin.data) }()
	sent := 0
	for _, n := range []int{content.LeafSize, 1, content.LeafSize - 1, 100_000, 7, 40_000, 300_000, content.LeafSize} {
		origin.next <- n
		sent += n
		whole := int64(sent / content.LeafSize * content.LeafSize)
		p2ptest.Eventually(t, 20*time.Second, func() bool { return got.n.Load() >= whole },
			"after ", sent, " bytes the client has all whole leaves")
	}
	close(origin.next)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := origin.gets.Load(); n > 2 {
		t.Errorf("the origin was asked %d times for two stripes", n)
	}
}

// counter counts the bytes of a response as they come.
type counter struct {
	n    atomic.Int64
	came chan struct{} // closed with the first of them; nil where nobody waits
}

func (c *counter) read(ctx context.Context, url string, want []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.TeeReader(resp.Body, c))
	if err == nil && !bytes.Equal(body, want) {
		err = fmt.Errorf("status %d, %d bytes, not those of the file", resp.StatusCode, len(body))
	}
	return err
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	if c.n.Add(int64(len(p))) == int64(len(p)) && c.came != nil {
		close(c.came)
	}
	return len(p), nil
}

// BenchmarkFirstByte measures the time to the first byte of cold files: of the
// origin by itself, through a seed, and through a node that asks the seed, whose
// origin stops after one leaf, so that an increment is signed for its age and not
// for its size. Reported are medians in ms.
func BenchmarkFirstByte(b *testing.B) {
	s := startNode(b, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1})
	r := startNode(b, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	data := p2ptest.Bytes(4, 2*content.LeafSize)
	first := func(through string) float64 {
		origin := newStepper(b, data)
		got := counter{came: make(chan struct{})}
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- got.read(b.Context(), through+origin.url, data) }()
		origin.next <- content.LeafSize
		<-got.came
		took := time.Since(start)
		close(origin.next)
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		return took.Seconds() * 1e3
	}
	var plain, seed, peer []float64
	for b.Loop() {
		plain = append(plain, first(""))
		seed = append(seed, first(s.Info().Proxy+"/url/"))
		peer = append(peer, first(r.Info().Proxy+"/url/"))
	}
	b.ReportMetric(median(plain), "origin-ms")
	b.ReportMetric(median(seed), "seed-ms")
	b.ReportMetric(median(peer), "peer-ms")
}
