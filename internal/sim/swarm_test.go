package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/supernode"
)

var hosts = flag.Int("hosts", 100, "real hosts in TestSwarm")

const (
	// knownWithin is how soon 99 % of the peers must know an assignment.
	knownWithin = time.Second
	// idleRate bounds the control traffic of an idle peer, both ways, in bytes
	// a second.
	idleRate = 200
)

// arrivals notes when the assignments of tasks reached the maps of peers.
type arrivals struct {
	mu sync.Mutex
	// mu guards the following: the times at which each peer heard of a task
	// first.
	at map[content.TaskID]map[int]time.Time
}

// of returns what a peer's map calls.
func (a *arrivals) of(n int) func(assignment.Update) {
	return func(u assignment.Update) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, assign := range u.Assigns {
			if a.at[assign.Task] == nil {
				a.at[assign.Task] = make(map[int]time.Time)
			}
			if _, known := a.at[assign.Task][n]; !known {
				a.at[assign.Task][n] = time.Now()
			}
		}
	}
}

// delays returns how long after since each of n peers knew a task, the fastest
// first. Who does not know it counts with the time up to now.
func (a *arrivals) delays(task content.TaskID, since time.Time, n int) []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []time.Duration
	for _, at := range a.at[task] {
		out = append(out, at.Sub(since))
	}
	for len(out) < n {
		out = append(out, time.Since(since))
	}
	slices.Sort(out)
	return out
}

// percentile returns the smallest value that p percent of the sorted values do
// not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1]
}

// TestSwarm has real hosts join a supernode over links of 50 ms and measures
// how soon the pool and assignments are known, and what the control plane costs
// when nothing happens.
func TestSwarm(t *testing.T) {
	t.Parallel()
	n := *hosts
	if raced {
		n = 8
		t.Logf("%d hosts instead of %d: the race detector makes each ten times dearer", n, *hosts)
	} else if testing.Short() {
		n = min(n, 30)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		random := rand.New(rand.NewPCG(1, uint64(n)))
		top := w.newMachine(1)
		b := top.newBoss(supernode.Config{})
		news := &arrivals{at: make(map[content.TaskID]map[int]time.Time)}
		machines, stations := make([]*machine, n), make([]*station, n)
		start := time.Now()
		for i := range n {
			machines[i] = w.newMachine(i + 2)
			stations[i] = machines[i].newStation(stationConfig{supernodes: []peer.AddrInfo{top.info()}, applied: news.of(i)})
			time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
		}
		started := time.Since(start)
		waitForPool(t, stations, min(n, assignment.MaxPool))
		t.Logf("%d hosts started in %v; all have the whole pool %v later", n, started, time.Since(start)-started)

		time.Sleep(20 * time.Second) // meshes and routing tables settle
		measureIdle(t, top, machines)
		measureAssignments(t, stations, news, random)
		measureBurst(t, stations, news)

		stopAll(t, stations, b)
	})
}

// waitForPool waits until every map has a pool of the given size.
func waitForPool(t *testing.T, stations []*station, size int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		missing := 0
		for _, s := range stations {
			if len(s.seeds.Pool()) != size {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d maps have no pool of %d", missing, len(stations), size)
		}
	}
}

// measureIdle watches the swarm for half a minute in which nothing happens.
func measureIdle(t *testing.T, top *machine, machines []*machine) {
	t.Helper()
	const watch = 30 * time.Second
	before, topBefore := make([]usage, len(machines)), top.usage()
	for i, m := range machines {
		before[i] = m.usage()
	}
	time.Sleep(watch)
	var control, wire []float64
	for i, m := range machines {
		u := m.usage()
		control = append(control, float64(u.control.bytes-before[i].control.bytes)/watch.Seconds())
		wire = append(wire, float64(u.wire-before[i].wire)/watch.Seconds())
	}
	slices.Sort(control)
	slices.Sort(wire)
	u := top.usage()
	t.Logf("idle, by peer, both ways: control %.0f B/s in the median, %.0f at most; with DHT, identify and QUIC %.0f, %.0f at most",
		control[len(control)/2], control[len(control)-1], wire[len(wire)/2], wire[len(wire)-1])
	t.Logf("idle, at the supernode: %.1f messages/s in, %.1f out; control %.0f B/s both ways, with all else %.0f",
		float64(u.beats-topBefore.beats)/watch.Seconds(), float64(u.control.calls-topBefore.control.calls)/watch.Seconds(),
		float64(u.control.bytes-topBefore.control.bytes)/watch.Seconds(), float64(u.wire-topBefore.wire)/watch.Seconds())
	if worst := control[len(control)-1]; worst > idleRate {
		t.Errorf("an idle peer's control traffic is %.0f B/s, want at most %d", worst, idleRate)
	}
}

// measureAssignments has peers report new files, one after another.
func measureAssignments(t *testing.T, stations []*station, news *arrivals, random *rand.Rand) {
	t.Helper()
	const tasks = 10
	var p50, p99 []time.Duration
	for i := range tasks {
		h := someTask(1, i)
		since := time.Now()
		stations[random.IntN(len(stations))].control.Report(h)
		time.Sleep(2*time.Second + time.Duration(random.IntN(1000))*time.Millisecond)
		delays := news.delays(h.Task, since, len(stations))
		p50, p99 = append(p50, percentile(delays, 50)), append(p99, percentile(delays, 99))
	}
	slices.Sort(p50)
	slices.Sort(p99)
	t.Logf("from report to map, %d tasks: half of the peers in %v (median of the tasks), 99 %% in %v, at worst %v",
		tasks, p50[tasks/2], p99[tasks/2], p99[tasks-1])
	if worst := p99[tasks-1]; worst > knownWithin {
		t.Errorf("99 %% of the peers knew an assignment after %v, want %v", worst, knownWithin)
	}
}

// measureBurst has one peer report many files at once.
func measureBurst(t *testing.T, stations []*station, news *arrivals) {
	t.Helper()
	const tasks = 1000
	since := time.Now()
	for i := range tasks {
		stations[0].control.Report(someTask(2, i))
	}
	time.Sleep(10 * time.Second) // two heartbeat periods
	var worst time.Duration
	for i := range tasks {
		worst = max(worst, percentile(news.delays(someTask(2, i).Task, since, len(stations)), 99))
	}
	t.Logf("%d tasks reported at once: 99 %% of the peers know each in %v", tasks, worst)
	for i, s := range stations {
		if missing := tasks - known(s, 2); missing > 0 {
			t.Errorf("peer %d lacks %d of %d tasks after two heartbeat periods", i, missing, tasks)
		}
	}
}

// someTask is the i-th file of a kind, of one block.
func someTask(kind byte, i int) report.Held {
	return report.Held{
		Task: content.TaskID{kind, byte(i >> 8), byte(i)}, URL: fmt.Sprintf("http://origin.example/a/path/of/some/length/%d/%d", kind, i),
		Generation: content.Generation{1}, Size: 1 << 20, Present: []byte{1},
	}
}

// known counts the assigned files of a kind in a station's map.
func known(s *station, kind byte) int {
	n := 0
	for e := range s.seeds.Entries() {
		if e.Task[0] == kind {
			n++
		}
	}
	return n
}

// usage is what a machine's host has sent and received so far.
type usage struct {
	// control is sent and received by the control protocols and GossipSub: bytes
	// both ways, writes for calls.
	control volume
	// beats are the messages received by the control protocols, by their
	// acknowledgements.
	beats int64
	wire  int64 // bytes of UDP payload, both ways
}

// controlProtocols are those of the control plane.
var controlProtocols = []protocol.ID{
	"/p2pnode/heartbeat/1.0.0", "/p2pnode/report/1.0.0", "/p2pnode/fetch/1.0.0", "/meshsub/1.3.0",
}

func (m *machine) usage() usage {
	var u usage
	m.sent.mu.Lock()
	defer m.sent.mu.Unlock()
	for _, p := range controlProtocols {
		u.control.bytes += m.sent.sent[p].bytes + m.sent.received[p].bytes
		u.control.calls += m.sent.sent[p].calls
	}
	u.beats = m.sent.sent[controlProtocols[0]].calls + m.sent.sent[controlProtocols[1]].calls
	stats := m.endpoint.Stats()
	u.wire = int64(stats.BytesSent + stats.BytesRcvd)
	return u
}

// stopAll stops nodes, then supernodes, and reports their errors.
func stopAll(t *testing.T, stations []*station, bosses ...*boss) {
	t.Helper()
	var wg sync.WaitGroup
	for _, s := range stations {
		wg.Go(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, b := range bosses {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	}
}
