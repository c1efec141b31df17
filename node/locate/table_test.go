package locate

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// A table behaves like a map, and a version of it stays what it was: also where
// IDs differ in one bit or have the tag of another, and while it grows.
func TestTableIsAPersistentMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var ids []content.TaskID
	for n := range 300 {
		near, same := taskNamed(n), taskNamed(n)
		near[rng.IntN(32)] ^= 1 << rng.IntN(8)
		same[31] ^= 1 // in the same place
		ids = append(ids, taskNamed(n), near, same)
	}
	type version struct {
		table table
		want  map[content.TaskID]*entry
	}
	now := version{newTable(), make(map[content.TaskID]*entry)}
	var versions []version
	for serial := uint64(1); serial < 400; serial++ {
		versions = append(versions, version{now.table, maps.Clone(now.want)})
		for range rng.IntN(12) {
			task := ids[rng.IntN(len(ids))]
			if rng.IntN(5) < 3 && serial < 300 {
				e := &entry{task: task}
				now.table.put(e, serial)
				now.want[task] = e
			} else {
				now.table.remove(task, serial)
				delete(now.want, task)
			}
		}
	}
	for i, v := range append(versions, now) {
		if v.table.n != len(v.want) {
			t.Fatalf("version %d: %d entries, want %d", i, v.table.n, len(v.want))
		}
		for _, task := range ids {
			if got := v.table.get(task); got != v.want[task] {
				t.Fatalf("version %d: entry %p of %s, want %p", i, got, task, v.want[task])
			}
		}
		var walked []content.TaskID
		for _, e := range v.table.all() {
			walked = append(walked, e.task)
		}
		byID := func(a, b content.TaskID) int { return slices.Compare(a[:], b[:]) }
		if want := slices.SortedFunc(maps.Keys(v.want), byID); !slices.Equal(walked, want) {
			t.Fatalf("version %d: walked %d entries, not in order or not all of %d", i, len(walked), len(want))
		}
	}
	for _, task := range ids {
		now.table.remove(task, 1000)
	}
	if now.table.n != 0 || len(now.table.all()) != 0 {
		t.Error("entries are left in an empty table")
	}
}

// A table of many finds each and stays dense, also where IDs are alike.
func TestTableGrows(t *testing.T) {
	const n = 20_000
	for name, task := range map[string]func(i int) content.TaskID{
		"hashes": taskNamed,
		"alike":  func(i int) content.TaskID { return content.TaskID{30: byte(i >> 8), 31: byte(i)} },
	} {
		table := newTable()
		for i := range n {
			table.put(&entry{task: task(i)}, 1)
		}
		for i := range n {
			if e := table.get(task(i)); e == nil || e.task != task(i) {
				t.Fatalf("%s: task %d: %v", name, i, e)
			}
		}
		if table.n != n || len(table.shards) > 4*n/meanShard {
			t.Errorf("%s: %d entries in %d shards", name, table.n, len(table.shards))
		}
	}
}
