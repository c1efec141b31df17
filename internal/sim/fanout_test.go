package sim

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

const (
	fanoutNodes = 16
	fanoutSize  = 8 << 20
	fanoutFiles = 6
	// fanoutMost is how many copies of a file the node that sends most of it may
	// send, in the mean of the files: of one, luck decides how its stripes fall to
	// its two seeds, and how many come late that can follow none of those who wait,
	// by their scores. Two seeds send all that others do not: 14 copies, 7 each,
	// where nobody is referred.
	fanoutMost = 4
)

// TestFanout: everybody asks for a file at once. It leaves the origin once, and
// its readers send it to one another: no node's uplink carries most of it.
func TestFanout(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("the race detector sees the same parts in TestChaos, and makes this one take minutes")
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fanout{t: t, origin: newOrigin(t)}
		w := newWorld(t)
		top := w.newMachine(1)
		b := top.newBoss(supernode.Config{})
		for i := range fanoutNodes {
			m := w.newMachine(i + 2)
			f.machines = append(f.machines, m)
			f.stations = append(f.stations, m.newStation(stationConfig{
				supernodes: []peer.AddrInfo{top.info()}, origin: f.origin, store: store.NewMemory(1 << 30),
			}))
		}
		waitForPool(t, f.stations, len(f.stations))
		time.Sleep(5 * time.Second) // virtual: meshes settle
		var sum float64
		for i := range uint64(fanoutFiles) {
			sum += f.readByAll(i + 1)
		}
		mean := sum / fanoutFiles
		t.Logf("the node that sends most of a file sends %.2f copies in the mean", mean)
		if mean > fanoutMost {
			t.Errorf("want at most %d", fanoutMost)
		}
		stopAll(t, f.stations, b)
	})
}

// fanout is a swarm whose nodes read the same files.
type fanout struct {
	t        *testing.T
	origin   *memoryOrigin
	machines []*machine
	stations []*station
}

// readByAll has every node read file i at once, and returns how many copies of
// it the node sent that sent most.
func (f *fanout) readByAll(i uint64) (most float64) {
	f.t.Helper()
	url := f.origin.add(i, fanoutSize)
	before := make([]int64, len(f.machines))
	for j, m := range f.machines {
		before[j] = m.served()
	}
	start := time.Now()
	g, ctx := errgroup.WithContext(context.Background())
	for _, s := range f.stations {
		g.Go(func() error {
			var got bytes.Buffer
			if _, err := s.read(ctx, &got, url, 0, fanoutSize); err != nil {
				return err
			}
			if !bytes.Equal(got.Bytes(), p2ptest.Bytes(i, fanoutSize)) {
				f.t.Errorf("%s has wrong bytes", s.id)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		f.t.Fatal(err)
	}
	took := time.Since(start)
	var sum float64
	for j, m := range f.machines {
		copies := float64(m.served()-before[j]) / fanoutSize
		most, sum = max(most, copies), sum+copies
	}
	var sent int64
	for _, h := range f.origin.fetched() {
		if h.url == url {
			sent += h.sent
		}
	}
	f.t.Logf("%d nodes have the %d bytes of file %d after %v: %.2f copies between them, at most %.2f from one, %d bytes from the origin",
		fanoutNodes, fanoutSize, i, took, sum, most, sent)
	if sent != fanoutSize {
		f.t.Errorf("%d bytes from the origin, want %d", sent, fanoutSize)
	}
	return most
}

// served returns the bytes that a machine has sent of files.
func (m *machine) served() int64 {
	m.sent.mu.Lock()
	defer m.sent.mu.Unlock()
	return m.sent.sent[rangeread.ProtocolID].bytes
}
