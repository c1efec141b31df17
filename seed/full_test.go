package seed

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// noFiles is a store on a disk that has no room for a file's record.
type noFiles struct{ store.Store }

func (noFiles) Create(store.Key, store.Info) (store.File, error) { return nil, store.ErrFull }

// TestNoRoomForAFile: a node whose disk is full sends peers elsewhere, who may
// have room; its own clients read the origin.
func TestNoRoomForAFile(t *testing.T) {
	origin := newFakeOrigin(mib)
	hosts := p2ptest.Hosts(t, 2)
	noRoom := func(c *Config) { c.Store = noFiles{store.NewMemory(0)} }
	n := newNode(t, hosts[0], func(*node) Filler { return origin }, noRoom)
	reader := newNode(t, hosts[1], func(*node) Filler { return origin }, nil)
	connectAll(t, n, reader)
	want := content.Range{Len: mib}
	if _, err := reader.readPeer(t.Context(), n.id(), ask(t, want), nil); rangeread.StatusOf(err) != rangeread.StatusNotFound {
		t.Errorf("a peer is told %v, want NOT_FOUND", err)
	}
	if _, err := n.m.Open(t.Context(), request(testTask(t), want)); !errors.Is(err, ErrNotSupported) {
		t.Errorf("a client is told %v, want ErrNotSupported", err)
	}
}

// sometimes is a store that refuses blocks while full is set.
type sometimes struct {
	store.Store
	full *atomic.Bool
}

type sometimesFile struct {
	store.File
	full *atomic.Bool
}

func (s sometimes) Create(k store.Key, i store.Info) (store.File, error) {
	f, err := s.Store.Create(k, i)
	return sometimesFile{f, s.full}, err
}

func (f sometimesFile) Write(i int64, data []byte, rec store.Record) error {
	if f.full.Load() {
		return store.ErrFull
	}
	return f.File.Write(i, data, rec)
}

// lines keeps the messages of a log.
type lines struct {
	slog.Handler
	mu   *sync.Mutex
	seen *[]string
}

func (l lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.seen = append(*l.seen, r.Message)
	return nil
}

// TestFullIsLoggedOnce: blocks that pass through are one line in the log, and
// another says when they are stored again.
func TestFullIsLoggedOnce(t *testing.T) {
	const size = 4 * mib
	var full atomic.Bool
	full.Store(true)
	log := lines{slog.DiscardHandler, new(sync.Mutex), new([]string)}
	origin := newFakeOrigin(size)
	m := newManager(t, origin, func(c *Config) {
		c.Store, c.Logger = sometimes{store.NewMemory(0), &full}, slog.New(log)
	})
	for i := range int64(4) {
		mustRead(t, m, origin.data, content.Range{Off: i * mib, Len: mib})
	}
	p2ptest.Eventually(t, soon, func() bool { return len(flightsNow(m)) == 0 }, "all blocks were refused")
	full.Store(false)
	mustRead(t, m, origin.data, content.Range{Len: size})
	waitStored(t, m, 4)
	log.mu.Lock()
	defer log.mu.Unlock()
	if want := []string{"cannot store blocks, passing them on uncached", "blocks are stored again"}; len(*log.seen) != 2 || (*log.seen)[0] != want[0] || (*log.seen)[1] != want[1] {
		t.Errorf("logged %q, want %q", *log.seen, want)
	}
}
