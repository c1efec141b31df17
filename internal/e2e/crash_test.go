package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// crashPoints is how often TestCrash kills.
const crashPoints = 200

// TestCrash: a daemon is killed with SIGKILL at random moments while four
// readers fill and read, and restarted: every byte that it serves afterwards is
// right, and what it had recorded is not fetched again.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("200 restarts: skipped with -short")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const workers = 4 // each with its own daemon and origin
	bin := binary(t, "")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { crash(t, bin, rand.New(rand.NewPCG(seed, uint64(w))), crashPoints/workers) })
	}
	wg.Wait()
}

// crash kills one daemon n times.
func crash(t *testing.T, bin string, r *rand.Rand, n int) {
	const size = 8<<20 + 12345
	origin := p2ptest.NewOrigin(t)
	d := start(t, bin, "daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--origin-allow", "127.0.0.0/8")
	var url, path string
	var data []byte
	var files int
	fresh := func() {
		files++
		path = fmt.Sprintf("/file%d", files)
		data = p2ptest.Bytes(r.Uint64(), size)
		url = origin.Add(path, data)
	}
	fresh()
	kills, served := 0, 0
	for range n {
		var wg sync.WaitGroup
		for range 4 {
			off := r.Int64N(size)
			end := off + 1 + r.Int64N(size-off)
			wg.Go(func() {
				got, err := d.get(url, off, end)
				// The kill may cut the response; what came must be right.
				if string(got) != string(data[off:min(end, off+int64(len(got)))]) {
					t.Errorf("wrong bytes in [%d,%d): %d came, %v", off, end, len(got), err)
				}
			})
		}
		<-time.After(time.Duration(r.IntN(60)) * time.Millisecond)
		d.kill()
		kills++
		wg.Wait()
		p2ptest.Eventually(t, 10*time.Second, func() bool { return origin.Running(path) == 0 }, "the origin notices")
		before := len(origin.Hits(path))
		d.restart()
		held := heldBytes(t, d, url)
		if err := d.check(url, data, 0, 0); err != nil {
			t.Error(err)
			return
		}
		served++
		if again := answered(t, origin.Hits(path)[before:], size); again > size-held {
			t.Errorf("after kill %d the origin sent %d bytes, though %d of %d were held", kills, again, held, size)
		}
		fresh()
	}
	t.Logf("%d kills, %d files served whole afterwards", kills, served)
}

// answered returns the body bytes of the requests that were answered whole: of
// one that the killed process had sent, and that the origin accepts only now, a
// part may go out to nobody.
func answered(t *testing.T, hits []p2ptest.Hit, size int64) int64 {
	var sum int64
	for _, h := range hits {
		if h.Method == http.MethodHead {
			continue
		}
		var first, last int64
		if _, err := fmt.Sscanf(h.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
			t.Errorf("range %q: %v", h.Header.Get("Range"), err)
		}
		if h.Sent == min(last+1, size)-first {
			sum += h.Sent
		}
	}
	return sum
}

// heldBytes returns how much a daemon holds of a URL.
func heldBytes(t *testing.T, d *process, url string) int64 {
	for _, k := range d.tasks(t) {
		if k.URL == url {
			return k.Held
		}
	}
	return 0
}
