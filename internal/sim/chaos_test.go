package sim

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

var (
	chaosSeed = flag.Uint64("chaos-seed", 1, "seed of TestChaos")
	chaosTime = flag.Duration("chaos-time", 10*time.Minute, "virtual time of TestChaos")
)

// unexplained is how many bytes the origin may send again without a reason that
// the test knows, such as readers who doubt different seeds: two blocks, 3 % of
// the files.
const unexplained = 2 * content.BlockSize

const (
	chaosPeers  = 10
	chaosFiles  = 40
	chaosBosses = 2
)

// TestChaos kills, restarts and partitions supernodes, elected seeds and half of
// the peers in a random order while every peer reads, whole stacks on simulated
// links. No read may fail, and the origin sends no more than the files once and
// what was lost.
func TestChaos(t *testing.T) {
	t.Parallel()
	length := *chaosTime
	if raced || testing.Short() {
		length = min(length, 30*time.Second)
		t.Logf("%v instead of %v: in short runs and under the race detector", length, *chaosTime)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newChaos(t, *chaosSeed)
		c.run(length)
		c.report()
	})
}

// chaos is a swarm that things happen to. Its goroutine makes them happen.
type chaos struct {
	t      *testing.T
	w      *world
	random *rand.Rand
	origin *memoryOrigin
	files  []chaosFile
	tasks  []content.TaskID // of the files
	bosses []*chaosBoss
	peers  []*chaosPeer
	start  time.Time
	log    []string

	// events are the times from which on maps may differ, and until when.
	events [][2]time.Time
	// lost says how often each block was lost: no live seed of its file had it
	// any more.
	lost  map[blockOf]int
	apart bool // a partition lasts
	// partitions are the times of the partitions, away those in which each peer
	// was dead.
	partitions [][2]time.Time
	away       map[peer.ID][][2]time.Time

	mu sync.Mutex
	// mu guards the following.
	live  map[peer.ID]*chaosPeer
	stats chaosStats
}

// chaosFile is a file that is read from a time on.
type chaosFile struct {
	url  string
	data []byte
	from time.Time
}

// blockOf names a block of a file.
type blockOf struct {
	file  int
	block int64
}

// chaosBoss is a supernode's machine.
type chaosBoss struct {
	m *machine
	b *boss // nil while it is dead
}

// chaosPeer is a peer's machine with its disk.
type chaosPeer struct {
	m       *machine
	disk    *store.Memory
	signers []peer.ID
	side    int
	s       *station // nil while it is dead
	cancel  context.CancelFunc
	reader  sync.WaitGroup
}

// chaosStats sums up the reads.
type chaosStats struct {
	reads, failed       int
	local, peer, origin int64
	took                []time.Duration
	supernodes, kills   int
	halves, partitions  int
	disks               int
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{
		t: t, w: newWorld(t), random: rand.New(rand.NewPCG(seed, 2)), origin: newOrigin(t), start: time.Now(),
		lost: make(map[blockOf]int), live: make(map[peer.ID]*chaosPeer),
		away: make(map[peer.ID][][2]time.Time),
	}
	for i := range chaosFiles {
		size := 100_000 + c.random.IntN(5<<19)
		c.files = append(c.files, chaosFile{
			url: c.origin.add(uint64(i), size), data: p2ptest.Bytes(uint64(i), size),
			from: c.start.Add(time.Duration(i) * *chaosTime * 9 / 10 / chaosFiles),
		})
		task, err := content.NewTask(c.files[i].url, content.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		c.tasks = append(c.tasks, task.ID)
	}
	c.origin.note = c.asker
	c.events = append(c.events, [2]time.Time{c.start, c.start.Add(peersDiffer)})
	for i := range chaosBosses {
		b := &chaosBoss{m: c.w.newMachine(i + 1)}
		b.b = b.m.newBoss(supernode.Config{})
		c.bosses = append(c.bosses, b)
	}
	for i := range chaosPeers {
		p := &chaosPeer{m: c.w.newMachine(i + 10), disk: store.NewMemory(1 << 30)}
		c.peers = append(c.peers, p)
		c.revive(p)
	}
	return c
}

func (c *chaos) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf("%8.3f  ", time.Since(c.start).Seconds())+fmt.Sprintf(format, args...))
}

// revive starts a peer and, once it has a pool, its reader.
func (c *chaos) revive(p *chaosPeer) {
	c.w.move(p.m, p.side)
	var infos []peer.AddrInfo
	for _, b := range c.bosses {
		infos = append(infos, b.m.info())
	}
	// A node has met others, and joins through them too.
	var met []peer.AddrInfo
	for _, o := range c.peers {
		if o != p && len(met) < 3 {
			met = append(met, o.m.info())
		}
	}
	p.s = p.m.newStation(stationConfig{
		supernodes: infos, bootstrap: met, store: p.disk, origin: c.origin, fallback: true, signers: p.signers,
	})
	c.mu.Lock()
	c.live[p.m.id] = p
	if n := len(c.away[p.m.id]); n > 0 {
		c.away[p.m.id][n-1][1] = time.Now()
	}
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	random := rand.New(rand.NewPCG(c.random.Uint64(), 3))
	s := p.s
	p.reader.Go(func() {
		select {
		case <-s.control.Ready():
		case <-time.After(5 * time.Second): // as node.Node waits for it
		case <-ctx.Done():
		}
		for pause(ctx, random, 3*time.Second) {
			c.readSome(ctx, s, random)
		}
	})
}

// kill ends a peer: none of its packets arrive any more. Its disk stays.
func (c *chaos) kill(p *chaosPeer) {
	c.w.move(p.m, -1)
	c.mu.Lock()
	delete(c.live, p.m.id)
	c.away[p.m.id] = append(c.away[p.m.id], [2]time.Time{time.Now(), time.Now().Add(never)})
	c.mu.Unlock()
	p.cancel()
	p.signers = p.s.seeds.Signers()
	if err := p.s.stop(); err != nil {
		c.t.Error(err)
	}
	p.reader.Wait()
	p.s = nil
}

// asker completes what the origin notes of a request: where it came from, and
// whether by its own map the peer owns what it asks for.
func (c *chaos) asker(h *hit) {
	c.mu.Lock()
	p := c.live[h.by]
	c.mu.Unlock()
	if p == nil {
		return // killed this moment
	}
	i := slices.IndexFunc(c.files, func(f chaosFile) bool { return f.url == h.url })
	layout := content.Layout{Size: int64(len(c.files[i].data))}
	owner, _ := p.s.seeds.Owner(c.tasks[i], layout.StripeOf(h.off), false, nil)
	h.side, h.owner = p.side, owner == h.by
}

// pause waits for a random time, the given one in the mean; false when ctx
// ended.
func pause(ctx context.Context, random *rand.Rand, mean time.Duration) bool {
	select {
	case <-time.After(time.Duration(random.ExpFloat64() * float64(mean))):
		return true
	case <-ctx.Done():
		return false
	}
}

// open returns the files that are read by now, the newest last.
func (c *chaos) open() []int {
	var out []int
	for i, f := range c.files {
		if !time.Now().Before(f.from) {
			out = append(out, i)
		}
	}
	return out
}

// readSome reads a random part of a random file and compares it.
func (c *chaos) readSome(ctx context.Context, s *station, random *rand.Rand) {
	open := c.open()
	i := open[random.IntN(len(open))]
	if random.IntN(2) == 0 {
		i = open[len(open)-1] // new files are read most
	}
	f := c.files[i]
	off, n := int64(0), int64(len(f.data))
	if random.IntN(2) == 0 {
		off = random.Int64N(n)
		n = min(n-off, 1+random.Int64N(100_000))
	}
	began := time.Now()
	var got bytes.Buffer
	tally, err := s.read(ctx, &got, f.url, off, n)
	if err == nil && !bytes.Equal(got.Bytes(), f.data[off:off+n]) {
		err = fmt.Errorf("wrong bytes")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return // the peer was killed meanwhile
	}
	c.stats.reads++
	c.stats.local, c.stats.peer, c.stats.origin = c.stats.local+tally[0], c.stats.peer+tally[1], c.stats.origin+tally[2]
	c.stats.took = append(c.stats.took, time.Since(began))
	if err != nil {
		c.stats.failed++
		c.t.Errorf("%.3f s: %s reads [%d,+%d) of file %d, begun %v ago: %v",
			time.Since(c.start).Seconds(), s.id.ShortString(), off, n, i, time.Since(began), err)
	}
}

// run has things happen until the time is over, and some calm at the end.
func (c *chaos) run(length time.Duration) {
	events := []func(){c.bossEvent, c.bossEvent, c.seedEvent, c.seedEvent, c.seedEvent, c.halfEvent, c.partitionEvent}
	time.Sleep(10 * time.Second)
	for time.Since(c.start) < length {
		events[c.random.IntN(len(events))]()
		time.Sleep(10*time.Second + time.Duration(c.random.IntN(30_000))*time.Millisecond)
	}
	for _, p := range c.peers {
		if p.s != nil {
			c.kill(p)
		}
	}
	for _, b := range c.bosses {
		if b.b != nil {
			c.must(b.b.stop())
		}
	}
}

func (c *chaos) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Error(err)
	}
}
