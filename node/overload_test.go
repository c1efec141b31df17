package node_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// overload is a node with a warm file and peers that read it.
type overload struct {
	server peer.AddrInfo
	task   content.TaskID
	peers  []*rangeread.Client
	size   int64 // of a read
}

// newOverload starts n peers beside a node whose reads at once are bounded.
func newOverload(b *testing.B, n, bound int, size int64) *overload {
	b.Helper()
	o := p2ptest.NewOrigin(b)
	url := o.Add("/file", p2ptest.Bytes(3, 4<<20))
	served := startNode(b, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	get(b, served.Info().Proxy+"/url/"+url, 0, 4<<20)
	post(b, served.Info().Admin+"/v1/limits", `{"reads": `+strconv.Itoa(bound)+`}`)
	task, err := content.NewTask(url, content.Filter{})
	if err != nil {
		b.Fatal(err)
	}
	info, err := peer.AddrInfoFromString(served.Info().Addrs[0])
	if err != nil {
		b.Fatal(err)
	}
	w := &overload{server: *info, task: task.ID, size: size}
	for _, h := range p2ptest.Hosts(b, n) {
		if err := h.Connect(b.Context(), *info); err != nil {
			b.Fatal(err)
		}
		w.peers = append(w.peers, newReader(b, h))
	}
	return w
}

func newReader(b *testing.B, h host.Host) *rangeread.Client {
	c := rangeread.NewClient(rangeread.ClientConfig{Host: h, Trusted: func(peer.ID) bool { return true }, Silence: 10 * time.Second})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	b.Cleanup(func() { stop(); running.Wait() })
	return c
}

func post(b *testing.B, url, body string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s", url, res.Status)
	}
}

// referPause is how long a reader that is sent elsewhere stays away, who has
// nobody else to ask here.
const referPause = 250 * time.Millisecond

// rates has so many readers read again and again for a time, and returns
// the reads a second that succeeded and that were refused, and how long the
// slowest tenth of the refusals took.
func (w *overload) rates(b *testing.B, readers int, d time.Duration) (good, refused float64, slow time.Duration) {
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	var ok, busy atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range readers {
		c := w.peers[i%len(w.peers)]
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				err := w.read(ctx, c, int64(n)*w.size%(4<<20))
				var refusal *rangeread.Error
				switch {
				case err == nil:
					ok.Add(1)
				case errors.As(err, &refusal) && (refusal.Status == rangeread.StatusBusy || refusal.Status == rangeread.StatusRefer):
					busy.Add(1)
					mu.Lock()
					took = append(took, time.Since(start))
					mu.Unlock()
					pause := time.NewTimer(max(refusal.RetryAfter, referPause))
					select {
					case <-pause.C:
					case <-ctx.Done():
						pause.Stop()
					}
				case ctx.Err() == nil:
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	if len(took) > 0 {
		slow = took[len(took)*9/10]
	}
	return float64(ok.Load()) / d.Seconds(), float64(busy.Load()) / d.Seconds(), slow
}

func (w *overload) read(ctx context.Context, c *rangeread.Client, off int64) error {
	body, err := c.Open(ctx, w.server.ID, rangeread.Request{Task: w.task, Range: content.Range{Off: off, Len: w.size}, NoFill: true})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	for {
		if _, err := body.Next(nil); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// BenchmarkOverload compares the rate of good reads at the best number of readers
// that the node takes with that at ten times as many as it takes, of which most
// are refused, in turns. Reported are the medians of both and of their ratio, the
// refusals a second, and the 90th percentile of the time that one takes. Without
// refusals nothing was overloaded, and it fails.
func BenchmarkOverload(b *testing.B) {
	for _, c := range []struct {
		name  string
		size  int64
		bound int
	}{{"64KiB", 64 << 10, 1}, {"1MiB", 1 << 20, 8}} {
		b.Run(c.name, func(b *testing.B) { benchmarkOverload(b, c.bound, c.size) })
	}
}

func benchmarkOverload(b *testing.B, bound int, size int64) {
	w := newOverload(b, 20, bound, size)
	for b.Loop() {
		var best float64
		at := 0
		for readers := max(1, bound/4); readers <= bound; readers *= 2 {
			if good, _, _ := w.rates(b, readers, time.Second); good > best {
				best, at = good, readers
			}
		}
		var calm, good, ratio, refused, slow []float64
		for range 7 {
			c, _, _ := w.rates(b, at, time.Second)
			g, r, s := w.rates(b, 10*bound, time.Second)
			calm, good, ratio = append(calm, c), append(good, g), append(ratio, g/c)
			refused, slow = append(refused, r), append(slow, float64(s.Microseconds())/1000)
		}
		if median(refused) == 0 {
			b.Errorf("%d readers of a node that takes %d reads at once, and none was refused", 10*bound, bound)
		}
		b.ReportMetric(median(calm), "best-reads/s")
		b.ReportMetric(float64(at), "best-readers")
		b.ReportMetric(median(good), "overloaded-reads/s")
		b.ReportMetric(median(ratio), "ratio")
		b.ReportMetric(median(refused), "refused/s")
		b.ReportMetric(median(slow), "refusal-p90-ms")
	}
}
