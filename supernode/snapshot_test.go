package supernode

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// populated is a world with five members, three tasks and an order.
func populated(t *testing.T) *world {
	return newWorld(t, Config{}).populate()
}

func (w *world) populate() *world {
	p := ids(5)
	w.beat(p...)
	for i := range 3 {
		w.report(p[i], content.TaskID{byte(i)}, 3)
	}
	w.step(0)
	w.core.order(p[4], Cordon)
	w.step(5 * time.Second)
	return w
}

// A supernode and all of its peers are started again, so that nobody else
// remembers anything: it goes on where it was.
func TestSnapshotIsAWarmStart(t *testing.T) {
	w := populated(t)
	p := ids(5)
	before := w.assigns
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := w.core.snapshot(w.now).write(path); err != nil {
		t.Fatal(err)
	}
	saved, err := readSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Minute)
	w.restart(Config{})
	w.core.restore(saved, w.now)
	if w.core.orders[p[4]] != Cordon || len(w.core.orders) != 1 {
		t.Errorf("orders %v", w.core.orders)
	}
	session := func(i int) {
		w.core.beat(p[i], heartbeat.Beat{Session: 9, Seq: 1, Seed: true}, w.now)
	}
	session(0)
	w.report(p[0], content.TaskID{0}, 3)
	if got := w.step(time.Second); len(got) != 0 {
		t.Fatalf("published %v when one of five was back", got)
	}
	for i := 1; i < 5; i++ {
		session(i)
		w.report(p[i%3], content.TaskID{byte(i % 3)}, 3)
	}
	w.step(time.Second)
	w.wantPool(p...)
	for task, a := range before {
		if got := w.assigns[task]; !slices.Equal(got.Seeds, a.Seeds) {
			t.Errorf("task %s: seeds %v, were %v", task, got.Seeds, a.Seeds)
		}
	}
}

// A supernode that is started again with its clock set back publishes behind what
// it published before, or no peer would listen.
func TestSnapshotOfALaterClock(t *testing.T) {
	w := populated(t)
	saved := w.core.snapshot(w.now)
	before := w.core.epoch
	w.now = time.UnixMilli(int64(before) - 1)
	w.restart(Config{})
	if w.core.epoch >= before {
		t.Fatal("the clock did not go back")
	}
	w.core.restore(saved, w.now)
	if w.core.epoch != before+1 || w.core.log.seq != 0 {
		t.Errorf("epoch %d at seq %d, was %d", w.core.epoch, w.core.log.seq, before)
	}
	for _, id := range ids(5) {
		w.beat(id)
	}
	w.step(time.Second)
	w.wantPool(ids(5)...)
}

// A supernode that is stopped again before all peers are back loses nothing of
// what its last life kept, nor keeps anything twice.
func TestStopWhileSettling(t *testing.T) {
	w := populated(t)
	before := w.assigns
	saved := w.core.snapshot(w.now)
	for range 3 {
		w.now = w.now.Add(time.Second)
		w.restart(Config{})
		w.core.restore(saved, w.now)
		w.beat(ids(5)[0])
		if got := w.step(time.Second); len(got) != 0 {
			t.Fatalf("published %v when one of five was back", got)
		}
		again := w.core.snapshot(w.now)
		if len(again.updates) != len(saved.updates) || len(again.Orders) != 1 || again.Epoch <= saved.Epoch {
			t.Fatalf("kept %d updates, %d orders of epoch %d; before %d updates of %d", len(again.updates), len(again.Orders), again.Epoch, len(saved.updates), saved.Epoch)
		}
		saved = again
	}
	// All are back, one file is reported again: the pool and this file are told
	// anew, of the others what was told before is kept.
	w.beat(ids(5)...)
	w.report(ids(5)[0], content.TaskID{0}, 3)
	w.step(time.Second)
	w.wantPool(ids(5)...)
	saved = w.core.snapshot(w.now)
	w.now = w.now.Add(time.Second)
	w.restart(Config{})
	w.core.restore(saved, w.now)
	pools := 0
	for _, e := range w.core.past.entries {
		if e.Pool != nil {
			pools++
		}
	}
	if len(w.core.past.assigns) != len(before) || len(w.core.past.pool) != 5 || pools != 1 {
		t.Errorf("%d assignments, pool of %d in %d updates; want %d, 5 in 1", len(w.core.past.assigns), len(w.core.past.pool), pools, len(before))
	}
	for task, a := range before {
		if got := w.core.past.assigns[task]; !slices.Equal(got.Seeds, a.Seeds) {
			t.Errorf("task %s: seeds %v, were %v", task, got.Seeds, a.Seeds)
		}
	}
}

// What is older than a lease is no reason to wait for anybody.
func TestOldSnapshotIsNotWaitedFor(t *testing.T) {
	w := populated(t)
	saved := w.core.snapshot(w.now)
	w.now = w.now.Add(time.Hour)
	w.restart(Config{})
	w.core.restore(saved, w.now)
	w.beat(ids(5)[0])
	w.step(0)
	w.wantPool(ids(5)[0])
	if len(w.core.orders) != 1 {
		t.Error("an order grew old")
	}
}

func TestDamagedSnapshot(t *testing.T) {
	b, err := populated(t).core.snapshot(time.UnixMilli(1)).encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := decodeSnapshot(b); err != nil || len(s.updates) == 0 {
		t.Fatalf("%d updates, %v", len(s.updates), err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := decodeSnapshot(bad); !errors.Is(err, errSnapshot) {
			t.Fatalf("byte %d of %d flipped: err %v", i, len(b), err)
		}
		if _, err := decodeSnapshot(b[:i]); !errors.Is(err, errSnapshot) {
			t.Fatalf("%d of %d bytes: err %v", i, len(b), err)
		}
	}
	if s, err := readSnapshot(filepath.Join(t.TempDir(), "none")); err != nil || len(s.Orders) != 0 {
		t.Errorf("a file that is not there: %v, %v", s, err)
	}
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readSnapshot(dir); err == nil {
		t.Error("a directory was read as a snapshot")
	}
}

// The epoch behind the last one that may be would be one that no peer takes.
func TestSnapshotOfTheLastEpoch(t *testing.T) {
	for epoch, ok := range map[uint64]bool{math.MaxInt64 - 1: true, math.MaxInt64: false, math.MaxUint64: false} {
		b, err := snapshot{Epoch: epoch}.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeSnapshot(b); (err == nil) != ok {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

func fixedKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What is read can be written, and says the same again.
func FuzzSnapshot(f *testing.F) {
	// The seeds hold what a core published: a pool, and assignments.
	seed := func(s snapshot) {
		b, err := s.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[len(snapshotMagic) : len(b)-4])
	}
	seed(snapshot{Orders: []PeerOrder{{ids(1)[0], Drain}}})
	w := newWorld(f, Config{})
	w.key = fixedKey(f) // each process that fuzzes makes the seeds
	w.restart(Config{}).populate()
	seed(w.core.snapshot(w.now))
	f.Fuzz(func(t *testing.T, body []byte) {
		// With a good checksum, or no damage would get behind it.
		s, err := decodeSnapshot(sealed(append([]byte(snapshotMagic), body...)))
		if err != nil {
			return
		}
		b, err := s.encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		again, err := decodeSnapshot(b)
		if err != nil {
			t.Fatalf("decoded, encoded, not decoded: %v", err)
		}
		if !again.Saved.Equal(s.Saved) {
			t.Fatalf("saved at %s, then at %s", s.Saved, again.Saved)
		}
		again.Saved = s.Saved // the same time may be of another zone
		if !reflect.DeepEqual(s, again) {
			t.Fatalf("decoded\n%+v\nthen\n%+v", s, again)
		}
	})
}
