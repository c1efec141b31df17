package seed

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// listener keeps what Config.Changed was told last.
type listener struct {
	mu   sync.Mutex
	told int
	last Held
}

func (l *listener) changed(h Held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told++
	l.last = h
}

// wants fails the test unless the last word is soon of so many blocks, and that
// is also what Current has.
func (l *listener) wants(t *testing.T, m *Manager, what string, blocks int64, gen content.Generation) {
	t.Helper()
	p2ptest.Eventually(t, soon, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.last.Blocks == blocks && l.last.Key.Task == testTask(t).ID && l.last.Key.Generation == gen
	}, what)
	all := m.Current()
	if blocks == 0 && len(all) > 0 || blocks > 0 && (len(all) != 1 || all[0].Blocks != blocks || all[0].Key.Generation != gen) {
		t.Errorf("%s: currently held is %+v", what, all)
	}
}

// TestToldWhatIsHeld: whatever becomes of the blocks of a task, it is told.
func TestToldWhatIsHeld(t *testing.T) {
	var l listener
	var m *Manager
	one, two := newFakeOrigin(3*mib), otherFile(2*mib, `"two"`)
	c := &changing{one}
	disk := store.OpenMemory(store.MemoryConfig{
		Capacity: 4*mib - 1,
		Evicted:  func(key store.Key, _ int64, _ bool) { m.Evicted(key.Task) },
	})
	m = newManager(t, c, func(c *Config) { c.Store, c.Changed = disk, l.changed })
	mustRead(t, m, one.data, content.Range{Len: 3 * mib})
	l.wants(t, m, "three blocks are stored", 3, one.meta.Generation)

	// Another task's block needs the room of one.
	other := store.Key{Task: content.TaskID{9}, Generation: content.Generation{9}}
	file, err := disk.Create(other, store.Info{Meta: content.Meta{Size: mib, Generation: other.Generation}})
	if err != nil {
		t.Fatal(err)
	}
	file.Outdate(true)
	data := p2ptest.Bytes(5, mib)
	outboard, root := content.Outboard(data)
	if err := file.Write(0, data, store.Record{Seal: content.Seal{Root: root}, Outboard: outboard}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, m, "one block is evicted", 2, one.meta.Generation)

	old := open(t, m, content.Range{})
	c.now = two
	if err := old.f.disk.Drop(2); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(t.Context(), old, content.Range{Len: 3 * mib}); !errors.Is(err, ErrChanged) {
		t.Fatalf("error %v, want ErrChanged", err)
	}
	l.wants(t, m, "the origin has another generation", 0, content.Generation{})
	mustRead(t, m, two.data, content.Range{Len: mib})
	l.wants(t, m, "a block of the new generation is stored", 1, two.meta.Generation)

	f := open(t, m, content.Range{})
	if err := m.discard(f.f); err != nil {
		t.Fatal(err)
	}
	l.wants(t, m, "the file is discarded", 0, content.Generation{})
}

// TestToldOfDamage: a block that is found to be damaged is told of as lost, and
// as held again when it has been fetched anew.
func TestToldOfDamage(t *testing.T) {
	dir := t.TempDir()
	disk, err := store.OpenDisk(store.DiskConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	var l listener
	origin := newFakeOrigin(2 * mib)
	m := newManager(t, origin, func(c *Config) { c.Store, c.Changed = disk, l.changed })
	mustRead(t, m, origin.data, content.Range{Len: 2 * mib})
	l.wants(t, m, "two blocks are stored", 2, origin.meta.Generation)
	paths, err := filepath.Glob(filepath.Join(dir, "data", "*", "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("data files %v, %v", paths, err)
	}
	file, err := os.OpenFile(paths[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteAt([]byte{^origin.data[mib]}, mib); err != nil {
		t.Fatal(err)
	}
	f := open(t, m, content.Range{})
	f.f.recheck(content.Range{Len: 2 * mib})
	l.wants(t, m, "a damaged block is dropped", 1, origin.meta.Generation)
	mustRead(t, m, origin.data, content.Range{Len: 2 * mib})
	l.wants(t, m, "it is fetched again", 2, origin.meta.Generation)
	if _, err := file.WriteAt([]byte{^origin.data[0]}, 0); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	told := l.told
	l.mu.Unlock()
	mustRead(t, m, origin.data, content.Range{Len: 1})
	l.wants(t, m, "a reader's block is fetched again", 2, origin.meta.Generation)
	p2ptest.Eventually(t, soon, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.told == told+2
	}, "told of the loss and of the new block")
}
