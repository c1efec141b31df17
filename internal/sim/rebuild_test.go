package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

const (
	rebuildFiles = 20
	rebuildSize  = 3<<20 + 12345
)

// rebuild is a swarm whose supernode and whose seeds of a file die.
type rebuild struct {
	t        *testing.T
	w        *world
	origin   *memoryOrigin
	urls     []string
	top      *machine
	machines []*machine
	stations []*station
}

// TestDHTRebuild kills every supernode and the seeds of a file: a fresh node
// reads it from a holder that the DHT names. A supernode that returns knows all
// within a heartbeat period from reports, and causes no request to the origin.
func TestDHTRebuild(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("the race detector sees the same parts in TestChaos, and makes this one take minutes")
	}
	synctest.Test(t, func(t *testing.T) {
		r := &rebuild{t: t, w: newWorld(t), origin: newOrigin(t)}
		r.top = r.w.newMachine(1)
		for i := range rebuildFiles {
			r.urls = append(r.urls, r.origin.add(uint64(i+1), rebuildSize))
		}
		b := r.top.newBoss(supernode.Config{})
		for i := range 6 {
			r.machines = append(r.machines, r.w.newMachine(i+2))
			r.stations = append(r.stations, r.machines[i].newStation(r.config()))
		}
		waitForPool(t, r.stations, len(r.stations))
		for i, url := range r.urls {
			for j := range 4 { // seeds, and some who are none
				mustRead(t, r.stations[(i+j)%len(r.stations)], url, uint64(i+1), rebuildSize)
			}
		}
		time.Sleep(10 * time.Second) // reported, elected, announced
		requests := r.origin.asked()
		r.end(r.top, b)

		r.killSeeds(r.urls[0])
		r.readFresh()
		random := rand.New(rand.NewPCG(5, 5))
		for range 10 {
			time.Sleep(10*time.Second + time.Duration(random.IntN(60_000))*time.Millisecond)
			r.end(r.top, r.restore())
		}
		b = r.restore()
		time.Sleep(30 * time.Second) // past the pool and the elections
		if now := r.origin.asked(); now != requests {
			t.Errorf("%d requests to the origin since the supernode died", now-requests)
		}
		stopAll(t, r.stations, b)
	})
}

func (r *rebuild) config() stationConfig {
	return stationConfig{supernodes: []peer.AddrInfo{r.top.info()}, origin: r.origin, store: store.NewMemory(1 << 30)}
}

// end has a machine's packets lost, and ends what runs there.
func (r *rebuild) end(m *machine, what interface{ stop() error }) {
	r.t.Helper()
	r.w.move(m, -1)
	if err := what.stop(); err != nil {
		r.t.Error(err)
	}
}

// killSeeds ends the seeds of a file.
func (r *rebuild) killSeeds(url string) {
	r.t.Helper()
	task, err := content.NewTask(url, content.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, seed := range r.stations[0].seeds.Seeds(nil, task.ID) {
		i := slices.IndexFunc(r.stations, func(s *station) bool { return s.id == seed.ID })
		r.end(r.machines[i], r.stations[i])
		r.machines, r.stations = slices.Delete(r.machines, i, i+1), slices.Delete(r.stations, i, i+1)
	}
}

// readFresh starts a node that knows one other peer, and reads a file through
// it.
func (r *rebuild) readFresh() {
	r.t.Helper()
	cfg := r.config()
	cfg.bootstrap = []peer.AddrInfo{r.machines[0].info()}
	m := r.w.newMachine(100)
	reader := m.newStation(cfg)
	r.machines, r.stations = append(r.machines, m), append(r.stations, reader)
	time.Sleep(3 * time.Second)
	start := time.Now()
	mustRead(r.t, reader, r.urls[0], 1, rebuildSize)
	r.t.Logf("a fresh node read %d bytes in %v, every supernode and seed dead", rebuildSize, time.Since(start))
	if reader.named.Load() == 0 {
		r.t.Error("the DHT named nobody: the bytes came otherwise")
	}
}

// restore starts the supernode again and waits until it knows what all hold.
func (r *rebuild) restore() *boss {
	r.t.Helper()
	r.w.move(r.top, 0)
	b := r.top.newBoss(supernode.Config{})
	start := time.Now()
	for len(missingTasks(b, r.stations)) > 0 && time.Since(start) < time.Minute {
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(start)
	r.t.Logf("the supernode that returned knew the %d files of %d peers after %v", rebuildFiles, len(r.stations), took)
	if took > heartbeat.DefaultInterval*11/10 { // a period is varied by 10 %
		r.t.Errorf("that is more than one heartbeat period")
	}
	return b
}

// missingTasks returns what peers hold that a supernode does not know.
func missingTasks(b *boss, peers []*station) []content.TaskID {
	known := make(map[content.TaskID]int)
	for _, task := range b.Status().Tasks {
		known[task.Task] = task.Holders
	}
	var missing []content.TaskID
	for _, s := range peers {
		for _, h := range s.files.Files() {
			known[h.Key.Task]--
		}
	}
	for id, n := range known {
		if n < 0 {
			missing = append(missing, id)
		}
	}
	return missing
}

// mustRead reads a whole file and compares it with what it was made of.
func mustRead(t *testing.T, s *station, url string, seed uint64, size int) {
	t.Helper()
	var got bytes.Buffer
	if _, err := s.read(t.Context(), &got, url, 0, int64(size)); err != nil {
		t.Fatalf("read %s: %v", url, err)
	}
	if !bytes.Equal(got.Bytes(), p2ptest.Bytes(seed, size)) {
		t.Fatalf("read %s: wrong bytes", url)
	}
}
