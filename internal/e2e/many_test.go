package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// manyReaders makes 64 readers over all daemons but the excluded one: whole
// files and ranges.
func manyReaders(s *swarm, r *rand.Rand, url string, data []byte, not *process) []func() error {
	var readers []func() error
	for i := 0; len(readers) < 64; i++ {
		d := s.daemons[i%len(s.daemons)]
		if d == not {
			continue
		}
		off, end := int64(0), int64(0)
		if r.IntN(2) == 0 {
			off = r.Int64N(int64(len(data)))
			end = off + 1 + r.Int64N(int64(len(data))-off)
		}
		readers = append(readers, func() error { return d.check(url, data, off, end) })
	}
	return readers
}

// needMany skips a test of 16 daemons, which needs more than two cores: a daemon
// that gets no processor for a second looks dead to the others.
func needMany(t *testing.T) {
	if os.Getenv("P2PNODE_E2E_MANY") == "" {
		t.Skip("16 daemons: set P2PNODE_E2E_MANY=1 on a machine with cores to spare")
	}
}

// TestManyReaders: 64 cold readers through 16 nodes, with 2 and with 4 seeds a
// task, cost the origin the file once.
func TestManyReaders(t *testing.T) {
	needMany(t)
	for _, replicas := range []int{2, 4} {
		t.Run(fmt.Sprintf("%d seeds", replicas), func(t *testing.T) {
			origin := p2ptest.NewOrigin(t)
			data := p2ptest.Bytes(11, 16<<20)
			url := origin.Add("/file", data)
			s := newSwarm(t, binary(t, ""), 16, replicas)
			r := rand.New(rand.NewPCG(3, uint64(replicas)))
			if err := all(manyReaders(s, r, url, data, nil)...); err != nil {
				t.Fatal(err)
			}
			if n := origin.Bytes("/file"); n != int64(len(data)) {
				t.Errorf("the origin sent %d bytes, want %d; %d requests", n, len(data), origin.Requests("/file"))
			}
		})
	}
}

// TestManyReadersSeedKilled: of 2 seeds one is killed at a random point of the
// file, or of its first eighth, where the first election and that of another seed
// fall into the same second. Every read ends right, and the origin sends again at
// most what it had sent to the dead one, and no byte a third time.
func TestManyReadersSeedKilled(t *testing.T) {
	needMany(t)
	t.Run("anywhere", func(t *testing.T) { testSeedKilled(t, 1) })
	t.Run("early", func(t *testing.T) { testSeedKilled(t, 8) })
}

// standsStill waits until an origin that is stalled sends nothing and ends no request
// any more.
func standsStill(t *testing.T, origin *p2ptest.Origin) {
	t.Helper()
	var last [2]int64
	since := time.Now()
	p2ptest.Eventually(t, readyWithin, func() bool {
		now := [2]int64{origin.Bytes("/file")}
		for _, h := range origin.Hits("/file") {
			if h.Done {
				now[1]++
			}
		}
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 100*time.Millisecond
	}, "the origin stands still")
}

// testSeedKilled kills a seed in the first of so many parts of the file.
func testSeedKilled(t *testing.T, parts int64) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(12, 16<<20)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 16, 2)
	victim := s.seedOf(url, data)
	before := origin.Bytes("/file")
	origin.SetRate(16 << 20)
	at := before + r.Int64N(int64(len(data))/parts)
	done := make(chan error, 1)
	go func() { done <- all(manyReaders(s, r, url, data, victim)...) }()
	p2ptest.Eventually(t, 20*time.Second, func() bool { return origin.Bytes("/file") >= min(at, int64(len(data))) }, "the moment")
	origin.Stall() // what is on its way to the dead one is counted too
	standsStill(t, origin)
	victim.kill()
	standsStill(t, origin)        // its requests have ended
	sent := origin.Bytes("/file") // what the dead one had is part of it
	origin.SetRate(0)
	origin.Resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
	n, size := origin.Bytes("/file"), int64(len(data))
	t.Logf("killed after %.2f of the file; the origin sent %.2f times the file", float64(sent)/float64(size), float64(n)/float64(size))
	if n > size+sent || origin.MaxCopies("/file") > 2 {
		t.Errorf("the origin sent %d bytes, one of them %d times: want at most those %d again that it had sent before", n, origin.MaxCopies("/file"), sent)
	}
}

// seedOf returns the head of a task, having read its first byte.
func (s *swarm) seedOf(url string, data []byte) *process {
	s.t.Helper()
	if err := s.daemons[0].check(url, data, 0, 1); err != nil {
		s.t.Fatal(err)
	}
	for _, k := range s.daemons[0].tasks(s.t) {
		for _, d := range s.daemons {
			if k.URL == url && d.Peer == k.Seeds[0] {
				return d
			}
		}
	}
	s.t.Fatal("the task has no seed")
	return nil
}

// TestManyReadersBlockFails: while the origin answers 503 for one block, through a
// minute of reading by 64 clients of 16 nodes, it is asked for that block four times
// at most, by whomever, though the growing demand moves the block from seed to seed;
// and all else is served.
func TestManyReadersBlockFails(t *testing.T) {
	needMany(t)
	const bad, block = 5, 1 << 20
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(13, 16<<20)
	url := origin.Add("/file", data)
	var asked atomic.Int64
	origin.SetFault(func(r *http.Request) p2ptest.Fault {
		var first, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err == nil && first < (bad+1)*block && last >= bad*block {
			asked.Add(1)
			return p2ptest.Fault{Status: http.StatusServiceUnavailable}
		}
		return p2ptest.Fault{}
	})
	s := newSwarm(t, binary(t, ""), 16, 2)
	var readers []func() error
	for i := range 64 {
		d, good := s.daemons[i%len(s.daemons)], int64(i%15)
		if good >= bad {
			good++
		}
		readers = append(readers, func() error {
			if _, err := d.get(url, bad*block, (bad+1)*block); err == nil || !strings.Contains(err.Error(), "503") {
				return fmt.Errorf("read the block that fails: %w, want the origin's answer", err)
			}
			return d.check(url, data, good*block, (good+1)*block)
		})
	}
	round := time.NewTicker(2 * time.Second)
	defer round.Stop()
	for begin := time.Now(); time.Since(begin) < failsFor; <-round.C {
		if err := all(readers...); err != nil {
			t.Fatal(err)
		}
	}
	n := asked.Load()
	t.Logf("the origin was asked %d times for the block that fails", n)
	if n < 1 || n > 4 {
		t.Error("want 4 at most")
	}
	if n := origin.MaxCopies("/file"); n != 1 {
		t.Errorf("a byte was sent %d times", n)
	}
}

// failsFor is how long a block fails: the time in which an origin may be asked for
// one four times, but for the first request.
const failsFor = 55 * time.Second
